"""The rule that bounds the drop of supported tasks: as measured, or certified from the images that are broken and fixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.paired import drop_limit, mean_drop_limit
from wisepatch.analysis.sweep_frame import BELOW, COUNTS, EFFECTIVE, FITTED, SUPPORTED, axes, by_task, shown_tasks
from wisepatch.counting import count
from wisepatch.errors import ResultsError
from wisepatch.hookspecs import Choice

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

MAX_DROP = "max-drop"
ROUNDING = 1e-9  # accuracies are ratios of integers: a drop of exactly one point is one point
MAX_IMAGES = 10_000_000  # more a task are no advice


@dataclass(frozen=True)
class Bound:
    """The largest drop allowed: a fraction, with the ``confidence`` at which it is to be certified (``None``: as measured).

    Of the mean over the supported tasks, or of ``each`` of them.
    """

    drop: float
    confidence: float | None = None
    each: bool = False

    def __str__(self) -> str:
        """Return what :func:`read_bound` reads."""
        at = "" if self.confidence is None else f"@{write_number(100 * self.confidence)}"
        return f"{self.drop!r}{at}{',each' if self.each else ''}"


def read_number(text: str) -> float:
    """Read a number. Raises :class:`ValueError`."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def read_bound(text: str) -> Bound:
    """Read ``0.01``, ``0.01@95``, ``0.01,each`` or ``0.01@95,each``. Raises :class:`ValueError`."""
    number, *words = (part.strip() for part in text.split(","))
    drop, at, confidence = number.partition("@")
    if not (0 <= (bound := read_number(drop)) < 1) or words not in ([], ["each"]):
        raise ValueError("needs a fraction")
    if not at:
        return Bound(bound, None, bool(words))
    try:
        percent = read_number(confidence)
    except ValueError:
        percent = 0.0
    if not 50 <= percent < 100:
        raise ValueError(f"needs a confidence from 50 to below 100 after @, not {confidence!r}")
    return Bound(bound, float(f"{percent / 100:.12g}"), bool(words))


def write_number(value: float) -> str:
    """Write a number as :func:`read_number` reads it."""
    return f"{value:.12g}"


def shared_out(bound: Bound, choices: int) -> Bound:
    """Return the bound that each of several choices is to be certified by, so that all of them hold together (Bonferroni)."""
    if bound.confidence is None:
        return bound
    return replace(bound, confidence=float(f"{1 - (1 - bound.confidence) / choices:.12g}"))


def max_drop(frame: pd.DataFrame, bound: Bound) -> float | Choice:
    """Maximise ``P(a)`` among the alphas that drop by no more than the bound ``d``.

    ``max-drop=d``: those with ``S(0) - S(a) <= d`` as measured; with ``each``, of every supported task.

    ``max-drop=d@c``: those for which the one-sided upper limit of the drop, at c per cent, is at most d: of the mean
    (:func:`~wisepatch.analysis.paired.mean_drop_limit`), or of every supported task (``each``;
    :func:`~wisepatch.analysis.paired.drop_limit`), from the images that are broken and fixed. Alphas are tested from 0
    upwards until the first fails: each is tested only where all before it passed, so that no correction is needed for
    their number (fixed-sequence testing; Maurer, Hothorn and Lehmacher 1995), and the best of those that passed may be taken.

    Where a sweep starts at another checkpoint, the drop from the zero-shot model is held to the same bound. Alpha 0 is always
    allowed.

    Raises :class:`ResultsError` where a drop is to be certified and nobody counted broken and fixed images, or the mixes were
    made by looking at the same images.
    """
    patching = axes(frame)["patching"]
    references = _references(frame)
    if bound.confidence is None:
        worst = drops(frame, each=bound.each)
        allowed = (worst <= bound.drop + ROUNDING) | (worst.index == 0)
        return _with_limit(frame, bound, best_alpha(patching[allowed.to_numpy()]))
    _check_not_fitted(frame)
    for reference in references:
        _check_counted(frame, reference)
    limits = _worst(_limit(frame, bound, reference) for reference in references)
    limits = limits[limits.index >= 0]
    passed = certified(limits.to_numpy(), bound)
    chosen = best_alpha(patching[limits.index][passed])
    return _told(frame, bound, chosen, limits, passed, drops(frame, each=bound.each))


def drops(frame: pd.DataFrame, *, each: bool) -> pd.Series[Any]:
    """Return by alpha the drop of the supported mean (or the largest of ``each`` task) since alpha 0.

    Where the sweep starts at another checkpoint than the zero-shot model, the drop since that model counts if it is larger.
    """
    return _worst(_drop(frame, each, reference) for reference in _references(frame))


