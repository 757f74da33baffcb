"""Rename the tensors of transformers' CLIP to open_clip's, and merge LoRA adapters (PEFT) into them.

transformers keeps query, key and value of an attention apart and projections transposed; the numbers are the same. Renaming is
linear, so that what an adapter adds is renamed as weights are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from wisepatch.errors import ModelError

Tensors = Mapping[str, torch.Tensor]

VISION, TEXT = "vision_model.", "text_model."
SINGLE = {  # transformers' name: open_clip's
    f"{VISION}embeddings.class_embedding": "visual.class_embedding",
    f"{VISION}embeddings.patch_embedding.weight": "visual.conv1.weight",
    f"{VISION}embeddings.position_embedding.weight": "visual.positional_embedding",
    f"{VISION}pre_layrnorm.weight": "visual.ln_pre.weight",
    f"{VISION}pre_layrnorm.bias": "visual.ln_pre.bias",
    f"{VISION}post_layernorm.weight": "visual.ln_post.weight",
    f"{VISION}post_layernorm.bias": "visual.ln_post.bias",
    f"{TEXT}embeddings.token_embedding.weight": "token_embedding.weight",
    f"{TEXT}embeddings.position_embedding.weight": "positional_embedding",
    f"{TEXT}final_layer_norm.weight": "ln_final.weight",
    f"{TEXT}final_layer_norm.bias": "ln_final.bias",
    "logit_scale": "logit_scale",
}
TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
IN_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
LAYER = re.compile(r"(vision_model|text_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
PARTS = ("q_proj", "k_proj", "v_proj")  # as open_clip stacks them
SIGNS = (VISION, TEXT, "embeddings.class_embedding", "encoder.layers.0.")
# Defaults of transformers' settings, which its files may leave out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "vision": {"num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "text": {"num_attention_heads": 8, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}
TANH = ("gelu_pytorch_tanh", "gelu_new")
ACTIVATIONS = {"quick_gelu": "quickgelu", "gelu": "gelu", **dict.fromkeys(TANH, "gelu")}
MODEL_TYPES = ("clip", "clip_vision_model")
# Changes of LoRA that are no sum of two matrices' product.
OTHER_ADAPTERS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
)
# How LoRA may begin without changing the model that it adapts; PiSSA, OLoRA, LoftQ, CorDA and LoRA-GA take what they learn from it.
INITIALISATIONS = (None, True, False, "gaussian", "orthogonal", "eva")


def is_transformers(names: Mapping[str, Any]) -> bool:
    """Tell whether tensors have the names of transformers' CLIP."""
    return any(name.startswith(SIGNS) for name in names)


def to_open_clip(tensors: Tensors, *, partial: bool = False) -> dict[str, torch.Tensor]:
    """Rename the tensors of a ``CLIPModel``, ``CLIPVisionModel`` or ``CLIPVisionModelWithProjection``.

    With ``partial`` some of query, key and value may be missing and are zeros, as in what an adapter adds.
    Raises :class:`ModelError` for names that none of these has.
    """
    renamed: dict[str, torch.Tensor] = {}
    stacked: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        full = name if name.startswith((VISION, TEXT, *TRANSPOSED, *SINGLE)) else f"{VISION}{name}"
        if full in SINGLE:
            renamed[SINGLE[full]] = tensor
        elif full in TRANSPOSED:
            renamed[TRANSPOSED[full]] = tensor.T.contiguous()
        elif match := LAYER.fullmatch(full):
            tower, number, part, kind = match.groups()
            block = f"{'visual.' if tower == 'vision_model' else ''}transformer.resblocks.{number}"
            if part in IN_LAYER:
                renamed[f"{block}.{IN_LAYER[part]}.{kind}"] = tensor
            elif part.removeprefix("self_attn.") in PARTS:
                stacked.setdefault(f"{block}.attn.in_proj_{kind}", {})[part.removeprefix("self_attn.")] = tensor
            else:
                raise _unknown(name)
        else:
            raise _unknown(name)
    for name, parts in stacked.items():
        if len(parts) < len(PARTS) and not partial:
            raise ModelError(
                f"{name} lacks {', '.join(part for part in PARTS if part not in parts)}", "fetch the files again"
            )
        like = next(iter(parts.values()))
        renamed[name] = torch.cat([parts.get(part, torch.zeros_like(like)) for part in PARTS])
    return renamed


def _unknown(name: str) -> ModelError:
    return ModelError(
        f"{name} is no tensor of a CLIPModel or CLIPVisionModel", "other models of transformers are not known here"
    )


