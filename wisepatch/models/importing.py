"""Recognise a model from elsewhere by the names and shapes of its tensors, and fit it to open_clip."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from wisepatch.config import ModelConfig
from wisepatch.errors import ModelError, UsageError
from wisepatch.models import transformers_names
from wisepatch.models.sources import Source
from wisepatch.weights.state_dicts import QUICK_GELU, FoundWeights

Tensors = Mapping[str, torch.Tensor]

ACTIVATIONS = (QUICK_GELU, "gelu")
TEXT_LAYER = re.compile(r"(?:text\.)?(?:transformer|encoder)\..+")
VISION = ("image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio")
TEXT = ("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio")
HEAD_WIDTH = 64  # of OpenAI's models, and where nothing says otherwise
# Of CoCa, of timm's towers, of towers with layer scale: shapes do not tell the rest of their settings.
OTHER_PARTS = re.compile(r"visual\.attn_pool|visual\.trunk\.|text_decoder\.|.+\.ls_[12]\.")
NAME_IT = "name its architecture as open_clip does: --model NAME"


def has_text_tower(tensors: Tensors) -> bool:
    """Tell whether there is a text tower with its layers: in PAINT's files the layers are gone, and the rest lies there."""
    return any(TEXT_LAYER.fullmatch(name) for name in tensors)


def is_whole(tensors: Tensors) -> bool:
    """Tell whether a model lacks neither its text tower nor the projection of its image tower."""
    return has_text_tower(tensors) and ("visual.class_embedding" not in tensors or "visual.proj" in tensors)


def completed(source: Source, given: Tensors, giver: str, notes: list[str]) -> dict[str, torch.Tensor]:
    """Return the weights of a source without its head, with the text tower and projection of ``giver`` where its own are gone.

    An adapter is merged into the giver's weights. Without a giver what is left of a text tower is left out. Raises
    :class:`ModelError` where the two are of different architectures; ``notes`` is told of a text tower that is another one.
    """
    if source.is_adapter:
        return _adapted(source, given, giver)
    own = dict(source.found.model)
    if not has_text_tower(own):
        text = {name: tensor for name, tensor in given.items() if not name.startswith("visual.")}
        left = [name for name in own if name in text and name != "logit_scale" and own[name].shape == text[name].shape]
        if any(not torch.allclose(own[name].float(), text[name].float(), atol=1e-2) for name in left):
            notes.append(f"what is left of the text tower in {source.label} is not that of {giver}")
        own = image_tower(own) | text
    if "visual.proj" in given:
        own.setdefault("visual.proj", given["visual.proj"])
    own_text = any(not name.startswith("visual.") for name in own)
    for name in {**own, **given} if given else ():
        shapes = [tuple(each[name].shape) if name in each else None for each in (own, given)]
        if shapes[0] != shapes[1] and (name.startswith("visual.") or has_text_tower(given) == own_text):
            here, there = ("missing" if shape is None else str(list(shape)) for shape in shapes)
            raise ModelError(
                f"{source.label} is of another architecture than {giver}: {name} is {here} here and {there} there",
                "name the checkpoint that it was fine-tuned from",
            )
    return own


def _adapted(source: Source, given: Tensors, giver: str) -> dict[str, torch.Tensor]:
    weights = {**given, **{name: tensor for name, tensor in source.replaced.items() if name in given}}
    for name, tensor in {**source.replaced, **source.added}.items():
        if name not in given or given[name].shape != tensor.shape:
            raise ModelError(
                f"{source.label} adapts {name} {list(tensor.shape)}, which {giver} has not",
                "name the model that it adapts",
            )
    return weights | {
        name: (weights[name].float() + delta).to(weights[name].dtype) for name, delta in source.added.items()
    }


