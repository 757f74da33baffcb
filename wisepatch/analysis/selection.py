"""Rules that choose alpha from a sweep: pure functions of accuracies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wisepatch.errors import ResultsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BEST_MEAN, MAX_DROP = "best-mean", "max-drop"
ROUNDING = 1e-9  # accuracies are ratios of integers: a drop of exactly one point is one point


@dataclass(frozen=True)
class Point:
    """One alpha of a sweep: accuracy on the patching task, and the mean over the supported tasks (``None`` without any)."""

    alpha: float
    patching: float
    supported: float | None = None


@dataclass(frozen=True)
class Rule:
    """``best-mean``, or ``max-drop`` with the largest drop allowed (a fraction, 0.01 is one point)."""

    name: str = BEST_MEAN
    drop: float = 0.0

    def __str__(self) -> str:
        """Return what :func:`parse_rule` reads."""
        return f"{self.name}={self.drop!r}" if self.name == MAX_DROP else self.name


def parse_rule(text: str) -> Rule:
    """Read ``best-mean`` or ``max-drop=0.01``. Raises :class:`UsageError` for anything else."""
    name, equals, value = text.strip().partition("=")
    if name == BEST_MEAN and not equals:
        return Rule()
    if name == MAX_DROP:
        try:
            drop = float(value)
        except ValueError:
            drop = -1.0
        if 0 <= drop < 1:
            return Rule(MAX_DROP, drop)
        raise UsageError(f"max-drop needs a fraction, not {value!r}", "write --select max-drop=0.01 for one point")
    raise UsageError(f"unknown rule {text!r}", "rules are best-mean and max-drop=FRACTION")


def choose(points: Sequence[Point], rule: Rule) -> Point:
    """Choose the point of a sweep by ``rule``; of equally good ones the smallest alpha, the one that moves least.

    ``best-mean`` maximises the mean of patching accuracy and mean supported accuracy (PAINT section 2); ``max-drop`` the
    patching accuracy among points whose supported accuracy lies at most ``rule.drop`` below that of the smallest alpha,
    which must be 0. Raises :class:`ResultsError` for a sweep that the rule cannot judge.
    """
    if not points:
        raise ResultsError("there are no alphas to choose from", "evaluate at least one")
    ordered = sorted(points, key=lambda point: point.alpha)
    if rule.name == BEST_MEAN:
        best = max(map(_mean, ordered)) - ROUNDING
        return next(point for point in ordered if _mean(point) >= best)
    if ordered[0].alpha != 0 or ordered[0].supported is None:
        missing = "supported tasks" if ordered[0].supported is None else "alpha 0 in the sweep"
        raise ResultsError(
            f"max-drop needs {missing} to measure the drop from zero-shot", "add them, or use --select best-mean"
        )
    floor = ordered[0].supported - rule.drop - ROUNDING
    allowed = [point for point in ordered if point.supported is not None and point.supported >= floor]
    return max(allowed, key=lambda point: (point.patching, -point.alpha))


def _mean(point: Point) -> float:
    return point.patching if point.supported is None else (point.patching + point.supported) / 2


def points(accuracies: Mapping[float, Mapping[str, float]], patching: str, supported: Sequence[str]) -> list[Point]:
    """Gather ``alpha -> task -> accuracy`` into points.

    Raises :class:`ResultsError` where a task was not measured at some alpha.
    """
    found = []
    for alpha, by_task in sorted(accuracies.items()):
        missing = [task for task in (patching, *supported) if task not in by_task]
        if missing:
            raise ResultsError(
                f"{missing[0]!r} was not measured at alpha {alpha:g}", "evaluate every task at every alpha"
            )
        mean = sum(by_task[task] for task in supported) / len(supported) if supported else None
        found.append(Point(alpha, by_task[patching], mean))
    return found