def settings(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return what transformers' ``config.json`` tells beyond shapes: ``activation``, and by tower ``heads`` and other settings.

    Raises :class:`ModelError` for another kind of model, and for settings that open_clip's CLIP has no place for.
    """
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        hint = "known are CLIPModel, CLIPVisionModel and CLIPVisionModelWithProjection"
        if str(kind).startswith("siglip"):
            hint = "open_clip has SigLIP's weights under its own names: --model ViT-B-16-SigLIP, or hf-hub:timm/ViT-B-16-SigLIP"
        raise ModelError(f"{source} is a model of the type {kind!r}", hint)
    classes = [str(name) for name in config.get("architectures") or ()]
    if any("Classification" in name for name in classes):
        raise ModelError(
            f"{source} is a {classes[0]}, whose head reads the mean of all tokens",
            "heads here read the model's own features",
        )
    towers = {"vision": config} if kind == "clip_vision_model" else {}
    if kind == "clip":
        towers = {tower: config.get(f"{tower}_config") or {} for tower in ("vision", "text")}
    found = {tower: DEFAULTS[tower] | dict(given) for tower, given in towers.items()}
    activations = {ACTIVATIONS.get(each["hidden_act"], "") for each in found.values()}
    if len(activations) > 1 or "" in activations:
        named = " and ".join(sorted({str(each["hidden_act"]) for each in found.values()}))
        raise ModelError(f"{source} has the activation {named}", "known are quick_gelu, gelu and gelu_pytorch_tanh")
    beyond = {tower: _beyond_openai(each) for tower, each in found.items()}
    return {
        "activation": activations.pop(),
        "heads": {("visual" if tower == "vision" else tower): int(each["num_attention_heads"]) for tower, each in found.items()},
        "towers": {tower: each for tower, each in beyond.items() if each},
    }  # fmt: skip


def _beyond_openai(tower: Mapping[str, Any]) -> dict[str, Any]:
    """Return open_clip's settings of a tower that is unlike OpenAI's in its norms or activation."""
    norm = {"norm_kwargs": {"eps": tower["layer_norm_eps"]}} if tower["layer_norm_eps"] != 1e-5 else {}
    return norm | ({"act_kwargs": {"approximate": "tanh"}} if tower["hidden_act"] in TANH else {})


def preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``preprocess_cfg`` of open_clip for transformers' ``preprocessor_config.json``."""
    size = config.get("size")
    squash = isinstance(size, dict) and "height" in size and not config.get("do_center_crop", True)
    return {
        "mean": [float(each) for each in config["image_mean"]],
        "std": [float(each) for each in config["image_std"]],
        "interpolation": {2: "bilinear", 3: "bicubic"}.get(config.get("resample", 3), "bicubic"),
        "resize_mode": "squash" if squash else "shortest",
    }


def adapter_deltas(
    config: Mapping[str, Any], tensors: Tensors, source: str
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return what a LoRA adapter adds to weights, ``scale * B A``, and the weights that it replaces, under open_clip's names.

    The scale is ``alpha / r``, or ``alpha / sqrt(r)`` with ``use_rslora`` (arXiv 2106.09685, 2312.03732). Raises
    :class:`ModelError` for adapters of other kinds.
    """
    other = [name for name in OTHER_ADAPTERS if config.get(name)]
    if (begun := config.get("init_lora_weights")) not in INITIALISATIONS:
        other.append(f"init_lora_weights {begun}")
    if (
        config.get("peft_type") != "LORA"
        or other
        or config.get("bias", "none") != "none"
        or config.get("fan_in_fan_out")
    ):
        kind = ", ".join(other) or f"{config.get('peft_type')}, bias {config.get('bias', 'none')}"
        raise ModelError(
            f"{source} is an adapter of another kind ({kind})", "plain LoRA is merged here; merge this one with PEFT"
        )
    added, replaced = {}, {}
    for name, tensor in tensors.items():
        module = name.removeprefix("base_model.model.")
        if match := re.fullmatch(r"(.+)\.lora_(?:embedding_)?A(?:\.weight)?", module):
            module = match[1]
            embedding = "lora_embedding_" in name
            second = tensors.get(
                name.replace("lora_embedding_A", "lora_embedding_B") if embedding else name.replace("lora_A", "lora_B")
            )
            if second is None:
                raise ModelError(f"{source} holds {name} without its B", "fetch the files again")
            rank = tensor.shape[0]
            alpha = _of_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
            scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
            delta = (second.float().flatten(1) @ tensor.float().flatten(1)) * scale
            added[f"{module}.weight"] = delta.T if embedding else delta.reshape(len(second), *tensor.shape[1:])
        elif re.search(r"\.lora_(?:embedding_)?B(?:\.weight)?$", module):
            continue
        elif ".lora_" in module:
            raise ModelError(
                f"{source} is an adapter of another kind ({name})",
                "plain LoRA is merged here; merge this one with PEFT",
            )
        else:
            replaced[module] = tensor
    return to_open_clip(added, partial=True), to_open_clip(replaced)


def _of_pattern(patterns: Any, module: str, default: Any) -> float:
    """Return the value of the name that a module's name ends with. PEFT takes regular expressions too, which are refused here."""
    for name, value in (patterns or {}).items():
        if not re.fullmatch(r"[\w.]+", name):
            raise ModelError(f"the adapter's alpha_pattern {name!r} is no name of a module", "merge this one with PEFT")
        if f".{module}".endswith(f".{name}"):
            return float(value)
    return float(default)
