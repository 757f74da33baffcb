"""Export: what open_clip loads from the folder is what the checkpoint is."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import wisepatch
from tests.samples import fails
from tests.towers import save_shape
from tests.weights.test_interpolation import same_bits
from wisepatch import ModelConfig, Store, load_clip, load_weights, sweep
from wisepatch.errors import ModelError, StoreError, UsageError
from wisepatch.files import sha256
from wisepatch.models.clip import EMBEDDED, describe
from wisepatch.models.exporting import write_model
from wisepatch.reports.publishing import export
from wisepatch.store.checkpoints import Recipe

DEMO = {"model": "demo", "pretrained": ""}
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


def recipe(store, alpha=0.3, parents=None, **more):
    parents = parents or [store.find("zeroshot").id, store.find("finetuned").id]
    settings = {"kind": "patched", "name": "demo/shapes/patched", "model": DEMO} | more
    return store.save(None, recipe=Recipe("linear", tuple(parents), {"alpha": alpha}), **settings)


def same_weights(one, other):
    assert set(one) == set(other)
    assert all(same_bits(tensor, other[name]) for name, tensor in one.items())


def files(folder):
    """The files of a folder but for the model card and its picture, which have tests of their own."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("README.md", "sweep.png"))


def test_exported_model_gives_the_features_of_the_checkpoint(run_store, tmp_path):
    checkpoint = recipe(run_store)
    done = export(run_store, checkpoint, tmp_path / "model")
    assert files(tmp_path / "model") == [CONFIG, WEIGHTS]
    assert files(tmp_path) == ["model", "wisepatch-store"]
    assert done.files == {WEIGHTS: sha256(tmp_path / "model" / WEIGHTS)}
    weights = load_weights(run_store, checkpoint)
    same_weights(load_file(tmp_path / "model" / WEIGHTS), weights)

    clip = load_clip(ModelConfig("demo", ""), weights)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'model'}")
    assert [str(step) for step in clip.transform.transforms[1:]] == [str(step) for step in transform.transforms]
    images, texts = torch.randn(3, 3, 64, 64), clip.tokenizer(["a star", "a photo of a ring."])
    with torch.no_grad():
        assert torch.equal(model.eval().encode_image(images), clip.model.encode_image(images))
        assert torch.equal(model.encode_text(texts), clip.model.encode_text(texts))


def test_checkpoint_with_weights_is_exported_as_it_is(run_store, tmp_path):
    checkpoint = run_store.find("finetuned")
    export(run_store, checkpoint, tmp_path / "deep" / "model")
    assert (tmp_path / "deep" / "model" / WEIGHTS).read_bytes() == (checkpoint.home / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "deep" / "model" / CONFIG).read_text()) == json.loads((EMBEDDED / CONFIG).read_text())


def test_recipe_of_a_recipe_is_mixed_through(run_store, tmp_path):
    inner = recipe(run_store, 0.3)
    outer = recipe(run_store, 0.6, [inner.id, run_store.find("finetuned").id], name="outer")
    export(run_store, outer, tmp_path / "model")
    same_weights(load_file(tmp_path / "model" / WEIGHTS), load_weights(run_store, outer))
    assert files(tmp_path / "model") == [CONFIG, WEIGHTS]


def test_trained_head_goes_beside_the_model(cli, tmp_path):
    store = Store(tmp_path / "wisepatch-store")
    ends = []
    for value in (0.0, 1.0):
        tensors = {name: tensor.float() + value for name, tensor in load_file(EMBEDDED / WEIGHTS).items()}
        tensors |= {"classifier.weight": torch.full((2, 128), value), "classifier.bias": torch.full((2,), value)}
        head = {"task": "things", "classes": ["star", "ring"]}
        kind = "finetuned" if value else "zeroshot"
        ends.append(store.save(tensors, kind=kind, name=kind, model=DEMO, head=head))
    recipe(store, 0.25, [end.id for end in ends], head=head)
    result = cli("export", "patched", "model")
    assert result.exit_code == 0, result.output
    assert "its trained head of 2 classes is in classifier.safetensors and classifier.json" in result.stdout
    assert files(tmp_path / "model") == ["classifier.json", "classifier.safetensors", CONFIG, WEIGHTS]
    assert json.loads((tmp_path / "model" / "classifier.json").read_text()) == head
    classifier = load_file(tmp_path / "model" / "classifier.safetensors")
    assert set(classifier) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(classifier["classifier.weight"], torch.full((2, 128), 0.25))
    assert not [name for name in load_file(tmp_path / "model" / WEIGHTS) if name.startswith("classifier")]
    open_clip.create_model(f"local-dir:{tmp_path / 'model'}")


