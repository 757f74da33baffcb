"""CLIPModel of transformers: the same logits, or one line that says what it cannot hold."""

import copy
import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from PIL import Image

from tests.samples import fails
from tests.towers import SHAPES, save_shape
from wisepatch import ModelConfig, Store, export, load_clip
from wisepatch.errors import UsageError
from wisepatch.models.transformers_format import clip_config, clip_tensors

TEXTS = ["a photo of a cat.", "Don't   panic: 42 <ÉTÉ>", "dog"]
FRESH = """
import json, sys, torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel, CLIPProcessor
folder, photo, pixels, texts = sys.argv[1], Image.open(sys.argv[2]), torch.load(sys.argv[3]), json.loads(sys.argv[4])
model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
inputs = processor(text=texts, images=photo, return_tensors="pt", padding=True)
assert AutoTokenizer.from_pretrained(folder)(texts)["input_ids"][0] == inputs["input_ids"][0].tolist()[:8]
with torch.inference_mode():
    logits = model(**{**inputs, "pixel_values": pixels}).logits_per_image
difference = (inputs["pixel_values"] - pixels).abs().max().item()
assert not [name for name in sys.modules if name.startswith(("wisepatch", "open_clip"))]
print(json.dumps({"logits": logits.tolist(), "pixels": difference, "dtype": str(model.dtype)}))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("transformers") is None, reason="needs the package transformers")
@pytest.mark.parametrize("shape", ["vit-quickgelu", "vit"])
def test_exported_model_gives_the_same_logits_in_a_fresh_process_with_transformers_alone(tmp_path, shape):
    """Logits agree to 1e-5 in fp32 on the same pixels; those that its own processor makes to 0.02, as it resizes with torch."""
    store = Store(tmp_path / "store")
    checkpoint, weights = save_shape(store, tmp_path / "source", shape)
    clip = load_clip(ModelConfig.from_json(checkpoint.model), weights)
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((50, 40)).convert("RGB").save(photo)
    with torch.no_grad(), Image.open(photo) as image:
        pixels = clip.transform(image)[None]
        features = (
            clip.model.encode_image(pixels, normalize=True),
            clip.model.encode_text(clip.tokenizer(TEXTS), normalize=True),
        )
        expected = clip.model.logit_scale.exp() * features[0] @ features[1].T
    torch.save(pixels, tmp_path / "pixels.pt")
    export(store, checkpoint, tmp_path / "model", format="transformers")
    given = [str(tmp_path / name) for name in ("model", "photo.png", "pixels.pt")]
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *given, json.dumps(TEXTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert torch.allclose(torch.tensor(answer["logits"]), expected, atol=1e-5)
    assert answer["pixels"] < 0.02


@pytest.mark.parametrize("shape", ["vit-quickgelu", "vit"])
def test_every_tensor_has_its_place_and_the_folder_all_files(tmp_path, shape):
    store = Store(tmp_path / "store")
    checkpoint, weights = save_shape(store, tmp_path / "source", shape)
    export(store, checkpoint, tmp_path / "model", format="transformers")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {
        "README.md", "config.json", "merges.txt", "model.safetensors", "preprocessor_config.json", "special_tokens_map.json",
        "tokenizer_config.json", "vocab.json",
    }  # fmt: skip
    tensors = clip_tensors(weights)
    assert sum(tensor.numel() for tensor in tensors.values()) == sum(tensor.numel() for tensor in weights.values())
    text = "" if shape == "vit-quickgelu" else "text."
    q, k, v = weights[f"{text}transformer.resblocks.1.attn.in_proj_bias"].chunk(3)
    for letter, part in zip("qkv", (q, k, v), strict=True):
        assert torch.equal(tensors[f"text_model.encoder.layers.1.self_attn.{letter}_proj.bias"], part)
    assert torch.equal(tensors["visual_projection.weight"], weights["visual.proj"].T)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["vision_config"]["hidden_act"] == {"vit": "gelu", "vit-quickgelu": "quick_gelu"}[shape]
    assert config["text_config"]["hidden_act"] == {"vit": "gelu_pytorch_tanh", "vit-quickgelu": "quick_gelu"}[shape]
    processor = json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())
    squash = {
        "size": {"height": 32, "width": 32},
        "do_center_crop": False,
        "resample": 2,
        "image_mean": [0.5, 0.4, 0.3],
    }
    crop = {"size": {"shortest_edge": 32}, "do_center_crop": True, "resample": 3}
    assert processor.items() >= {"vit": squash, "vit-quickgelu": crop}[shape].items()


def changed(shape, part, **settings):
    model = copy.deepcopy(SHAPES[shape][0])
    (model[part] if part else model).update(settings)
    return {"model_cfg": model, "preprocess_cfg": {}}


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        (changed("resnet", ""), "its image tower is a ResNet"),
        (changed("siglip", ""), "its image tower is timm's test_vit"),
        (changed("coca", ""), "it is a CoCa"),
        (changed("vit", "text_cfg", hf_model_name="xlm-roberta-base"), "its text tower is xlm-roberta-base"),
        (changed("vit", "text_cfg", hf_tokenizer_name="bert-base"), "its tokenizer is bert-base, and not CLIP's"),
        (changed("vit", "vision_cfg", image_size=[32, 64]), "its images are not square, but 32 x 64"),
        (changed("vit", "vision_cfg", no_ln_pre=True), "its image tower has no_ln_pre True"),
        (changed("vit", "vision_cfg", ls_init_value=1e-5), "its image tower has ls_init_value 1e-05"),
        (changed("vit", "text_cfg", pool_type="last"), "its text tower has pool_type last"),
        (changed("vit", "text_cfg", norm_kwargs={"bias": False}), "its text tower has norm_kwargs {'bias': False}"),
        (changed("vit", "", init_logit_bias=-10), "it has init_logit_bias -10"),
        ({**changed("vit", ""), "preprocess_cfg": {"resize_mode": "longest"}}, "its images are padded to a square"),
    ],
)
def test_what_clip_model_cannot_hold_is_refused_by_name(description, reason):
    with pytest.raises(UsageError) as caught:
        clip_config(description, "mine")
    assert caught.value.message == f"mine cannot be a CLIPModel of transformers: {reason}" + (
        ", which also has a text decoder" if "CoCa" in reason else ""
    )
    assert "--format open_clip" in caught.value.hint


def test_refusal_leaves_nothing_behind(cli, run_store, tmp_path):
    fails(
        cli("export", "finetuned", "new/model", "--format", "transformers"),
        2,
        "its image tower is timm's test_efficientnet_gn",
    )
    assert not (tmp_path / "new").exists()