def _references(frame: pd.DataFrame) -> list[str]:
    return [""] + ([BELOW] if f"score{BELOW}" in frame else [])


def _with_limit(frame: pd.DataFrame, bound: Bound, chosen: float) -> Choice:
    """Say of a choice by drops as measured, where broken and fixed images were counted, what can be certified."""
    at_95 = replace(bound, confidence=0.95)
    try:
        promised = max_drop(frame, at_95)
    except ResultsError:
        return Choice(chosen)
    assert isinstance(promised, Choice)
    if chosen in (0.0, *promised.facts["certified"]):
        return Choice(chosen, promised.note if chosen == promised.alpha else "")
    limit = float(_worst(_limit(frame, at_95, reference) for reference in _references(frame))[chosen])
    takes = (
        f"takes alpha {promised.alpha:g}"
        if promised.alpha
        else f"certifies nothing: {promised.note.partition(': ')[2]}"
    )
    note = (
        f"not certified: the upper 95 % limit of the drop at alpha {chosen:g}, which was picked by these very images, is "
        f"{_points(limit)}; {MAX_DROP}={at_95} {takes}"
    )
    return Choice(chosen, note, {"limit": limit})


def best_alpha(scores: pd.Series[Any]) -> float:
    """Return the smallest alpha whose score is the largest but for rounding."""
    return float(scores.index[scores >= scores.max() - ROUNDING].min())


def _worst(each: Any) -> pd.Series[Any]:
    import pandas as pd

    worst: pd.Series[Any] = pd.concat(list(each), axis=1).max(axis=1, skipna=False)
    return worst


def _drop(frame: pd.DataFrame, each: bool, reference: str) -> pd.Series[Any]:
    """Return by alpha the measured drop of the mean, or the largest of each supported task."""
    scores = by_task(frame, "score", SUPPORTED)
    start = by_task(frame, f"score{reference}", SUPPORTED).iloc[0] if reference else scores.loc[0.0]
    drops = start - scores
    worst: pd.Series[Any] = drops.max(axis=1, skipna=False) if each else drops.mean(axis=1, skipna=False)
    return worst


def _check_not_fitted(frame: pd.DataFrame) -> None:
    if FITTED in frame and frame[FITTED].any():
        raise ResultsError(
            "no drop can be certified: which mixes there are depends on the answers to these very images",
            "sweep alphas that are named beforehand, such as interpolate --alpha 0:1:0.1, without --layers learned",
        )


def _check_counted(frame: pd.DataFrame, reference: str) -> None:
    judged = frame[(frame["role"] == SUPPORTED) & (frame["alpha"] > 0)]
    columns = ["n", *(f"{name}{reference}" for name in COUNTS)]
    uncounted = judged[judged[columns].isna().any(axis=1)]
    if len(uncounted):
        task = uncounted["task"].iloc[0]
        raise ResultsError(
            f"no drop can be certified: the results do not say how many images of {task} were broken and fixed",
            "sweeps of `interpolate` and `patch` count them for top1; or leave @ and the confidence out",
        )


def _limit(frame: pd.DataFrame, bound: Bound, reference: str) -> pd.Series[Any]:
    """Return by alpha the upper limit of the drop of the mean, or the largest of each supported task."""
    import pandas as pd

    broken, fixed = (by_task(frame, f"{name}{reference}", SUPPORTED).fillna(0) for name in COUNTS)
    n = by_task(frame, "n", SUPPORTED)
    if EFFECTIVE in frame:  # images that belong together count as fewer; the shares that are broken and fixed stay
        independent = by_task(frame, EFFECTIVE, SUPPORTED).fillna(n)
        fixed, broken, n = fixed * independent / n, broken * independent / n, independent
    limits = upper_limits(fixed.to_numpy(), broken.to_numpy(), n.to_numpy(), bound, shown_tasks(frame, n.columns))
    return pd.Series(limits, index=n.index)


def certified(limits: NDArray[Any], bound: Bound) -> NDArray[Any]:
    """Tell which of the limits ``(..., alphas)``, alpha 0 first, are certified: all from 0 to the last before the first failure."""
    import numpy as np

    passed = limits <= bound.drop
    passed[..., 0] = True  # where nothing moves
    return np.logical_and.accumulate(passed, axis=-1)


def upper_limits(fixed: Any, broken: Any, n: Any, bound: Bound, tasks: Sequence[str] = ()) -> Any:
    """Compute the one-sided upper limits of the drop from counts ``(..., tasks)``: of the mean, or the largest of each task."""
    assert bound.confidence is not None
    if bound.each:  # all have to pass at the full level: no correction (intersection-union test)
        return drop_limit(fixed, broken, n, bound.confidence).max(-1)
    return mean_drop_limit(fixed, broken, n, bound.confidence, tasks)