def image_tower(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Return the tensors of the image tower, under their names in the model."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith("visual.")}


def fitting(model: Any, found: FoundWeights, source: str) -> dict[str, torch.Tensor]:
    """Give the weights of a file the names and shapes that open_clip's ``model`` has, as its own loader does.

    Raises :class:`ModelError` where the file says that it has another activation, or holds no text tower.
    """
    import open_clip

    check_activation(model, found, source)
    tensors = found.model
    if transformers_names.is_transformers(tensors):
        tensors = transformers_names.to_open_clip(tensors)
    tensors = dict(open_clip.convert.convert_state_dict(model, tensors))
    if image_tower(tensors) and not has_text_tower(tensors):
        hint = "`wisepatch import` gives it that of another checkpoint: --parent CHECKPOINT"
        raise ModelError(f"{source} holds no whole text tower", hint)
    if "positional_embedding" in tensors and not hasattr(model, "positional_embedding"):
        tensors = open_clip.model.convert_to_custom_text_state_dict(tensors)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name, None)
        if own is not None:
            tensors[name] = tensors[name].reshape(own.shape) if name in tensors else torch.zeros_like(own)
    open_clip.model.resize_pos_embed(tensors, model)
    open_clip.model.resize_text_pos_embed(tensors, model)
    return tensors


def check_activation(model: Any, found: FoundWeights, source: str) -> None:
    """Raise :class:`ModelError` where a file tells of another activation than ``model`` computes with."""
    from open_clip.transformer import QuickGELU

    told = found.activation or (QUICK_GELU if found.is_openai else "")  # all of OpenAI's have it
    own = QUICK_GELU if any(isinstance(module, QuickGELU) for module in model.modules()) else "gelu"
    if told not in ("", own):
        names = (
            "open_clip's names that end in -quickgelu have it" if own == "gelu" else "name a model without -quickgelu"
        )
        raise ModelError(f"{source} was trained with {told}, and the model that is named computes {own}", names)


def recognise(
    found: FoundWeights, source: str, activation: str = "", beyond: Mapping[str, Any] | None = None
) -> ModelConfig:
    """Infer the model that weights are of: open_clip's name for it where there is one, or its settings.

    ``beyond`` holds what is unlike OpenAI's models: ``preprocess_cfg``, and settings by tower (``towers``). ``activation`` is what
    a user says: weights do not tell it, the classes of a whole module do. Raises :class:`UsageError` that asks for it,
    :class:`ModelError` for an architecture that cannot be told from shapes.
    """
    if "visual.class_embedding" in found.tensors and "visual.proj" not in found.tensors:
        raise ModelError(
            f"{source} is an image tower without its projection to features",
            "--parent CHECKPOINT or --model NAME gives it",
        )
    model_cfg = _infer(found)
    if model_cfg is None:
        some = ", ".join(list(found.tensors)[:3])
        raise ModelError(f"{source} is of no architecture that can be told from its tensors (such as {some})", NAME_IT)
    beyond = dict(beyond or {})
    for tower, settings in beyond.get("towers", {}).items():
        model_cfg[f"{tower}_cfg"] |= settings
    names = [] if beyond.get("towers") else _named(model_cfg)
    if not activation and not found.activation:
        known = f", whose shapes are those of {' and '.join(names)}," if names else ""
        raise UsageError(
            f"{source}{known} does not say whether it was trained with QuickGELU or GELU: nothing in weights tells",
            f"say --activation {QUICK_GELU} (OpenAI's models, and what was fine-tuned from them) or --activation gelu",
        )
    if activation and found.activation and activation != found.activation:
        raise UsageError(
            f"{source} has {found.activation}, and --activation says {activation}", "leave --activation out"
        )
    quick = (activation or found.activation) == QUICK_GELU
    import open_clip

    fitting_names = [name for name in names if bool(open_clip.get_model_config(name).get("quick_gelu")) == quick]
    if len(fitting_names) == 1 and not beyond:
        return ModelConfig(fitting_names[0], "")
    model_cfg["text_cfg"]["layers"] = model_cfg["text_cfg"]["layers"] or 1  # of a tower that is gone
    model_cfg |= {"quick_gelu": True} if quick else {}
    description = {"model_cfg": model_cfg, "preprocess_cfg": beyond.get("preprocess_cfg", {})}
    return ModelConfig(fitting_names[0] if fitting_names else _label(model_cfg), "", json.dumps(description))


