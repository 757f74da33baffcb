"""Layers by depth: which block of its tower a tensor belongs to, and a scale for each layer or group of them.

Blocks are what a tower numbers, such as ``visual.transformer.resblocks.0`` or ``visual.trunk.stages.1`` (where stages hold blocks,
each block by itself). A scale for layers multiplies what a merge adds to the start: ``params["layers"]`` of a recipe maps
beginnings of tensors' names to scales, the longest that fits counts, and 1 where none does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from wisepatch.alphas import parse_numbers
from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.weights.parameters import LAYERS

# The names by which open_clip, timm and transformers number the blocks of towers; a stage may hold blocks.
BLOCK = re.compile(
    r"(?:^|\.)(?:resblocks|blocks|layers|stages|layer[1-4])\.\d+(?:\.(?:(?:blocks|layers)\.)?\d+)?(?=\.)"
)
VISUAL = "visual."
SCALED = ("alpha", "alphas")  # of methods that mix parents themselves


def block_of(name: str) -> str:
    """Return the beginning of a tensor's name that names its block; empty for one outside of blocks."""
    match = BLOCK.search(name)
    return name[: match.end()] if match else ""


def depths(names: Iterable[str]) -> dict[str, float]:
    """Return by block how deep it lies in its tower, from 0 (the first) to 1 (the last); towers are ``visual`` and the rest."""
    found: dict[str, dict[str, None]] = {}
    for name in names:
        if block := block_of(name):
            found.setdefault("visual" if name.startswith(VISUAL) else "text", {})[block] = None
    return {
        block: index / max(len(blocks) - 1, 1)
        for blocks in found.values()
        for index, block in enumerate(sorted(blocks, key=_natural))
    }


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def read_layers(words: Collection[str], names: Collection[str]) -> dict[str, float]:
    """Read scales of layers: ``0.2:1`` from the first block to the last, or ``NAME=SCALE``, where NAME begins names of tensors.

    Tensors outside of blocks have the scale of the first, as in LiNeS. ``names`` are the tensors of the model. Raises
    :class:`UsageError` for what is not understood, :class:`UnknownNameError` for a name that no tensor begins with.
    """
    layers: dict[str, float] = {}
    for word in (part.strip() for joined in words for part in joined.split(",")):
        name, equals, value = word.rpartition("=")
        if not equals:
            layers |= gradient(word, names)
            continue
        (scale,) = _numbers(value, word, 1)
        if not any(begins(each, name) for each in names):
            raise UnknownNameError("layer", name, _layer_names(names), "name the beginning of tensors' names")
        layers[name] = scale
    return layers


def _numbers(text: str, word: str, count: int) -> tuple[float, ...]:
    hint = "write 0.2:1 from the first block to the last, or NAME=SCALE by comma"
    try:
        numbers = parse_numbers(text.split(":"), "layers", in_order=True)
    except UsageError as error:
        raise UsageError(f"--layers {word[:60]!r} is not understood", hint) from error
    if len(numbers) != count:
        raise UsageError(f"--layers {word[:60]!r} is not understood", hint)
    return numbers


def gradient(word: str, names: Collection[str]) -> dict[str, float]:
    """Return a scale for each block, from the first number of ``0.2:1`` to the second, and the first for what is in no block."""
    first, last = _numbers(word, word, 2)
    scales = {block: first + (last - first) * depth for block, depth in depths(names).items()}
    if not scales:
        raise UsageError(f"--layers {word} needs blocks that are numbered, and this model has none", "name layers")
    return {"": first, **scales}


def _layer_names(names: Collection[str]) -> list[str]:
    blocks = sorted({block for name in names if (block := block_of(name))}, key=_natural)
    return [*blocks, *sorted({name.rpartition(".")[0] for name in names if not block_of(name)} - {""})]


def begins(name: str, layer: str) -> bool:
    """Tell whether ``layer`` is the beginning of a tensor's name, in whole words: ``blocks.1`` is not that of ``blocks.10.w``."""
    return not layer or name == layer or name.startswith(f"{layer}.")


def scale_of(layers: Mapping[str, float], name: str) -> float:
    """Return the scale of a tensor: that of the longest layer that its name begins with, 1 where there is none."""
    fitting = [layer for layer in layers if begins(name, layer)]
    return layers[max(fitting, key=len)] if fitting else 1.0


def with_layer(params: Mapping[str, Any], name: str, *, of_vectors: bool) -> Mapping[str, Any]:
    """Return the parameters for one tensor: what scales the way from the start is multiplied by the scale of its layer."""
    layers = params.get(LAYERS)
    if not layers:
        return params
    scale = scale_of(layers, name)
    if of_vectors:
        return {**params, "scale": params.get("scale", 1) * scale}
    scaled = {
        key: [each * scale for each in params[key]] if key == "alphas" else params[key] * scale
        for key in SCALED
        if key in params
    }
    return {**params, **scaled}