def _told(
    frame: pd.DataFrame, bound: Bound, chosen: float, limits: pd.Series[Any], passed: NDArray[Any], seen: pd.Series[Any]
) -> Choice:
    """Say what was certified, or what it would take."""
    tasks = list(frame.loc[frame["role"] == SUPPORTED, "task"].unique())
    confidence = write_number(100 * (bound.confidence or 0))
    what = tasks[0] if len(tasks) == 1 else f"{'each' if bound.each else 'the mean'} of {', '.join(tasks)}"
    certified = [float(alpha) for alpha in limits.index[passed] if alpha > 0]
    facts: dict[str, Any] = {
        "bound": bound.drop, "confidence": bound.confidence, "of": "each" if bound.each else "mean",
        "certified": certified, "limit": float(limits[chosen]) if chosen else 0.0,
    }  # fmt: skip
    if certified:
        limit, drop = (_points(float(series[chosen])) for series in (limits, seen))
        at = f"at alpha {chosen:g}" if chosen else f"at all alphas above 0 up to {certified[-1]:g}"
        since = " from alpha 0, and from the zero-shot model," if len(_references(frame)) > 1 else ""
        told = f"the drop of {what} {at}{since} is at most {_points(bound.drop)} with {confidence} % confidence"
        detail = f"seen {drop}, with an upper limit of {limit}; all alphas up to {certified[-1]:g} pass"
        kept = "alpha 0, where nothing moves, has the best patching accuracy of these"
        note = f"certified: {told} ({detail if chosen else kept}); another set of images is another draw"
        note += _told_of_clusters(frame)
        return Choice(chosen, note, facts)
    alpha = next((float(alpha) for alpha in limits.index if alpha > 0), None)
    if alpha is None:
        return Choice(chosen, "nothing is certified: there is no alpha above 0", facts)
    needed = images_needed(frame, bound, alpha)
    least = images_needed(frame, bound)
    facts |= {"images_needed": needed, "images_needed_at_least": least}
    clusters = _told_of_clusters(frame)
    kind = " images of different groups" if clusters else ""
    advice = f"at these rates about {needed:,}{kind} a task would do" if needed else "at these rates no number would do"
    advice += f", and {least:,} where not one is broken" if least else ""
    n = int(frame.loc[frame["role"] == SUPPORTED, "n"].min())
    note = (
        f"nothing is certified, and alpha 0 is kept: at alpha {alpha:g} the drop of {what} is {_points(float(seen[alpha]))} "
        f"as seen, and up to {_points(float(limits[alpha]))} with {confidence} % confidence, on {count(n, 'image')} a task; "
        f"{advice}{clusters}"
    )
    return Choice(chosen, note, facts)


def images_needed(frame: pd.DataFrame, bound: Bound, alpha: float | None = None) -> int | None:
    """Return how many images a task certify the bound at the rates of broken and fixed ones of ``alpha``; ``None``: no number does.

    Without ``alpha``, where not one is broken or fixed.
    """
    import numpy as np

    tasks = list(frame.loc[frame["role"] == SUPPORTED, "task"].unique())
    rates, shown = np.zeros((2, len(tasks))), shown_tasks(frame, tasks)
    if alpha is not None:
        rows = frame[(frame["role"] == SUPPORTED) & (frame["alpha"] == alpha)]
        rates = np.stack([(rows[name] / rows["n"]).to_numpy() for name in ("fixed", "broken")])

    def enough(n: int) -> bool:
        fixed, broken = rates * n
        return bool(upper_limits(fixed, broken, n, bound, shown) <= bound.drop)

    most = 1
    while not enough(most):
        most *= 2
        if most > MAX_IMAGES:
            return None
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if enough(middle) else (middle, most)
    return most


def _told_of_clusters(frame: pd.DataFrame) -> str:
    """Say of which tasks images belong together, and as how many they count."""
    if EFFECTIVE not in frame:
        return ""
    rows = frame[(frame["role"] == SUPPORTED) & frame[EFFECTIVE].notna()].drop_duplicates("task")
    each = [f"{row['n']:g} of {row['task']} as {row[EFFECTIVE]:.0f}" for _, row in rows.iterrows()]
    return f"; images of one group count as one ({', '.join(each)})" if each else ""


def _points(fraction: float) -> str:
    number = f"{100 * fraction:.2f}".rstrip("0").rstrip(".")
    return f"{number} point{'' if number == '1' else 's'}"
