"""Import: the papers' own files give the papers' logits at every mix; what has to be said is asked for, what is wrong is named."""

import json

import pytest
import torch
from PIL import Image

import wisepatch as wp
from tests.loopback_hub import loopback_hub
from tests.tiny_clips import SIGLIP, TEXT, VISION, big_vision, tiny_clip, tiny_siglip, tiny_weights
from wisepatch.models.classifier import logits
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.weights.state_dicts import HEAD, read_state_dict


@pytest.fixture
def store(tmp_path):
    return wp.Store(tmp_path / "store")


@pytest.fixture
def answers(papers):
    def read(name):
        content = json.loads((papers / f"{name}-answers.json").read_text())
        images = [Image.open(papers / "photos" / photo).convert("RGB") for photo in content["photos"]]
        return content["logits"], images, content

    return read


def same_bits(one, other):
    return set(one) == set(other) and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def logits_of(clip, weights, images):
    batch = torch.stack([clip.transform(image) for image in images])
    with torch.no_grad():
        return logits(clip.model.visual, batch, weights[f"{HEAD}weight"], weights[f"{HEAD}bias"])


PAIRS = {
    "wiseft": ("wiseft-zeroshot.pt", "wiseft-finetuned.pt"),
    "patching": ("patching-checkpoint_0.pt", "patching-checkpoint_5.pt", "patching-head_CIFAR10.pt"),
    "whole first": ("clip-state-dict.pt", "patching-checkpoint_5.pt", "patching-head_CIFAR10.pt"),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_mixes_of_the_papers_own_files_have_the_papers_own_logits(store, papers, answers, pair):
    expected, images, _ = answers("wiseft" if pair == "wiseft" else "patching")
    zeroshot, finetuned = wp.import_checkpoints(
        store, [papers / name for name in PAIRS[pair]], task="CIFAR10"
    ).checkpoints
    assert (zeroshot.kind, finetuned.kind, finetuned.trained_from) == ("zeroshot", "finetuned", (zeroshot.id,))
    assert finetuned.training == ("wise-ft" if pair == "wiseft" else "paint")
    assert finetuned.head["task"] == "CIFAR10"
    ends = [wp.load_weights(store, each) for each in (zeroshot, finetuned)]
    clip = wp.load_clip(wp.ModelConfig.from_json(finetuned.model), ends[1])
    for alpha, rows in expected.items():
        weights = wp.interpolate(*ends, float(alpha))
        clip.model.visual.load_state_dict(
            {k.removeprefix("visual."): v for k, v in weights.items() if k.startswith("visual.")}
        )
        assert (logits_of(clip, weights, images) - torch.tensor(rows)).abs().max() < 2e-5


def test_text_tower_that_is_gone_comes_from_the_parent_and_makes_the_papers_head(store, papers, answers):
    (whole,) = wp.import_checkpoints(store, papers / "clip-state-dict.pt", activation="quickgelu").checkpoints
    pair = [papers / name for name in PAIRS["patching"][:2]]
    cut = wp.import_checkpoints(store, pair, name="cut")
    assert any("there is no text tower" in note for note in cut.notes)
    again = wp.import_checkpoints(store, pair, name="whole", parent=whole)
    assert not again.notes
    clips = [
        wp.load_clip(wp.ModelConfig.from_json(each.model), wp.load_weights(store, each))
        for each in (again.checkpoints[1], cut.checkpoints[1])
    ]
    _, _, content = answers("patching")
    head = wp.load_weights(
        store,
        wp.import_checkpoints(
            store, papers / PAIRS["patching"][2], parent=whole, task="CIFAR10", name="head"
        ).checkpoints[1],
    )
    made = zeroshot_head(clips[0], content["classes"], content["templates"])
    assert torch.allclose(made, head[f"{HEAD}weight"], atol=1e-5)
    with pytest.raises(wp.WisepatchError, match="has no text tower, which makes a head from class names") as caught:
        zeroshot_head(clips[1], ["a"], ["{}"])
    assert "--parent CHECKPOINT" in caught.value.hint
    with pytest.raises(wp.WisepatchError, match="cut/finetuned has no text tower, and a CLIP needs one"):
        wp.export(store, cut.checkpoints[1], store.root.parent / "out")
    assert wp.export(store, again.checkpoints[1], store.root.parent / "out").folder.is_dir()


def photos(papers, tmp_path):
    """A CIFAR-like folder of the papers' photographs, each in a class of its own."""
    for split in ("train", "val", "test"):
        for path in sorted((papers / "photos").glob("*.jpg")):
            (tmp_path / "photos" / split / path.stem).mkdir(parents=True)
            (tmp_path / "photos" / split / path.stem / path.name).write_bytes(path.read_bytes())
    return str(tmp_path / "photos")


def test_imported_pair_goes_straight_into_interpolate(store, papers, tmp_path):
    task = photos(papers, tmp_path)
    wp.import_checkpoints(store, [papers / name for name in PAIRS["wiseft"]], task=task)
    swept = wp.sweep(store, tmp_path, alphas="0.5", tasks=[])
    assert swept.patching == "photos"
    # Without a task the first that is to be measured is what was learnt.
    wp.import_checkpoints(
        store,
        [papers / name for name in PAIRS["patching"]],
        name="p",
        classnames=sorted(each.stem for each in (papers / "photos").glob("*")),
    )
    with pytest.raises(wp.WisepatchError, match="p/finetuned does not say what it was trained on") as caught:
        wp.sweep(store, tmp_path, alphas="0.5")
    assert "--eval" in caught.value.hint
    assert wp.sweep(store, tmp_path, alphas="0.5", tasks=[task]).patching == "photos"


def test_fisher_files_of_wise_ft_weigh_the_mix(store, papers, tmp_path):
    task = photos(papers, tmp_path)
    ends = wp.import_checkpoints(store, [papers / name for name in PAIRS["wiseft"]], task=task).checkpoints
    weights = [wp.load_weights(store, each) for each in ends]
    torch.manual_seed(0)
    names = {"visual.proj": "image_encoder.model.visual.proj", f"{HEAD}weight": "classification_head.weight"}
    fishers = [{name: torch.rand_like(weights[0][name]) for name in names} for _ in ends]
    for number, fisher in enumerate(fishers):
        torch.save({names[name]: tensor for name, tensor in fisher.items()}, tmp_path / f"fisher_{number}.pt")
    files = [tmp_path / "fisher_0.pt", tmp_path / "fisher_1.pt"]
    swept = wp.sweep(store, tmp_path, alphas="0.5", method="fisher", fishers=files, tasks=[])
    assert same_bits(wp.load_weights(store, swept.checkpoints[0.5]), wp.interpolate(*weights, 0.5, tuple(fishers)))
    torch.save({"visual.proj": torch.ones(3)}, tmp_path / "other.pt")
    torch.save({"visual.proj": -fishers[0]["visual.proj"]}, tmp_path / "negative.pt")
    torch.save({"visual.projection": torch.ones(3)}, tmp_path / "none.pt")
    for given, words in (
        (files[:1], "1 files of Fisher information, and both"),
        ((files[0], tmp_path / "other.pt"), r"other\.pt: visual\.proj is \[3\]"),
        ((files[0], tmp_path / "negative.pt"), "holds numbers that no mean of squares is"),
        ((files[0], tmp_path / "none.pt"), r"none\.pt has no tensor of"),
    ):
        with pytest.raises(wp.WisepatchError, match=words):
            wp.sweep(store, tmp_path, alphas="0.5", method="fisher", fishers=given, tasks=[])
    with pytest.raises(wp.WisepatchError, match="the method linear takes no Fisher information"):
        wp.sweep(store, tmp_path, alphas="0.5", fishers=files, tasks=[])


def saved(path, content):
    torch.save(content, path)
    return path


def test_types_of_one_pair_may_differ_and_the_mix_takes_the_wider(store, tmp_path):
    types = {"half.pt": torch.float16, "brain.pt": torch.bfloat16, "full.pt": torch.float32}
    weights = tiny_weights()
    files = [saved(tmp_path / name, {k: v.to(kind) for k, v in weights.items()}) for name, kind in types.items()]
    half, brain, full = wp.import_checkpoints(store, files, activation="gelu").checkpoints
    ends = [wp.load_weights(store, each) for each in (half, brain, full)]
    assert [end["visual.proj"].dtype for end in ends] == list(types.values())
    assert wp.interpolate(ends[0], ends[1], 0.5)["visual.proj"].dtype == torch.float32
    assert wp.interpolate(ends[0], ends[2], 0.5)["visual.proj"].dtype == torch.float32
    assert wp.interpolate(ends[0], ends[0], 0.5)["visual.proj"].dtype == torch.float16


def test_same_files_again_are_the_same_checkpoints_and_a_name_that_is_taken_is_said(store, papers, tmp_path):
    pair = [papers / name for name in PAIRS["patching"][:2]]
    first, again = (wp.import_checkpoints(store, pair).checkpoints for _ in range(2))
    assert [each.id for each in first] == [each.id for each in again]
    other = tiny_weights(seed=1)
    for name in ("patching-checkpoint_0.pt", "x.pt"):
        saved(tmp_path / name, other)
    wp.import_checkpoints(store, tmp_path / "x.pt", name="mine", activation="gelu")
    with pytest.raises(wp.WisepatchError, match="the name mine is taken by checkpoint") as caught:
        wp.import_checkpoints(store, papers / "clip-state-dict.pt", name="mine", activation="quickgelu")
    assert "--name" in caught.value.hint
    with pytest.raises(wp.WisepatchError, match="the name finetuned stands for the newest checkpoint of a kind"):
        wp.import_checkpoints(store, papers / "clip-state-dict.pt", name="finetuned", activation="quickgelu")
    (tmp_path / "more").mkdir()
    third = saved(tmp_path / "more" / "x.pt", other)
    names = [
        each.name for each in wp.import_checkpoints(store, [tmp_path / "x.pt", third], activation="gelu").checkpoints
    ]
    assert names[1] == "ViT-64x1-8-16/more-x"


REFUSED = {
    "no class names": (
        {"files": PAIRS["wiseft"]},
        r"wiseft-zeroshot\.pt has a head of 10 classes and does not name them",
        "--classnames FILE",
    ),
    "too many classes": (
        {"files": PAIRS["wiseft"], "task": "CIFAR100"},
        "head of 10 classes, and the task CIFAR100 has 100",
        "of the head",
    ),
    "too few names": (
        {"files": PAIRS["wiseft"], "classnames": ["a", "b"]},
        "head of 10 classes, and the list of names has 2",
        "of the head",
    ),
    "a head alone": (
        {"files": PAIRS["patching"][2:]},
        r"head_CIFAR10\.pt is a head without a model",
        "--parent CHECKPOINT",
    ),
    "two heads": ({"files": PAIRS["patching"] + PAIRS["patching"][2:]}, "are both heads", "one of them"),
    "activation": (
        {"files": ["clip-state-dict.pt"]},
        "does not say whether it was trained with QuickGELU or GELU",
        "--activation gelu",
    ),
    "activation that is none": (
        {"files": ["clip-state-dict.pt"], "activation": "relu"},
        "unknown activation 'relu'",
        "known: gelu, quickgelu",
    ),
    "a long name": ({"files": ["x" * 300]}, "xxx cannot be read: File name too long", "may be read"),
    "no file": ({"files": []}, "no file is named", "hf-hub"),
    "activation that is known": (
        {"files": PAIRS["patching"][:1], "activation": "gelu"},
        "has quickgelu, and --activation says gelu",
        "leave",
    ),
    "other shapes": (
        {"files": ["clip-state-dict.pt"], "model": "demo"},
        r"clip-state-dict\.pt: the weights do not fit the model 'demo'",
        "name the model",
    ),
    "unknown model": ({"files": ["clip-state-dict.pt"], "model": "ViT-Q"}, "unknown model 'ViT-Q'", "open_clip lists"),
    "NumPy": ({"files": ["w.npz"]}, r"w\.npz holds NumPy's arrays and does not name its model", "SigLIP"),
    "not there": ({"files": ["none.pt"]}, r"none\.pt cannot be read: No such file", "is there"),
    "a picture": ({"files": ["photos/cat.jpg"]}, r"cat\.jpg cannot be read: it", "torch.save"),
    "words": ({"files": ["wiseft-answers.json"]}, r"answers\.json is no index", "weight_map"),
    "a folder": ({"files": ["photos"]}, "photos holds no settings of a model", "config.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_to_be_said_is_asked_for_and_nothing_is_saved(store, papers, case):
    settings, words, hint = REFUSED[case]
    settings = dict(settings, files=[papers / name for name in settings["files"]])
    if "model" in settings:
        settings["model"] = wp.ModelConfig(settings["model"], "")
    with pytest.raises(wp.WisepatchError, match=words) as caught:
        wp.import_checkpoints(store, **settings)
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    assert not store.everything()


def test_parent_of_another_architecture_or_model_is_refused(store, papers, tmp_path):
    (small,) = wp.import_checkpoints(store, saved(tmp_path / "small.pt", tiny_weights()), activation="gelu").checkpoints
    with pytest.raises(
        wp.WisepatchError, match=r"checkpoint_5\.pt is of another architecture than ViT-64x1-8-16/small: visual\."
    ) as caught:
        wp.import_checkpoints(store, papers / "patching-checkpoint_5.pt", parent=small)
    assert "fine-tuned from" in caught.value.hint
    with pytest.raises(wp.WisepatchError, match=r"the parent .* already says which model"):
        wp.import_checkpoints(store, tmp_path / "small.pt", parent=small, activation="gelu")
    with pytest.raises(wp.WisepatchError, match="unknown checkpoint 'nobody'"):
        wp.import_checkpoints(store, tmp_path / "small.pt", parent="nobody")
    torch.save({**tiny_weights(), "visual.proj": torch.full((64, 16), float("nan"))}, tmp_path / "nan.pt")
    with pytest.raises(wp.WisepatchError, match=r"nan\.pt: 1 tensor holds NaN or infinities, such as visual\.proj"):
        wp.import_checkpoints(store, tmp_path / "nan.pt", activation="gelu")
    with pytest.raises(
        wp.WisepatchError,
        match=r"of another architecture than .*small\.pt: positional_embedding is \[77, 64\] here and \[77, 8\]",
    ) as caught:
        wp.import_checkpoints(store, [tmp_path / "small.pt", papers / "clip-state-dict.pt"], activation="gelu")


@pytest.mark.parametrize(("kind", "form"), [("vit", "open_clip"), ("resnet", "open_clip"), ("vit", "transformers")])
def test_what_export_wrote_comes_back_in_with_its_head(store, tmp_path, kind, form):
    weights = {**tiny_weights(kind), "classifier.weight": torch.randn(10, 16), "classifier.bias": torch.randn(10)}
    (first,) = wp.import_checkpoints(
        store, saved(tmp_path / "w.pt", weights), activation="gelu", task="CIFAR10"
    ).checkpoints
    folder = wp.export(store, first, tmp_path / "out", format=form).folder
    (again,) = wp.import_checkpoints(store, folder).checkpoints
    assert again.head == first.head
    assert same_bits(wp.load_weights(store, again), wp.load_weights(store, first))
    assert wp.ModelConfig.from_json(again.model).settings


def test_zeroshot_model_without_a_head_gets_one_from_the_tasks_words(store, papers, tmp_path):
    (whole,) = wp.import_checkpoints(store, papers / "clip-state-dict.pt", activation="quickgelu").checkpoints
    start, end = wp.import_checkpoints(store, papers / "wiseft-finetuned.pt", parent=whole, task="CIFAR10").checkpoints
    assert (start.kind, start.trained_from, end.trained_from) == ("start", (whole.id,), (start.id,))
    assert start.head == end.head
    assert wp.load_weights(store, start)[f"{HEAD}weight"].shape == (10, 16)
    with pytest.raises(
        wp.WisepatchError, match="has a trained head, and what it was fine-tuned from has none"
    ) as caught:
        wp.import_checkpoints(
            store, papers / "wiseft-finetuned.pt", parent=whole, classnames=list("abcdefghij"), name="x"
        )
    assert "--task TASK" in caught.value.hint


def test_end_without_a_head_keeps_that_of_the_zeroshot_model(store, papers):
    files = [papers / "wiseft-zeroshot.pt", papers / "patching-checkpoint_5.pt"]
    done = wp.import_checkpoints(store, files, task="CIFAR10")
    first, end = (wp.load_weights(store, each) for each in done.checkpoints)
    assert torch.equal(end["classifier.weight"], first["classifier.weight"])
    assert done.checkpoints[1].training == "paint"
    assert f"{files[1]} has no head: it keeps that of the zero-shot model" in done.notes


def test_head_of_each_file_has_the_classes_that_are_named(store, papers, tmp_path):
    weights = read_state_dict(papers / "wiseft-finetuned.pt").tensors
    shorter = {name: tensor[:5] for name, tensor in weights.items() if name.startswith(HEAD)}
    five = saved(tmp_path / "five.pt", weights | shorter)
    with pytest.raises(wp.WisepatchError, match=r"five\.pt has a head of 5 classes, and the task CIFAR10 has 10"):
        wp.import_checkpoints(store, [papers / "wiseft-zeroshot.pt", five], task="CIFAR10")
    assert store.everything() == []


def test_model_that_is_named_has_the_activation_of_a_whole_module(store, tmp_path, monkeypatch):
    import open_clip

    for name, more in (("tiny", {}), ("tiny-quickgelu", {"quick_gelu": True})):
        config = {"embed_dim": 16, "vision_cfg": VISION["vit"], "text_cfg": TEXT, **more}
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    saved(tmp_path / "whole.pt", tiny_clip(quick_gelu=True))
    with pytest.raises(
        wp.WisepatchError, match="was trained with quickgelu, and the model that is named computes gelu"
    ):
        wp.import_checkpoints(store, tmp_path / "whole.pt", model=wp.ModelConfig("tiny", ""))
    for model in (wp.ModelConfig("tiny-quickgelu", ""), None):
        (checkpoint,) = wp.import_checkpoints(store, tmp_path / "whole.pt", model=model).checkpoints
        assert checkpoint.model == {"model": "tiny-quickgelu", "pretrained": ""}


def test_settings_of_an_imported_model_are_checked_as_those_of_a_folder(store):
    for settings, words in (
        ("{", "cannot be read"),
        ('{"model_cfg": {"text_cfg": {"trust_remote_code": true}, "vision_cfg": {}}}', "run code"),
    ):
        with pytest.raises(wp.WisepatchError, match=words):
            wp.load_clip(wp.ModelConfig("mine", "", settings), {})


def test_repository_of_the_hub_is_read_as_a_folder_is(store, tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    from tests.models.test_transformers_names import as_transformers, folder_of

    towers = {"num_attention_heads": 1, "hidden_act": "gelu"}
    folder = folder_of(
        tmp_path / "clip",
        {"model_type": "clip", "vision_config": towers, "text_config": towers},
        as_transformers(tiny_weights()),
    )

    def download(repository, name):
        if not (folder / name).exists():
            raise EntryNotFoundError(name)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    (checkpoint,) = wp.import_checkpoints(store, "hf-hub:someone/tiny-clip").checkpoints
    assert checkpoint.name == "ViT-64x1-8-16/tiny-clip"
    assert checkpoint.config["imported"]["from"] == "hf-hub:someone/tiny-clip"
    monkeypatch.undo()
    with pytest.raises(wp.WisepatchError, match="hf-hub:someone/tiny-clip: could not be fetched or read") as caught:
        wp.import_checkpoints(store, "hf-hub:someone/tiny-clip")
    assert "network" in caught.value.hint


@pytest.mark.parametrize("where", ["/api/models/someone/tiny-clip", "/resolve/", "model.safetensors"])
@pytest.mark.parametrize(
    ("status", "reason"), [(401, "401"), (403, "403"), (404, "404"), (500, "500"), (0, "disconnected")]
)
def test_hub_that_does_not_give_a_repository_or_a_file_is_one_line_with_the_next_step(
    store, tmp_path, monkeypatch, where, status, reason
):
    with loopback_hub(monkeypatch, tmp_path / "cache") as hub:
        hub.repositories["someone/tiny-clip"] = {
            "config.json": b'{"model_type": "clip"}',
            "model.safetensors": b"weights",
        }
        hub.trouble = (where, status)
        with pytest.raises(wp.WisepatchError) as caught:
            wp.import_checkpoints(store, "hf-hub:someone/tiny-clip")
    assert caught.value.message.startswith("hf-hub:someone/tiny-clip: could not be fetched or read: ")
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
    assert "a token of yours" in caught.value.hint
    assert not list(store.checkpoints.glob("*"))


def test_tokenizer_that_is_not_the_models_is_said(store, tmp_path):
    (checkpoint,) = wp.import_checkpoints(
        store, saved(tmp_path / "w.pt", tiny_weights(vocab_size=100)), activation="gelu"
    ).checkpoints
    clip = wp.load_clip(wp.ModelConfig.from_json(checkpoint.model), wp.load_weights(store, checkpoint))
    with pytest.raises(
        wp.WisepatchError, match="ViT-64x1-8-16 knows 100 tokens, and its tokenizer makes number 49,407"
    ):
        zeroshot_head(clip, ["a"], ["{}"])


def test_published_model_gives_the_text_tower_back(store, papers, monkeypatch):
    import open_clip

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"width": 64, "heads": 1, "layers": 1},
        "quick_gelu": True,
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-quickgelu", config)
    published = wp.ModelConfig("tiny-quickgelu", str(papers / "clip-state-dict.pt"))
    pair = [papers / name for name in PAIRS["patching"][:2]]
    done = wp.import_checkpoints(store, pair, model=published)
    assert not done.notes
    whole = wp.import_checkpoints(store, papers / "clip-state-dict.pt", model=published, name="whole").checkpoints[0]
    weights, expected = (wp.load_weights(store, each) for each in (done.checkpoints[0], whole))
    assert same_bits(weights, expected)
    with pytest.raises(wp.WisepatchError, match="unknown pretrained weights of tiny-quickgelu: 'openai'"):
        wp.import_checkpoints(store, pair, model=wp.ModelConfig("tiny-quickgelu", ""), name="x")


@pytest.mark.parametrize("kind", ["embedded", "SigLIP-shaped"])
def test_folder_of_open_clip_goes_in_with_its_towers_and_preparation(store, tmp_path, kind):
    from safetensors.torch import save_file

    from wisepatch.models.clip import EMBEDDED

    folder = EMBEDDED
    if kind != "embedded":
        model = tiny_siglip()
        folder = tmp_path / "siglip"
        folder.mkdir()
        preparation = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIGLIP, "preprocess_cfg": preparation}))
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    direct = wp.load_clip(wp.ModelConfig(f"local-dir:{folder}", ""))
    (checkpoint,) = wp.import_checkpoints(store, folder).checkpoints
    clip = wp.load_clip(wp.ModelConfig.from_json(checkpoint.model), wp.load_weights(store, checkpoint))
    assert str(clip.transform) == str(direct.transform)
    image = direct.transform(Image.effect_noise((90, 70), 60).convert("RGB"))[None]
    with torch.no_grad():
        assert torch.equal(clip.model.encode_image(image), direct.model.encode_image(image))
        tokens = clip.tokenizer(["a dog"])
        assert torch.equal(clip.model.encode_text(tokens), direct.model.encode_text(tokens))
    again = wp.import_checkpoints(
        store, wp.export(store, checkpoint, tmp_path / "out").folder, name="again"
    ).checkpoints[0]
    assert same_bits(wp.load_weights(store, again), wp.load_weights(store, checkpoint))


