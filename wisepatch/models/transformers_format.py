"""open_clip's CLIP as transformers' ``CLIPModel``: settings, names of tensors, tokenizer and image processor.

Neither package computes anything here; files are written as transformers reads them (tried with 4.57 and 5.24), without it
being installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import UsageError
from wisepatch.files import write_durably

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LAYER = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)")
START, END = "<|startoftext|>", "<|endoftext|>"  # as transformers spells them
# Settings that CLIPModel has too, or that change nothing in evaluation or by themselves.
HELD_BY_MODEL = frozenset(
    {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale", "output_dict"}
)
HELD_BY_TOWER = frozenset({"layers", "width", "mlp_ratio", "norm_kwargs", "act_kwargs"})
HELD_BY_VISION = HELD_BY_TOWER | {
    "head_width", "patch_size", "image_size", "patch_dropout", "attn_pooler_queries", "attn_pooler_heads",
}  # fmt: skip
HELD_BY_TEXT = HELD_BY_TOWER | {"heads", "context_length", "vocab_size", "pad_id", "eos_id"}


def clip_config(description: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the ``config.json`` of the model ``name``, which ``description`` describes as ``open_clip_config.json`` does.

    Raises :class:`UsageError` that names what ``CLIPModel`` cannot hold.
    """
    model = description["model_cfg"]
    problem = next(_not_held(model, description["preprocess_cfg"]), None)
    if problem:
        hint = "give --format open_clip, which holds every model, or classifier"
        raise UsageError(f"{name} cannot be a CLIPModel of transformers: {problem}", hint)
    vision, text = _filled(model)
    vision_act, text_act = (_activation(model, each) for each in (vision, text))
    size = vision["image_size"]
    return {
        "architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": model["embed_dim"], "dtype": "float32",
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": vision["width"], "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision["head_width"], "hidden_act": vision_act,
            "intermediate_size": int(vision["width"] * vision["mlp_ratio"]), "patch_size": vision["patch_size"],
            "image_size": size if isinstance(size, int) else size[0], "projection_dim": model["embed_dim"],
            "layer_norm_eps": (vision["norm_kwargs"] or {}).get("eps", 1e-5),
        },
        "text_config": {
            "model_type": "clip_text_model", "hidden_size": text["width"], "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"], "hidden_act": text_act,
            "intermediate_size": int(text["width"] * text["mlp_ratio"]), "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"], "projection_dim": model["embed_dim"],
            "layer_norm_eps": (text["norm_kwargs"] or {}).get("eps", 1e-5),
            "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
        },
    }  # fmt: skip


