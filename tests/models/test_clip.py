"""The open_clip model and the zero-shot head."""

import json

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from wisepatch.config import ModelConfig
from wisepatch.errors import ModelError, UnknownNameError
from wisepatch.models.clip import EMBEDDED, load_clip, resolve_name
from wisepatch.models.head import Classifier, head_hash, zeroshot_head
from wisepatch.models.texts import encode_texts
from wisepatch.store.checkpoints import Store

DEMO = ModelConfig("demo", "")
CLASSES, TEMPLATES = ("circle", "a rather long name of a class", "star"), ("a photo of a {}.", "{}")


@pytest.fixture(scope="module")
def clip():
    return load_clip(DEMO)


def test_embedded_model_is_small_and_open_clip_loads_it():
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) <= 8_000_000
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{EMBEDDED}")
    assert type(model) is open_clip.CLIP
    assert transform(Image.new("RGB", (80, 70))).shape == (3, 64, 64)
    names = [type(module).__name__ for module in model.modules()]
    assert not [name for name in names if "BatchNorm" in name]


def test_transforms_are_those_of_open_clip(clip):
    image = Image.effect_noise((90, 70), 60).convert("RGB")
    _, train, evaluation = open_clip.create_model_and_transforms(f"local-dir:{EMBEDDED}")
    assert torch.equal(clip.transform(image), evaluation(image))
    torch.manual_seed(1)
    expected = train(image)
    torch.manual_seed(1)
    assert torch.equal(clip.train_transform(image), expected)
    crop = clip.train_transform.transforms[0]
    assert (crop.scale, crop.interpolation.value) == ((0.9, 1.0), "bicubic")
    assert "Flip" not in str(clip.train_transform)


@pytest.mark.parametrize(
    ("given", "name"),
    [("ViT-B/32", "ViT-B-32"), ("vit-l-14", "ViT-L-14"), ("hf-hub:a/b", "hf-hub:a/b"), ("RN50", "RN50")],
)
def test_names_are_spelled_as_open_clip_spells_them(given, name):
    assert resolve_name(given) == name


def test_openai_weights_get_quick_gelu(monkeypatch):
    seen = {}

    def stop(name, **options):
        seen.update(options)
        raise OSError("stopped")

    monkeypatch.setattr(open_clip, "create_model", stop)
    for tag, expected in (("openai", True), ("laion2b_s34b_b79k", False)):
        with pytest.raises(ModelError):
            load_clip(ModelConfig("ViT-B-32", tag))
        assert seen["force_quick_gelu"] is expected


def test_short_texts_give_the_features_of_padded_ones(clip):
    texts = [
        "a",
        'a photo of the number: "seven".',
        "a photo of a very large and very red square on a striped background",
    ]
    with torch.no_grad():
        padded = clip.model.encode_text(clip.tokenizer(texts), normalize=True)
        short = encode_texts(clip, texts)
    assert (short - padded).abs().max() < 1e-6


def test_text_longer_than_the_context_is_named(clip):
    with pytest.raises(ModelError, match=r"the prompt 'word word .* is longer than the 32 tokens"):
        encode_texts(clip, ["fine", "word " * 31])
    with torch.no_grad():
        assert len(encode_texts(clip, ["word " * 30])) == 1


def test_head_is_the_normalised_mean_of_normalised_prompts_times_the_scale(clip):
    head = zeroshot_head(clip, CLASSES, TEMPLATES)
    with torch.no_grad():
        for row, name in zip(head, CLASSES, strict=True):
            tokens = clip.tokenizer([t.format(name) for t in TEMPLATES])
            mean = clip.model.encode_text(tokens, normalize=True).mean(0)
            expected = mean / mean.norm() * clip.model.logit_scale.exp()
            assert torch.allclose(row, expected, atol=1e-4)
    assert head.dtype == torch.float32


def test_head_does_not_depend_on_how_classes_are_batched(clip, monkeypatch):
    import wisepatch.models.head

    whole = zeroshot_head(clip, CLASSES, TEMPLATES)
    monkeypatch.setattr(wisepatch.models.head, "TEXTS_PER_BATCH", 1)
    assert torch.allclose(zeroshot_head(clip, CLASSES, TEMPLATES), whole, atol=1e-5)


def test_cached_head_is_found_again_and_never_stale(clip, tmp_path):
    store = Store(tmp_path)
    first = zeroshot_head(clip, CLASSES, TEMPLATES, store)
    assert len(list((store.root / "cache" / "heads").iterdir())) == 1
    assert torch.equal(zeroshot_head(clip, CLASSES, TEMPLATES, store), first)
    hashes = {
        head_hash(clip, CLASSES, TEMPLATES),
        head_hash(clip, CLASSES[::-1], TEMPLATES),
        head_hash(clip, CLASSES, TEMPLATES[:1]),
    }
    changed = load_clip(DEMO)
    with torch.no_grad():
        changed.model.text_projection[0, 0] += 1
    hashes.add(head_hash(changed, CLASSES, TEMPLATES))
    assert len(hashes) == 4
    assert not torch.equal(zeroshot_head(changed, CLASSES, TEMPLATES, store), first)
    with torch.no_grad():
        changed.model.text_projection[0, 0] -= 1
        next(changed.model.visual.parameters()).zero_()
    assert head_hash(changed, CLASSES, TEMPLATES) in hashes  # the image tower has no part in it


