"""Rules that choose alpha: pure functions from the DataFrame of a sweep, and a rule's value, to an alpha of the sweep.

The frame is that of :func:`~wisepatch.analysis.sweep_frame.sweep_frame`. Of equally good alphas the smallest is taken, the one that
moves least. Below, ``P(a)`` is the mean score on the patching tasks (one or several) at alpha ``a``, ``S(a)`` that on the supported
tasks: however many there are of each, both sides count the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.drops import best_alpha, read_number, write_number
from wisepatch.analysis.sweep_frame import axes, by_task

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Weights:
    """Hold how much each named task counts; the others count 1."""

    of: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        """Return what :func:`read_weights` reads."""
        return ",".join(f"{task}:{write_number(weight)}" for task, weight in self.of)


def read_weights(text: str) -> Weights:
    """Read ``TASK:2,OTHER:0.5``. Raises :class:`ValueError`."""
    pairs = []
    for part in text.split(","):
        task, colon, number = part.rpartition(":")
        if not colon or not task.strip() or (weight := read_number(number)) < 0:
            raise ValueError(part)
        pairs.append((task.strip(), weight))
    if len(dict(pairs)) < len(pairs):
        raise ValueError(text)
    return Weights(tuple(pairs))


def best_mean(frame: pd.DataFrame, _: None = None) -> float:
    """Maximise ``(P(a) + S(a)) / 2`` (PAINT section 2), or ``P(a)`` where there are no supported tasks."""
    return best_alpha(axes(frame)["mean"])


def weighted(frame: pd.DataFrame, weights: Weights) -> float:
    """Maximise the weighted mean ``sum_t w_t s_t(a) / sum_t w_t`` of the scores on all tasks, those that are patched among them."""
    return best_alpha(weighted_means(frame, weights))


def weighted_means(frame: pd.DataFrame, weights: Weights) -> pd.Series[Any]:
    """Return the weighted mean over all tasks by alpha."""
    scores = by_task(frame, "score")
    factors = {task: dict(weights.of).get(str(task), 1.0) for task in scores.columns}
    means: pd.Series[Any] = (scores * factors).sum(axis=1) / sum(factors.values())
    return means


def given_alpha(frame: pd.DataFrame, alpha: float) -> float:
    """Take an alpha as it is given: 0.5 is WiSE-FT's advice where nothing can be measured (section 4)."""
    return alpha


def knee(frame: pd.DataFrame, _: None = None) -> float:
    """Maximise ``p(a) + s(a)``: P and S, each scaled to go from 0 to 1 over the sweep.

    It is the point of the curve that lies farthest beyond the straight line from (S best, P worst) to (S worst, P best), the knee
    of Satopää et al. 2011 ("Finding a kneedle in a haystack", section II). An axis that does not change counts nothing.
    """
    both = axes(frame)[["patching", "supported"]]
    spread = both.max() - both.min()
    return best_alpha(((both - both.min()) / spread.where(spread > 0, 1.0)).sum(axis=1))


def missing_alpha(alpha: float, alphas: Sequence[float], _tasks: Sequence[str]) -> str:
    """Say that an alpha that is asked for is not in the sweep."""
    return "" if alpha in alphas else f"alpha {alpha:g} is not among those of the sweep"


def missing_tasks(weights: Weights, _alphas: Sequence[float], tasks: Sequence[str]) -> str:
    """Say which task that has a weight is not in the sweep."""
    unknown = [task for task, _ in weights.of if task not in tasks]
    if unknown:
        return f"{unknown[0]} has a weight and is not among the tasks: {', '.join(tasks)}"
    return "" if any(dict(weights.of).get(task, 1.0) for task in tasks) else "the weights of all tasks are 0"


def missing_curve(_: None, alphas: Sequence[float], tasks: Sequence[str]) -> str:
    """Say what a curve with a knee lacks."""
    if len(tasks) < 2:
        return "knee needs supported tasks: without them there is no curve"
    return "" if len(alphas) > 2 else "knee needs three alphas or more"