def _infer(found: FoundWeights) -> dict[str, Any] | None:
    """Return ``model_cfg`` as shapes and a module's attention heads tell it; ``None`` for what is no CLIP of OpenAI's kind."""
    tensors = found.tensors
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if any(OTHER_PARTS.match(name) for name in shapes):
        return None
    custom = "text." if any(name.startswith("text.") for name in shapes) else ""
    try:
        if "visual.conv1.weight" in shapes and "visual.class_embedding" in shapes:
            vision, embed_dim = _vision_transformer(shapes), shapes["visual.proj"][1]
        else:
            vision, embed_dim = _resnet(shapes), shapes["visual.attnpool.c_proj.weight"][0]
        if heads := found.heads.get("visual"):
            width = vision["width"] if "patch_size" in vision else vision["width"] * 32
            if width // heads != HEAD_WIDTH:
                vision["head_width"] = width // heads
    except (KeyError, IndexError, ZeroDivisionError):
        return None
    width = shapes.get(f"{custom}ln_final.weight", (512,))[0]
    layers = _layers(shapes, f"{custom}transformer.resblocks.")
    text: dict[str, Any] = {
        "context_length": shapes.get(f"{custom}positional_embedding", (77,))[0],
        "vocab_size": shapes.get(f"{custom}token_embedding.weight", (49408,))[0],
        "width": width, "heads": found.heads.get("text") or max(width // HEAD_WIDTH, 1), "layers": max(layers, 1),
    }  # fmt: skip
    hidden = shapes.get(f"{custom}transformer.resblocks.0.mlp.c_fc.weight", (4 * width,))[0]
    if hidden != 4 * width:
        text["mlp_ratio"] = _ratio(hidden, width)
    if not layers:
        text["layers"] = None  # unknown: no name is excluded by it
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text} | ({"custom_text": True} if custom else {})


def _layers(shapes: Mapping[str, Any], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)})


def _vision_transformer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width, patch = shapes["visual.conv1.weight"][0], shapes["visual.conv1.weight"][-1]
    grid = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
    if grid**2 + 1 != shapes["visual.positional_embedding"][0]:
        raise KeyError("an image that is no square")
    settings: dict[str, Any] = {
        "image_size": grid * patch, "layers": _layers(shapes, "visual.transformer.resblocks."), "width": width, "patch_size": patch,
    }  # fmt: skip
    hidden = shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0]
    return settings | ({"mlp_ratio": _ratio(hidden, width)} if hidden != 4 * width else {})


def _ratio(hidden: int, width: int) -> float:
    return (hidden + 0.5) / width  # open_clip multiplies again and drops the fraction


def _resnet(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    layers = [_layers(shapes, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
    grid = round((shapes["visual.attnpool.positional_embedding"][0] - 1) ** 0.5)
    if not all(layers):
        raise KeyError("a stage without layers")
    return {"image_size": grid * 32, "layers": layers, "width": shapes["visual.layer1.0.conv1.weight"][0]}


def _named(model_cfg: Mapping[str, Any]) -> list[str]:
    """Return open_clip's names for exactly these settings; text layers that are unknown exclude none."""
    import open_clip

    def key(config: Mapping[str, Any], *, text: bool) -> Any:
        vision = asdict(open_clip.CLIPVisionCfg(**config["vision_cfg"]))
        words = asdict(open_clip.CLIPTextCfg(**{k: v for k, v in config["text_cfg"].items() if v is not None}))
        layers = vision["layers"]
        vision |= {"layers": tuple(layers), "patch_size": None} if isinstance(layers, list | tuple) else {}
        for tower in (vision, words):
            tower["mlp_ratio"] = int(tower["width"] * tower["mlp_ratio"])
        # Attention heads cannot be seen in weights: names say them.
        left = [vision[name] for name in VISION if name != "head_width"]
        right = [words[name] for name in TEXT if name != "heads"] if text else []
        heads = "head_width" in model_cfg["vision_cfg"] and vision["head_width"]
        return config["embed_dim"], left, right, heads

    whole = model_cfg["text_cfg"]["layers"] is not None
    names = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        plain = set(config) <= {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"} | (
            {"custom_text"} & set(model_cfg)
        )
        plain = plain and set(config["vision_cfg"]) <= set(VISION) and set(config["text_cfg"]) <= set(TEXT)
        if plain and key(config, text=whole) == key(model_cfg, text=whole):
            names.append(name)
    return names


def _label(model_cfg: Mapping[str, Any]) -> str:
    vision = model_cfg["vision_cfg"]
    if "patch_size" in vision:
        return f"ViT-{vision['width']}x{vision['layers']}-{vision['patch_size']}-{vision['image_size']}"
    return f"RN-{sum(vision['layers']) * 3 + 2}x{vision['width']}-{vision['image_size']}"
