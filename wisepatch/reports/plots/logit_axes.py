"""Axes on a logit scale, on which accuracies of 0 and 1 have a place: they are clamped near the ends."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.robustness import expit, logit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

SMALLEST_CLAMP, LARGEST_CLAMP = 1e-5, 2e-3
PADDING, LEAST_SPAN = 0.14, 1.0  # share of the span, logits
TICKS = (
    0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999,
    0.9999,
)  # fmt: skip
STEPS = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # where the usual ticks are too few
LEAST_TICKS = 4


def clamp_of(values: ArrayLike) -> float:
    """Return how near to 0 and 1 accuracies are drawn: nearer than the nearest that is neither."""
    import numpy as np

    known = np.asarray(values, float).ravel()
    known = known[np.isfinite(known) & (known > 0) & (known < 1)]
    nearest = np.minimum(known, 1 - known).min() if len(known) else 1.0
    return float(np.clip(nearest / 2, SMALLEST_CLAMP, LARGEST_CLAMP))


def use_logit_scale(axes: Axes, x: Sequence[float], y: Sequence[float], clamp: float) -> None:
    """Give both axes a logit scale that holds the accuracies ``x`` and ``y`` (fractions; NaN counts for nothing)."""
    forward: Any = partial(logit, clamp=clamp)
    axes.set_xscale("function", functions=(forward, expit))
    axes.set_yscale("function", functions=(forward, expit))
    for axis, values, limit in ((axes.xaxis, x, axes.set_xlim), (axes.yaxis, y, axes.set_ylim)):
        low, high = limits(values, clamp)
        limit(low, high)
        axis.set_ticks(ticks(low, high))
        axis.set_ticks([], minor=True)
        axis.set_major_formatter(percent)


def ticks(low: float, high: float) -> list[float]:
    """Return ticks between two accuracies: the usual ones, or round ones that are closer to each other."""
    usual = [tick for tick in TICKS if low <= tick <= high]
    if len(usual) >= LEAST_TICKS:
        return usual
    stepped = ([n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)] for step in STEPS)
    return next((ticks for ticks in stepped if len(ticks) >= LEAST_TICKS), usual)


def percent(fraction: float, _place: float = 0) -> str:
    """Write a fraction in per cent, with no more digits than it has."""
    return f"{100 * fraction:.6g} %"


def limits(values: Sequence[float], clamp: float) -> tuple[float, float]:
    """Return the ends of an axis, with room around the values."""
    import numpy as np

    logits = logit(values, clamp)
    logits = logits[np.isfinite(logits)]
    low, high = (float(logits.min()), float(logits.max())) if len(logits) else (-1.0, 1.0)
    pad = max((high - low) * PADDING, (LEAST_SPAN - (high - low)) / 2, 0.1)
    ends = expit([max(low - pad, float(logit(0.0, clamp))), min(high + pad, float(logit(1.0, clamp)))])
    return float(ends[0]), float(ends[1])