def test_openais_numbers_speak_for_quick_gelu_unless_the_user_says_otherwise(store, tmp_path, monkeypatch):
    import open_clip

    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS, "tiny", {"embed_dim": 16, "vision_cfg": VISION["vit"], "text_cfg": TEXT}
    )
    numbers = {
        "input_resolution": torch.tensor(16),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    path = saved(tmp_path / "w.pt", tiny_weights() | numbers)
    with pytest.raises(wp.WisepatchError, match=r"w\.pt.* does not say whether it was trained with QuickGELU or GELU"):
        wp.import_checkpoints(store, path)
    with pytest.raises(
        wp.WisepatchError, match="was trained with quickgelu, and the model that is named computes gelu"
    ):
        wp.import_checkpoints(store, path, model=wp.ModelConfig("tiny", ""))
    with pytest.raises(wp.WisepatchError, match="the model tiny already says its activation"):
        wp.import_checkpoints(store, path, model=wp.ModelConfig("tiny", ""), activation="gelu")
    assert wp.import_checkpoints(store, path, activation="gelu").checkpoints[0].model["model"] == "tiny"


def test_big_visions_arrays_are_converted_by_open_clip(store, tmp_path, monkeypatch):
    import numpy as np
    import open_clip

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", SIGLIP)
    model = tiny_siglip()
    np.savez(tmp_path / "siglip.npz", **big_vision(model))
    (checkpoint,) = wp.import_checkpoints(store, tmp_path / "siglip.npz", model=wp.ModelConfig("tiny", "")).checkpoints
    assert same_bits(wp.load_weights(store, checkpoint), model.state_dict())
