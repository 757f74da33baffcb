"""The open_clip model, its names, files and transforms."""

import json

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.loopback_hub import loopback_hub
from wisepatch.config import ModelConfig
from wisepatch.errors import ModelError, UnknownNameError
from wisepatch.models.clip import EMBEDDED, load_clip, resolve_name
from wisepatch.store.checkpoints import Store

DEMO = ModelConfig("demo", "")


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


def test_hint_for_openai_weights_names_the_model_with_their_activation(monkeypatch):
    import open_clip.factory

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", refuse)
    with pytest.raises(ModelError) as caught:
        load_clip(ModelConfig("ViT-B/32", "openai"))
    assert "--model ViT-B-32-quickgelu --pretrained FILE" in caught.value.hint
    assert "ViT-B-32-quickgelu" in open_clip.list_models()


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
    with pytest.raises(ModelError, match=r"w\.safetensors: the weights do not fit the model 'ViT-B-32'"):
        load_clip(ModelConfig("ViT-B-32", str(tmp_path / "w.safetensors")))
    with pytest.raises(ModelError, match="the weights do not fit the model 'demo'"):
        load_clip(DEMO, {"x": torch.zeros(1)})


def test_pickle_with_code_in_it_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(ModelError, match=r"bomb\.pt cannot be read: it asks for __builtin__\.print, and no code"):
        load_clip(ModelConfig("ViT-B-32", str(tmp_path / "bomb.pt")))


@pytest.mark.parametrize("suffix", ["pt", "bin", "safetensors", "npz"])
@pytest.mark.parametrize(
    "content",
    [{}, [], 5, None, "a", {"state_dict": {}}, {"state_dict": 5}, {1: 2}, {"a": "b"}, [torch.ones(1)],
        {"w": torch.ones(1)}, b"", b"PK", b"\x80\x05."],
)  # fmt: skip
def test_odd_files_of_weights_are_an_error_that_names_them(tmp_path, monkeypatch, suffix, content):
    path = tmp_path / f"odd.{suffix}"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    small = {"embed_dim": 8, "vision_cfg": {"image_size": 8, "layers": 1, "width": 64, "patch_size": 8}}
    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS, "ViT-B-32", small | {"text_cfg": {"width": 8, "heads": 1, "layers": 1}}
    )
    with pytest.raises(
        ModelError, match=rf"odd\.{suffix}( weights of ViT-B-32: could| cannot be read| holds| is no|: the weights)"
    ):
        load_clip(ModelConfig("ViT-B-32", str(path)))


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


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 200_000)])
def test_an_image_too_narrow_to_be_resized_is_named_and_takes_no_memory(tmp_path, clip, size):
    import resource

    from wisepatch.datasets.image_files import FileSamples
    from wisepatch.errors import DataError

    Image.new("RGB", size).save(tmp_path / "thin.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for transform in (clip.pixels, clip.transform):
        with pytest.raises(
            DataError, match=rf"thin\.png cannot be read: it is {size[0]} x {size[1]} pixels, too narrow"
        ):
            FileSamples([(tmp_path / "thin.png", 0)], transform)[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # in KB
    assert clip.pixels(Image.new("RGB", (10, 10_000))).shape == (3, 64, 64)


def test_transform_of_another_making_stays_whole():
    from dataclasses import replace

    from PIL import Image

    clip = replace(load_clip(ModelConfig("demo", "")), transform=lambda image: torch.ones(3, 8, 8))
    assert torch.equal(clip.normalise(clip.pixels(Image.new("RGB", (9, 9)))[None]), torch.ones(1, 3, 8, 8))


def test_loading_weights_draws_no_random_numbers_that_they_replace(clip):
    weights = clip.model.state_dict()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    loaded = load_clip(DEMO, weights)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.model.state_dict().items())
    assert loaded.model.logit_scale.data_ptr() != weights["logit_scale"].data_ptr()
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert torch.equal(loaded.model.attn_mask, clip.model.attn_mask)


@pytest.fixture
def small_default(tmp_path, monkeypatch):
    """A hub with random weights under the name of the default model's, of which the design is made small."""
    small = open_clip.get_model_config("ViT-B-32")
    small["vision_cfg"] |= {"layers": 1, "width": 64}
    small["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", small)
    torch.manual_seed(0)
    weights = open_clip.create_model("ViT-B-32").state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    with loopback_hub(monkeypatch, tmp_path / "cache") as hub:
        hub.repositories["timm/vit_base_patch32_clip_224.openai"] = {
            "open_clip_model.safetensors": tmp_path / "weights.safetensors"
        }
        yield hub, weights


def test_default_model_is_downloaded_from_the_hub_once(small_default, cli, shapes):
    hub, weights = small_default
    for words in ((), ("--model", "ViT-B-32", "--pretrained", "openai")):
        result = cli("zeroshot", *words, "--task", f"{shapes}@all", "--store", "store")
        assert result.exit_code == 0, result.output
    kept = Store("store").read(Store("store").find("zeroshot"))
    assert all(torch.equal(kept[name], tensor) for name, tensor in weights.items())
    assert sum(path.endswith("model.safetensors") for path in hub.asked) == 2 + 1  # a look and the file; then a look


@pytest.mark.parametrize(("status", "reason"), [(401, "401"), (404, "404"), (500, "500"), (0, "disconnected")])
def test_hub_that_does_not_give_the_weights_is_one_line_with_the_next_step(small_default, status, reason):
    hub, _ = small_default
    hub.trouble = ("/resolve/", status)
    with pytest.raises(ModelError) as caught:
        load_clip(ModelConfig())
    assert "openai weights of ViT-B-32: could not be fetched or read: " in caught.value.message
    assert "\n" not in caught.value.message
    assert "--pretrained FILE" in caught.value.hint