def test_head_depends_on_the_activation_too(clip):
    import copy

    quick = copy.copy(clip)
    object.__setattr__(quick, "model", copy.deepcopy(clip.model))
    for block in quick.model.transformer.resblocks:
        block.mlp.gelu = open_clip.model.QuickGELU()
    assert head_hash(quick, CLASSES, TEMPLATES) != head_hash(clip, CLASSES, TEMPLATES)


def test_hint_for_openai_weights_names_the_model_with_their_activation(monkeypatch):
    import open_clip.factory

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", refuse)
    with pytest.raises(ModelError) as caught:
        load_clip(ModelConfig("ViT-B/32", "openai"))
    assert "--model ViT-B-32-quickgelu --pretrained FILE" in caught.value.hint
    assert "ViT-B-32-quickgelu" in open_clip.list_models()


def test_classifier_is_cosine_similarity_times_scale(clip):
    head = zeroshot_head(clip, CLASSES, TEMPLATES)
    classifier = Classifier(clip.model.visual, head)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = clip.model.encode_image(images, normalize=True)
        assert torch.allclose(classifier(images), features @ head.T, atol=1e-5)
        assert torch.allclose(classifier(features), features @ head.T, atol=1e-5)


def test_model_can_be_a_local_dir_and_weights_a_file(tmp_path, clip):
    local = tmp_path / "model"
    local.mkdir()
    for path in EMBEDDED.iterdir():
        (local / path.name).write_bytes(path.read_bytes())
    same = load_clip(ModelConfig(f"local-dir:{local}", ""))
    assert torch.equal(same.model.logit_scale, clip.model.logit_scale)
    (local / "open_clip_config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no open_clip_config\.json"):
        load_clip(ModelConfig(f"local-dir:{local}", ""))


def test_embedded_config_describes_the_pretrained_model():
    from wisepatch.models.pretraining import CONFIG

    assert json.loads((EMBEDDED / "open_clip_config.json").read_text()) == CONFIG


def test_weights_that_do_not_fit_are_an_error(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"w\.safetensors weights of ViT-B-32: could not be fetched or read") as caught:
        load_clip(ModelConfig("ViT-B-32", str(tmp_path / "w.safetensors")))
    assert "--pretrained FILE" in caught.value.hint
    with pytest.raises(ModelError, match="the weights do not fit the model 'demo'"):
        load_clip(DEMO, {"x": torch.zeros(1)})


def test_pickle_with_code_in_it_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(ModelError, match="could not be fetched or read"):
        load_clip(ModelConfig("ViT-B-32", str(tmp_path / "bomb.pt")))


def test_file_of_weights_as_model_says_to_name_the_architecture(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file of weights") as caught:
        resolve_name(str(tmp_path / "w.pt"))
    assert "--model ViT-B-32 --pretrained" in caught.value.hint


def test_unknown_model_lists_close_names():
    with pytest.raises(UnknownNameError, match="unknown model 'VitB32'; did you mean"):
        resolve_name("VitB32")


@pytest.mark.parametrize("size", [(64, 64), (500, 375), (31, 200)])
def test_bytes_normalised_in_a_batch_are_the_transform_bit_for_bit(size):
    import numpy as np
    from PIL import Image

    clip = load_clip(ModelConfig("demo", ""))
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(3)]
    pixels = torch.stack([clip.pixels(image) for image in images])
    assert pixels.dtype == torch.uint8
    assert torch.equal(clip.normalise(pixels), torch.stack([clip.transform(image) for image in images]))
    floats = torch.rand(2, 3, 8, 8)
    assert clip.normalise(floats) is floats


def test_transform_of_another_making_stays_whole():
    from dataclasses import replace

    from PIL import Image

    clip = replace(load_clip(ModelConfig("demo", "")), transform=lambda image: torch.ones(3, 8, 8))
    assert torch.equal(clip.normalise(clip.pixels(Image.new("RGB", (9, 9)))[None]), torch.ones(1, 3, 8, 8))


def test_head_is_open_clips_own_and_encodes_every_prompt_once(monkeypatch):
    import open_clip

    from wisepatch.models import head

    clip = load_clip(ModelConfig("demo", ""))
    classes = ["circle", "a very long name of a square", "star", "circle", "ring"]
    templates = ["a photo of a {}.", "{}", "an {} that is drawn on paper by hand", "a photo of a {}."]
    encoded = []
    original = head.encode_tokens
    monkeypatch.setattr(head, "TEXTS_PER_BATCH", 3)
    monkeypatch.setattr(
        head,
        "encode_tokens",
        lambda model, tokens, lengths: (encoded.append(lengths.tolist()), original(model, tokens, lengths))[1],
    )
    ours = head.zeroshot_head(clip, classes, templates)
    with torch.no_grad():
        theirs = (
            open_clip.build_zero_shot_classifier(
                clip.model, clip.tokenizer, classes, [lambda c, t=t: t.replace("{}", c) for t in templates]
            ).T
            * clip.model.logit_scale.exp()
        )
    assert (ours - theirs).abs().max() < 1e-4  # of logits up to 100
    assert sum(map(len, encoded)) == 4 * 3  # different names times different templates
    lengths = [length for batch in encoded for length in batch]
    assert lengths == sorted(lengths)
