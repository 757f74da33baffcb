"""Measure how far weights moved: norms, distances and cosines between two files of weights, tensor by tensor, in blocks.

PAINT (section 5) looks at the angle between zero-shot and fine-tuned weights to tell why large models are easily patched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wisepatch.weights.methods import check_same
from wisepatch.weights.streaming import read_weights

ELEMENTS_AT_ONCE = 1 << 22  # 32 MB as float64
NUMBER = re.compile(r"\d+")
PARAMETERS = ("weight", "bias", "running_mean", "running_var", "gamma", "beta")  # end names of tensors, not of blocks
# Before the blocks of a tower, and behind them, in the order in which they come.
EARLY = (
    "token_embedding", "conv_stem", "conv1", "patch_embed", "class_embedding", "positional_embedding", "pos_embed", "bn1", "ln_pre",
)  # fmt: skip
LATE = (
    "conv_head", "bn2", "ln_post", "norm", "fc_norm", "attn_pool", "attnpool", "head", "proj", "ln_final", "text_projection",
    "logit_scale", "logit_bias",
)  # fmt: skip


@dataclass(frozen=True)
class Movement:
    """Hold what is summed over the elements of tensors of one name, ``before`` and ``after`` fine-tuning.

    Sums of squares of both, their inner product, the sum of squares of the difference, and the number of elements.
    """

    name: str
    elements: int = 0
    before: float = 0.0
    after: float = 0.0
    inner: float = 0.0
    moved: float = 0.0

    def __add__(self, other: Movement) -> Movement:
        """Add the sums of other tensors; the name stays."""
        return Movement(
            self.name, self.elements + other.elements, self.before + other.before, self.after + other.after,
            self.inner + other.inner, self.moved + other.moved,
        )  # fmt: skip

    @property
    def norm(self) -> float:
        """Return the norm of the weights before."""
        return math.sqrt(self.before)

    @property
    def distance(self) -> float:
        """Return the norm of the difference."""
        return math.sqrt(self.moved)

    @property
    def relative(self) -> float:
        """Return the norm of the difference divided by that before; NaN where that is 0."""
        return self.distance / self.norm if self.before else math.nan

    @property
    def cosine(self) -> float:
        """Return the cosine between both; exactly 1 where nothing moved, NaN where one of them is 0."""
        if not self.moved and self.before:
            return 1.0
        product = math.sqrt(self.before) * math.sqrt(self.after)
        return max(-1.0, min(1.0, self.inner / product)) if product else math.nan


def tensor_movements(theta_0: Path, theta_1: Path) -> Iterator[Movement]:
    """Measure each floating tensor of two safetensors files, in the order of the first; memory does not grow with the model.

    Raises :class:`StoreError` where names or shapes differ, :class:`ModelError` for files that are no safetensors.
    """
    first, second = read_weights(theta_0)[0], read_weights(theta_1)[0]
    check_same(first, second, source="files")
    for name, tensor in first.items():
        if not tensor.is_floating_point():
            continue
        total = Movement(name)
        ends = tensor.reshape(-1), second[name].reshape(-1)
        for start in range(0, tensor.numel(), ELEMENTS_AT_ONCE):
            x, y = (end[start : start + ELEMENTS_AT_ONCE].double() for end in ends)
            moved = y - x
            total += Movement(name, len(x), *(float(a @ b) for a, b in ((x, x), (y, y), (x, y), (moved, moved))))
        yield total


def layer_of(name: str) -> str:
    """Return the block that a tensor belongs to, by its name: up to its first number, or without ``weight`` and ``bias``.

    ``visual.transformer.resblocks.3.mlp.c_fc.weight`` is of ``visual.transformer.resblocks.3``, ``visual.conv1.weight`` of
    ``visual.conv1``.
    """
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if NUMBER.fullmatch(part)), None)
    if number is not None:
        return ".".join(parts[: number + 1])
    return ".".join(parts[:-1] if parts[-1] in PARAMETERS and len(parts) > 1 else parts)


def layer_movements(movements: Iterable[Movement]) -> list[Movement]:
    """Add up tensors by block, in the order in which an image or a text passes them; the first one, ``""``, is the whole model."""
    total, layers = Movement(""), dict[str, Movement]()
    for each in movements:
        layer = layer_of(each.name)
        layers[layer] = layers.get(layer, Movement(layer)) + each
        total += each
    return [total, *sorted(layers.values(), key=lambda layer: _order(layer.name))]


def _order(layer: str) -> tuple[object, ...]:
    """Sort the image tower before the text tower before a head; within one, what comes before the blocks, they, what follows."""
    parts = layer.split(".")
    tower = 2 if parts[0] == "head" else 0 if parts[0] == "visual" else 1
    if NUMBER.fullmatch(parts[-1]):
        return tower, 1, 0, parts[:-1], int(parts[-1])
    late = next((place for place, part in enumerate(LATE) if part in parts), None)
    if late is not None:
        return tower, 2, late, parts, 0
    early = next((place for place, part in enumerate(EARLY) if part in parts), len(EARLY))
    return tower, 0, early, parts, 0