def test_command_says_what_it_wrote_and_the_folder_is_a_model(cli, run_store):
    checkpoint = recipe(run_store)
    result = cli("export", "patched", "model", "--json")
    assert result.exit_code == 0, result.output
    (record,) = map(json.loads, result.stdout.splitlines())
    assert record == {
        "type": "export", "exported": "model", "checkpoint": checkpoint.id, "name": checkpoint.name, "model": DEMO, "alpha": 0.3,
        "files": {WEIGHTS: sha256(Path("model") / WEIGHTS)}, "head": None, "format": "open_clip", "address": None,
    }  # fmt: skip
    result = cli("zeroshot", "--model", "local-dir:model", "--store", "other", "--quiet")
    assert result.exit_code == 0, result.output
    same_weights(load_weights(Store("other"), Store("other").find("zeroshot")), load_weights(run_store, checkpoint))


def test_mistakes_of_the_command(cli, run_store, tmp_path):
    fails(cli("export", "patched", "model"), 1, "no patched checkpoint in the store", "wisepatch patch")
    fails(cli("export", "finetund", "model"), 2, "unknown checkpoint 'finetund'", "store list")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    fails(cli("export", "finetuned", "full"), 2, "the folder full is not empty", "name a new folder")
    fails(cli("export", "finetuned", "full/note"), 2, "full/note is a file, not a folder", "name a new folder")
    assert files(tmp_path) == ["full", "wisepatch-store"]
    (tmp_path / "empty").mkdir()
    assert cli("export", "finetuned", "empty").exit_code == 0
    assert files(tmp_path / "empty") == [CONFIG, WEIGHTS]


def test_damaged_weights_are_not_exported(run_store, tmp_path):
    path = run_store.find("finetuned").home / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        export(run_store, recipe(run_store), tmp_path / "model")
    assert files(tmp_path) == ["wisepatch-store"]


