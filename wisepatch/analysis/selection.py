"""Rules that choose alpha from the measurements of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wisepatch.errors import ResultsError, UsageError
from wisepatch.hookspecs import SelectionRule, hookimpl
from wisepatch.plugins import find_rule

BEST_MEAN, MAX_DROP = "best-mean", "max-drop"
FRACTION = "FRACTION"  # a rule that takes one takes numbers from 0 to below 1
ROUNDING = 1e-9  # accuracies are ratios of integers: a drop of exactly one point is one point


@dataclass(frozen=True)
class Point:
    """One alpha of a sweep: the metric on the patching task, and its mean over the supported tasks (``None`` without any).

    Rules compare the scores, which are better when higher: the values, with their sign changed where lower is better.
    """

    alpha: float
    patching: float
    supported: float | None = None
    scores: tuple[float, float | None] | None = field(default=None, repr=False, compare=False)

    @property
    def patching_score(self) -> float:
        """Return the score on the patching task."""
        return self.scores[0] if self.scores else self.patching

    @property
    def supported_score(self) -> float | None:
        """Return the mean score on the supported tasks."""
        return self.scores[1] if self.scores else self.supported

    @property
    def mean_score(self) -> float:
        """Return the mean of both, or the score on the patching task where there are no supported ones."""
        return self.patching_score if self.supported_score is None else (self.patching_score + self.supported_score) / 2


@dataclass(frozen=True)
class Rule:
    """A rule by name, and the number that it takes: for ``max-drop`` the largest drop allowed (0.01 is one point)."""

    name: str = BEST_MEAN
    drop: float = 0.0

    def __str__(self) -> str:
        """Return what :func:`parse_rule` reads."""
        return f"{self.name}={self.drop!r}" if find_rule(self.name).takes else self.name


@hookimpl
def register_rules() -> Iterable[SelectionRule]:
    """Register the built-in rules."""
    return (SelectionRule(BEST_MEAN, _best_mean), SelectionRule(MAX_DROP, _max_drop, takes=FRACTION, needs_drop=True))


def parse_rule(text: str) -> Rule:
    """Read ``best-mean`` or ``max-drop=0.01``. Raises :class:`UsageError` for anything else."""
    name, equals, value = text.strip().partition("=")
    takes = find_rule(name).takes
    if not takes:
        if equals:
            raise UsageError(f"{name} takes no value, and {value!r} is given", f"write --select {name}")
        return Rule(name)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (takes == FRACTION and not 0 <= number < 1):
        kind, example = ("a fraction", "0.01 for one point") if takes == FRACTION else (f"a number ({takes})", takes)
        raise UsageError(f"{name} needs {kind}, not {value!r}", f"write --select {name}={example}")
    return Rule(name, number)


def missing_for_rule(rule: Rule, alphas: Iterable[float], *, supported: bool) -> str:
    """Say what a sweep lacks that the rule needs, alpha 0 or supported tasks; an empty string where nothing is missing."""
    if not find_rule(rule.name).needs_drop or (supported and 0 in alphas):
        return ""
    missing = "alpha 0 in the sweep" if supported else "supported tasks"
    return f"{rule.name} needs {missing} to measure the drop from zero-shot"


def choose(points: Sequence[Point], rule: Rule | str, zeroshot: Point | None = None) -> Point:
    """Choose the point of a sweep by ``rule``; of equally good ones the smallest alpha, the one that moves least.

    ``best-mean`` maximises the mean of patching accuracy and mean supported accuracy (PAINT section 2); ``max-drop`` the
    patching accuracy among points whose supported accuracy lies at most ``rule.drop`` below that of alpha 0. Points whose
    metric has no value (NaN) are never chosen. Where the sweep does not start at the zero-shot model, ``zeroshot`` is that model's
    point: a rule that measures a drop then allows no more than its value from there either, but for alpha 0, where nothing moves.

    Raises :class:`ResultsError` for a sweep that the rule cannot judge.
    """
    rule = parse_rule(rule) if isinstance(rule, str) else rule
    if not points:
        raise ResultsError("there are no alphas to choose from", "evaluate at least one")
    row = find_rule(rule.name)
    ordered = sorted(points, key=lambda point: point.alpha)
    supported = all(point.supported is not None for point in ordered)
    if missing := missing_for_rule(rule, [point.alpha for point in ordered], supported=supported):
        raise ResultsError(missing, "add them, or use --select best-mean")
    valued = [point for point in ordered if math.isfinite(point.mean_score)]
    if not valued or missing_for_rule(rule, [point.alpha for point in valued], supported=supported):
        without = ", ".join(f"{point.alpha:g}" for point in ordered if point not in valued)
        reason = f"{rule.name} cannot choose: the metric has no value at alpha {without}"
        raise ResultsError(reason, "choose by another metric with --metric, or measure more images")
    if zeroshot and row.needs_drop:
        floor = (zeroshot.supported_score or 0.0) - rule.drop - ROUNDING
        valued = [point for point in valued if point.alpha == 0 or (point.supported_score or 0.0) >= floor]
    chosen: Point = row.choose(valued, rule.drop if row.takes else None)
    return chosen


def _best_mean(points: Sequence[Point], _value: float | None) -> Point:
    best = max(point.mean_score for point in points) - ROUNDING
    return next(point for point in points if point.mean_score >= best)


def _max_drop(points: Sequence[Point], drop: float | None) -> Point:
    scores = {point.alpha: point.supported_score or 0.0 for point in points}
    floor = scores[0.0] - (drop or 0.0) - ROUNDING
    allowed = [point for point in points if scores[point.alpha] >= floor]
    return max(allowed, key=lambda point: (point.patching_score, -point.alpha))


def points(
    values: Mapping[float, Mapping[str, float]],
    patching: str,
    supported: Sequence[str],
    higher_is_better: Mapping[str, bool] | None = None,
) -> list[Point]:
    """Gather ``alpha -> task -> value`` into points; ``higher_is_better`` tells the direction of each task's metric.

    Raises :class:`ResultsError` where a task was not measured at some alpha.
    """
    signs = {task: 1 if better else -1 for task, better in (higher_is_better or {}).items()}
    gathered = []
    for alpha, by_task in sorted(values.items()):
        missing = [task for task in (patching, *supported) if task not in by_task]
        if missing:
            reason = f"{missing[0]!r} was not measured at alpha {alpha:g}"
            raise ResultsError(reason, "evaluate every task at every alpha")
        scores = {task: signs.get(task, 1) * value for task, value in by_task.items()}
        oriented = (scores[patching], _mean(scores, supported))
        gathered.append(Point(alpha, by_task[patching], _mean(by_task, supported), oriented))
    return gathered


def _mean(values: Mapping[str, float], tasks: Sequence[str]) -> float | None:
    return sum(values[task] for task in tasks) / len(tasks) if tasks else None