def _filled(model: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the image and the text tower with open_clip's defaults."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    return asdict(CLIPVisionCfg()) | model["vision_cfg"], asdict(CLIPTextCfg()) | model["text_cfg"]


def _not_held(model: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> Iterator[str]:
    """Yield what ``CLIPModel`` and its image processor cannot hold, in words."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    vision, text = _filled(model)
    if "multimodal_cfg" in model:
        yield "it is a CoCa, which also has a text decoder"
    if vision["timm_model_name"]:
        yield f"its image tower is timm's {vision['timm_model_name']}"
    if isinstance(vision["layers"], list | tuple):
        yield "its image tower is a ResNet"
    if text["hf_model_name"]:
        yield f"its text tower is {text['hf_model_name']}"
    if text["hf_tokenizer_name"]:
        yield f"its tokenizer is {text['hf_tokenizer_name']}, and not CLIP's"
    size = vision["image_size"]
    if not isinstance(size, int) and len(set(size)) > 1:
        yield f"its images are not square, but {size[0]} x {size[1]}"
    if preprocessing.get("resize_mode") == "longest":
        yield "its images are padded to a square"
    towers = (
        ("image tower", vision, asdict(CLIPVisionCfg()), HELD_BY_VISION), ("text tower", text, asdict(CLIPTextCfg()), HELD_BY_TEXT),
    )  # fmt: skip
    for part, settings, defaults, held in towers:
        for name, value in settings.items():
            if name not in held and value != defaults.get(name) and value not in (None, False):
                yield f"its {part} has {name} {value}"
        for name, known in (("norm_kwargs", {"eps"}), ("act_kwargs", {"approximate"})):
            if set(settings[name] or {}) - known:
                yield f"its {part} has {name} {settings[name]}"
    for name, value in model.items():
        if name not in HELD_BY_MODEL and value not in (None, False):
            yield f"it has {name} {value}"


def _activation(model: Mapping[str, Any], tower: Mapping[str, Any]) -> str:
    if model.get("quick_gelu"):
        return "quick_gelu"
    return "gelu_pytorch_tanh" if (tower["act_kwargs"] or {}).get("approximate") == "tanh" else "gelu"


def clip_tensors(weights: Tensors) -> dict[str, torch.Tensor]:
    """Return the tensors of open_clip's CLIP under the names, and in the shapes, that ``CLIPModel`` has.

    Raises :class:`UsageError` for a tensor that it has no place for.
    """
    from wisepatch.models.transformers_names import IN_LAYER, PARTS, SINGLE, TRANSPOSED

    theirs = {ours: name for name, ours in (*SINGLE.items(), *TRANSPOSED.items())}
    in_layer = {ours: name for name, ours in IN_LAYER.items()}
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        short = name.removeprefix("text.")  # of towers that open_clip builds apart
        layer = LAYER.fullmatch(short)
        if short in theirs:
            tensor = tensor.T if short in TRANSPOSED.values() else tensor
            tensors[theirs[short]] = tensor.reshape(()) if short == "logit_scale" else tensor
        elif layer and layer[3] == "attn.in_proj":  # queries, keys and values at once
            for each, part in zip(PARTS, tensor.chunk(3), strict=True):
                tensors[f"{_tower(layer)}.self_attn.{each}.{layer[4]}"] = part
        elif layer and layer[3] in in_layer:
            tensors[f"{_tower(layer)}.{in_layer[layer[3]]}.{layer[4]}"] = tensor
        else:
            raise UsageError(f"CLIPModel of transformers has no place for the tensor {name}", "give --format open_clip")
    return tensors


def _tower(layer: re.Match[str]) -> str:
    return f"{'vision' if layer[1] else 'text'}_model.encoder.layers.{layer[2]}"


def write_settings(folder: Path, config: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> None:
    """Write the settings of model, image processor and tokenizer; ``preprocessing`` is open_clip's, also a part of it."""
    from open_clip.transform import PreprocessCfg

    preprocessing = asdict(PreprocessCfg()) | dict(preprocessing)
    size, context = config["vision_config"]["image_size"], config["text_config"]["max_position_embeddings"]
    squash = preprocessing["resize_mode"] == "squash"
    square = {"height": size, "width": size}
    processor = {
        "image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor", "do_convert_rgb": True,
        "do_resize": True, "size": square if squash else {"shortest_edge": size},
        "resample": 2 if preprocessing["interpolation"] == "bilinear" else 3,  # Pillow's numbers
        "do_center_crop": not squash, "crop_size": square, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": list(preprocessing["mean"]), "image_std": list(preprocessing["std"]),
    }  # fmt: skip
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    tokenizer = {
        **marks, "tokenizer_class": "CLIPTokenizer", "processor_class": "CLIPProcessor", "model_max_length": context,
        "do_lower_case": True, "errors": "replace",
    }  # fmt: skip
    vocabulary, merges = _vocabulary()
    for name, content in (
        (CONFIG, config), ("preprocessor_config.json", processor), ("tokenizer_config.json", tokenizer),
        ("special_tokens_map.json", marks), ("vocab.json", vocabulary),
    ):  # fmt: skip
        text = json.dumps(content, indent=None if content is vocabulary else 2, ensure_ascii=content is not vocabulary)
        write_durably(folder / name, text.encode() + b"\n")
    write_durably(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]).encode())


def _vocabulary() -> tuple[dict[str, int], list[str]]:
    """Return open_clip's vocabulary, which is OpenAI's, with the marks as transformers spells them, and its merges in order."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    start, end = tokenizer.all_special_ids[:2]
    vocabulary = {{start: START, end: END}.get(number, word): number for word, number in tokenizer.encoder.items()}
    return vocabulary, [" ".join(pair) for pair in sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)]