def test_full_disk_leaves_nothing_behind(run_store, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written: File too large"):
            export(run_store, run_store.find("finetuned"), tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(tmp_path) == ["wisepatch-store"]


def test_folder_that_cannot_be_made_is_an_error(run_store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written: Not a directory") as caught:
        export(run_store, run_store.find("finetuned"), tmp_path / "file" / "model")
    assert caught.value.hint == "free space there, or name another folder"
    with pytest.raises(UsageError, match="is a file"):
        export(run_store, run_store.find("finetuned"), tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be written: File name too long"):
        export(run_store, run_store.find("finetuned"), tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("name", "tag", "quick"),
    [
        ("ViT-B-32", "openai", True),
        ("ViT-B/32", "openai", True),
        ("ViT-B-32-quickgelu", "openai", True),
        ("ViT-B-32-quickgelu", "weights.pt", True),
        ("ViT-B-32", "weights.pt", None),
        ("ViT-B-32", "laion2b_s34b_b79k", None),
        ("ViT-B-16", "dfn2b", True),
    ],
)
def test_activation_is_that_of_the_published_weights(name, tag, quick):
    assert describe(ModelConfig(name, tag))["model_cfg"].get("quick_gelu") == quick


def test_preprocessing_is_that_of_the_published_weights():
    openai = describe(ModelConfig("ViT-B-32", "openai"))["preprocess_cfg"]
    assert openai["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert openai["std"] == open_clip.OPENAI_DATASET_STD
    assert (openai["interpolation"], openai["resize_mode"]) == ("bicubic", "shortest")
    imagenet = describe(ModelConfig("ViT-L-14-CLIPA", "datacomp1b"))["preprocess_cfg"]
    assert imagenet["mean"] == open_clip.constants.IMAGENET_MEAN
    assert imagenet["resize_mode"] == "squash"


def test_model_of_a_name_is_built_again_from_its_description(tmp_path, monkeypatch):
    """A published name and tag, with weights at hand, against the folder that is exported of them."""
    small = open_clip.get_model_config("ViT-B-32")
    small["vision_cfg"] |= {"layers": 1, "width": 64}
    small["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1, "vocab_size": 49408}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", small)
    model = {"model": "ViT-B-32", "pretrained": "openai"}
    torch.manual_seed(0)
    weights = open_clip.create_model("ViT-B-32").state_dict()
    store = Store(tmp_path / "store")
    checkpoint = store.save(weights, kind="zeroshot", name="small", model=model)
    expected = load_clip(ModelConfig.from_json(model), weights)
    export(store, checkpoint, tmp_path / "model")
    loaded, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'model'}")
    assert "QuickGELU" in str(loaded)
    images = torch.stack([transform(Image.linear_gradient("L").resize((300, 260)).convert("RGB"))])
    assert torch.equal(images[0], expected.transform(Image.linear_gradient("L").resize((300, 260)).convert("RGB")))
    with torch.no_grad():
        assert torch.equal(loaded.eval().encode_image(images), expected.model.encode_image(images))


def local_model(folder, **text):
    folder.mkdir()
    config = json.loads((EMBEDDED / CONFIG).read_text())
    config["model_cfg"]["text_cfg"] |= text
    (folder / CONFIG).write_text(json.dumps(config))
    return {"model": f"local-dir:{folder}", "pretrained": ""}


def test_model_of_a_folder_needs_its_configuration(tmp_path):
    store = Store(tmp_path / "store")
    model = local_model(tmp_path / "local")
    checkpoint = store.save({"w": torch.ones(1)}, kind="zeroshot", name="start", model=model)
    export(store, checkpoint, tmp_path / "model")
    assert (tmp_path / "model" / CONFIG).is_file()
    (tmp_path / "local" / CONFIG).write_text("{}")
    with pytest.raises(ModelError, match=r"open_clip_config\.json cannot be read"):
        export(store, checkpoint, tmp_path / "again")
    (tmp_path / "local" / CONFIG).unlink()
    with pytest.raises(ModelError, match=r"holds no open_clip_config\.json") as caught:
        export(store, checkpoint, tmp_path / "again")
    assert "model_cfg" in caught.value.hint
    assert not (tmp_path / "again").exists()


def test_tokenizer_of_its_own_goes_along(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    model = local_model(tmp_path / "local", hf_tokenizer_name="someone/words")
    checkpoint = store.save({"w": torch.ones(1)}, kind="zeroshot", name="start", model=model)

    class Tokenizer:
        def save_pretrained(self, folder):
            (folder / "tokenizer.json").write_text("{}")

    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name, **_: {model["model"]: Tokenizer()}[name])
    export(store, checkpoint, tmp_path / "model")
    assert files(tmp_path / "model") == [CONFIG, WEIGHTS, "tokenizer.json"]

    def fail(name, **_):
        raise ImportError("No module named 'transformers'")

    monkeypatch.setattr(open_clip, "get_tokenizer", fail)
    with pytest.raises(ModelError, match="the tokenizer of local-dir:") as caught:
        export(store, checkpoint, tmp_path / "again")
    assert "transformers" in caught.value.hint
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("shape", ["vit-quickgelu", "vit", "resnet", "siglip", "coca"])
def test_every_shape_of_tower_gives_the_same_logits_in_open_clip(tmp_path, shape):
    """To the bit: the same code computes with the same weights, whatever is read back from the folder."""
    store = Store(tmp_path / "store")
    checkpoint, weights = save_shape(store, tmp_path / "source", shape)
    clip = load_clip(ModelConfig.from_json(checkpoint.model), weights)
    write_model(store, checkpoint, tmp_path / "model")
    shutil.rmtree(tmp_path / "source")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'model'}")
    photo = Image.linear_gradient("L").resize((50, 40)).convert("RGB")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'model'}")(["a cat", "a photo of a dog."])
    with torch.no_grad():
        for name, given in (("encode_image", transform(photo)[None]), ("encode_text", tokens)):
            assert torch.equal(getattr(model.eval(), name)(given), getattr(clip.model, name)(given))
        assert torch.equal(transform(photo), clip.transform(photo))
    assert model.logit_scale == clip.model.logit_scale


def test_weights_of_a_file_are_prepared_as_all_published_ones_of_their_architecture():
    siglip = describe(ModelConfig("ViT-B-16-SigLIP", "weights.pt"))["preprocess_cfg"]
    assert siglip == {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    several = describe(ModelConfig("ViT-L-14", "weights.pt"))["preprocess_cfg"]  # some were trained with other means
    assert several["mean"] == open_clip.OPENAI_DATASET_MEAN


def test_hub_that_cannot_be_reached_is_an_error():
    with pytest.raises(ModelError, match="hf-hub:nobody/nothing: could not be fetched or read"):
        describe(ModelConfig("hf-hub:nobody/nothing", ""))


def test_export_of_the_embedded_model_builds_no_model(tmp_path):
    store = Store(tmp_path / "store")
    save = {"kind": "zeroshot", "model": DEMO}
    ends = [store.save({"w": torch.full((9,), value)}, name=str(value), **save) for value in (0.0, 1.0)]
    recipe(store, 0.5, [end.id for end in ends])
    code = (
        "import sys\nfrom wisepatch.cli.app import app\n"
        "try:\n    app(['export', 'patched', 'model', '--store', 'store'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torchvision', 'open_clip') if m in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(wisepatch.__file__).parents[1])}
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]", out.stderr
    assert load_file(tmp_path / "model" / WEIGHTS)["w"].tolist() == [0.5] * 9


def test_materialized_mixes_are_the_weights_of_the_recipe_and_keep_its_rules(run_store, tmp_path):
    done = sweep(run_store, tmp_path, alphas=(0, 0.3), tasks=(), materialize=True).checkpoints
    mixed, wanted = done[0.3], load_weights(run_store, recipe(run_store, 0.3))
    assert done[0].id == run_store.find("zeroshot").id
    assert not mixed.is_recipe
    assert run_store.problem(mixed) == ""
    same_weights(run_store.read(mixed), wanted)
    again = run_store.save(
        wanted, kind=mixed.kind, name=mixed.name, model=mixed.model, training=mixed.training, recipe=mixed.recipe,
        config=mixed.config, head=mixed.head,
    )  # fmt: skip
    assert again.id == mixed.id
    assert not [path for path in run_store.checkpoints.iterdir() if path.name.startswith(".")]


def test_materialized_mixes_of_a_recipe_are_merged_through_a_passing_file(run_store, tmp_path):
    inner, finetuned = recipe(run_store, 0.3), run_store.find("finetuned")
    end = run_store.save(
        run_store.read(finetuned), kind="finetuned", name="tuned again", model=DEMO, trained_from=[inner.id],
        training="paint", config=finetuned.config,
    )  # fmt: skip
    mixed = sweep(run_store, tmp_path, checkpoint=end.id, alphas=(0.5,), tasks=(), materialize=True).checkpoints[0.5]
    outer = recipe(run_store, 0.5, [inner.id, end.id], name="outer")
    same_weights(run_store.read(mixed), load_weights(run_store, outer))
    assert not [path for path in run_store.checkpoints.iterdir() if path.name.startswith(".")]


def test_materialized_mix_on_a_full_disk_is_an_error_of_the_store(run_store, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"the store .* cannot be written: File too large"):
            sweep(run_store, tmp_path, alphas=(0.5,), tasks=(), materialize=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in run_store.checkpoints.iterdir() if path.name.startswith(".")]


def test_what_an_export_that_was_killed_has_left_is_removed_by_the_next(run_store, tmp_path):
    left, other = tmp_path / ".wisepatch-partial-01234567", tmp_path / ".partial-1-01234567"
    for folder in (left, other):
        folder.mkdir()
        (folder / "open_clip_model.safetensors").touch()
    export(run_store, run_store.find("finetuned"), tmp_path / "model")
    assert not left.exists()
    assert other.exists()  # may be another program's
    assert sorted(path.name for path in tmp_path.glob(".wisepatch*")) == []


def test_a_disk_without_room_for_an_export_is_an_error_before_it(run_store, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(StoreError, match=r"needs \d+ MB, and its disk has 0 MB free"):
        export(run_store, run_store.find("finetuned"), tmp_path / "model")
    assert not (tmp_path / "model").exists()
