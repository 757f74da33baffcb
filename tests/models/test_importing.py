"""Recognition: architecture by shapes, names of open_clip's, activation by word or class; one reader for --pretrained too."""

import json

import open_clip
import pytest
import torch

from tests.tiny_clips import TEXT, VISION, tiny_clip, tiny_weights
from wisepatch.config import ModelConfig
from wisepatch.errors import ModelError, UsageError
from wisepatch.models.clip import load_clip
from wisepatch.models.importing import recognise
from wisepatch.weights.state_dicts import FoundWeights


def shapes_of(name):
    """Weights of a model of open_clip's without numbers."""
    with torch.device("meta"):
        model = open_clip.model.CLIP(
            **{k: v for k, v in open_clip.get_model_config(name).items() if k != "custom_text"}
        )
    return FoundWeights({k: v for k, v in model.state_dict().items() if k != "attn_mask"})


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "ViT-B-16", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14", "RN50", "RN50x4", "RN101"]
)
def test_models_of_open_clip_are_recognised_by_their_shapes(name):
    found = shapes_of(name)
    assert recognise(found, "w.pt", "gelu") == ModelConfig(name, "")
    quick = recognise(found, "w.pt", "quickgelu")
    expected = f"{name}-quickgelu" if f"{name}-quickgelu" in open_clip.list_models() else name
    assert quick.model == expected
    # Without its text tower, as the papers' files are.
    found.tensors = {k: v for k, v in found.tensors.items() if k.startswith("visual.")}
    assert recognise(found, "w.pt", "gelu").model == name


def test_activation_is_asked_for_with_the_two_answers_and_never_guessed():
    with pytest.raises(
        UsageError, match=r"w\.pt, whose shapes are those of ViT-B-32 and ViT-B-32-quickgelu, does not say"
    ) as caught:
        recognise(shapes_of("ViT-B-32"), "w.pt")
    assert "--activation quickgelu" in caught.value.hint
    assert "--activation gelu" in caught.value.hint
    told = FoundWeights(shapes_of("ViT-B-32").tensors, "quickgelu")
    assert recognise(told, "w.pt").model == "ViT-B-32-quickgelu"
    with pytest.raises(UsageError, match=r"w\.pt has quickgelu, and --activation says gelu"):
        recognise(told, "w.pt", "gelu")


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("quick", [False, True])
def test_model_without_a_name_travels_with_its_settings(kind, quick):
    model = tiny_clip(kind, quick_gelu=quick)
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != "attn_mask"}
    config = recognise(FoundWeights(weights), "w.pt", "quickgelu" if quick else "gelu")
    settings = json.loads(config.settings)["model_cfg"]
    assert settings["vision_cfg"].items() >= {k: v for k, v in VISION[kind].items() if k != "head_width"}.items()
    assert settings["text_cfg"] == TEXT
    again = ModelConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    image = torch.randn(2, 3, settings["vision_cfg"]["image_size"], settings["vision_cfg"]["image_size"])
    tokens = open_clip.tokenize(["a dog", "a cat"])
    with torch.no_grad():
        loaded = load_clip(again, weights).model
        assert torch.equal(loaded.encode_image(image), model.encode_image(image))
        assert torch.equal(loaded.encode_text(tokens), model.encode_text(tokens))


def test_attention_heads_that_a_module_tells_are_kept():
    config = recognise(FoundWeights(tiny_weights(), "gelu", {"visual": 4, "text": 2}), "w.pt")
    settings = json.loads(config.settings)["model_cfg"]
    assert (settings["vision_cfg"]["head_width"], settings["text_cfg"]["heads"]) == (16, 2)


@pytest.mark.parametrize(
    "part", ["text_decoder.x", "visual.attn_pool.query", "visual.transformer.resblocks.0.ls_1.gamma"]
)
def test_parts_whose_settings_shapes_do_not_tell_are_asked_about(part):
    with pytest.raises(ModelError, match="is of no architecture that can be told"):
        recognise(FoundWeights({**tiny_weights(), part: torch.ones(1)}, "gelu"), "coca.pt")


def test_another_architecture_is_asked_for():
    with pytest.raises(
        ModelError, match=r"w\.pt is of no architecture that can be told from its tensors \(such as visual\.trunk\.w"
    ) as caught:
        recognise(FoundWeights({"visual.trunk.w": torch.ones(1)}), "w.pt")
    assert "--model NAME" in caught.value.hint


@pytest.fixture
def named(monkeypatch):
    """A tiny model under a name of open_clip's, and one with QuickGELU."""
    config = {"embed_dim": 16, "vision_cfg": VISION["vit"], "text_cfg": TEXT}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", config)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", config | {"quick_gelu": True})


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda w: {"epoch": 1, "state_dict": {f"module.{k}": v for k, v in w.items()}, "best": __import__("numpy").float64(1)},
        lambda w: {f"_orig_mod.module.{k}": v for k, v in w.items()},
        lambda w: {f"image_encoder.model.{k}": v for k, v in w.items()},
        lambda w: w | {"input_resolution": torch.tensor(16), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)},
        lambda w: {k: v.half() for k, v in w.items()},
    ],
    ids=["training", "compiled", "PAINT", "OpenAI", "half"],
)  # fmt: skip
def test_pretrained_file_is_read_as_import_reads_it(tmp_path, named, wrapped):
    weights = tiny_weights()
    torch.save(wrapped(weights), tmp_path / "w.pt")
    if "vocab_size" in (content := torch.load(tmp_path / "w.pt", weights_only=False)):
        with pytest.raises(ModelError, match=r"w\.pt was trained with quickgelu, and the model that is named"):
            load_clip(ModelConfig("ViT-B-32", str(tmp_path / "w.pt")))
    name = "ViT-B-32-quickgelu" if "vocab_size" in content else "ViT-B-32"
    model = load_clip(ModelConfig(name, str(tmp_path / "w.pt"))).model
    assert torch.allclose(model.visual.proj, weights["visual.proj"], atol=1e-3)


def test_pretrained_file_without_text_or_of_another_activation_is_refused(tmp_path, named):
    model = tiny_clip(quick_gelu=True)
    torch.save(model, tmp_path / "whole.pt")
    with pytest.raises(
        ModelError, match="was trained with quickgelu, and the model that is named computes gelu"
    ) as caught:
        load_clip(ModelConfig("ViT-B-32", str(tmp_path / "whole.pt")))
    assert "-quickgelu" in caught.value.hint
    assert torch.equal(
        load_clip(ModelConfig("ViT-B-32-quickgelu", str(tmp_path / "whole.pt"))).model.visual.proj, model.visual.proj
    )
    torch.save({k: v for k, v in model.state_dict().items() if k.startswith("visual.")}, tmp_path / "tower.pt")
    with pytest.raises(ModelError, match=r"tower\.pt holds no whole text tower") as caught:
        load_clip(ModelConfig("ViT-B-32", str(tmp_path / "tower.pt")))
    assert "wisepatch import" in caught.value.hint


def test_file_of_a_family_is_prepared_for_as_its_published_weights(monkeypatch):
    from wisepatch.models.clip import describe

    assert describe(ModelConfig("ViT-B-16-SigLIP", "file.safetensors"))["preprocess_cfg"] == {
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "resize_mode": "squash",
    }  # fmt: skip
    assert describe(ModelConfig("ViT-B-32", ""))["preprocess_cfg"]["resize_mode"] == "shortest"
