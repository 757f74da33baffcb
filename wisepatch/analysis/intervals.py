"""Confidence intervals: Wilson and Clopper-Pearson for fractions, a bootstrap for functions of a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.same_images import combined, shown_by

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Z95 = 1.959963984540054
RESAMPLES = 1000
MAX_MATRIX_CELLS_AT_ONCE = 4_000_000  # 8 bytes each


def wilson(fraction: float, n: int) -> tuple[float, float]:
    """Compute Wilson's 95 % score interval of a fraction of ``n`` trials, within [0, 1] (Wilson 1927)."""
    spread = Z95 * Z95 / n
    center = (fraction + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(fraction * (1 - fraction) / n + spread / (4 * n)) / (1 + spread)
    return max(min(center - half, fraction), 0.0), min(max(center + half, fraction), 1.0)


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the exact interval of a fraction of ``n`` trials, which covers at least ``confidence`` (Clopper, Pearson 1934)."""
    low, high = beta_limits(hits, n, (1 - confidence) / 2)
    return float(low), float(high)


def beta_limits(hits: ArrayLike, n: ArrayLike, tail: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute Clopper and Pearson's lower and upper limit for counts of any shape, each missed with probability ``tail``."""
    import numpy as np
    from scipy.stats import beta

    hits, misses = np.asarray(hits), np.asarray(n) - np.asarray(hits)
    low = np.where(hits > 0, beta.ppf(tail, np.where(hits > 0, hits, 1), misses + 1), 0.0)
    high = np.where(misses > 0, beta.ppf(1 - tail, hits + 1, np.where(misses > 0, misses, 1)), 1.0)
    return low, high


def of_mean(values: ArrayLike, lowest: float, highest: float) -> tuple[float, float]:
    """Compute Student's 95 % interval of a mean of values ``(n,)`` that lie between two numbers.

    It is too narrow where large values are so rare that hardly one was drawn: less than five or so.
    """
    import numpy as np
    from scipy.stats import t

    values = np.asarray(values, float)
    if len(values) < 2:
        return lowest, highest
    mean, half = values.mean(), t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return max(float(mean - half), lowest), min(float(mean + half), highest)


def of_means(
    values: ArrayLike, lows: ArrayLike, highs: ArrayLike, tasks: Sequence[str] = (), weights: ArrayLike | None = None
) -> tuple[float, float]:
    """Compute the interval of the mean of values ``(m,)`` of ``tasks``, by name, from the interval of each.

    ``weights`` add up to 1 (equal ones without them). The distances from the values to their limits are
    :func:`~wisepatch.analysis.same_images.combined`.
    """
    import numpy as np

    values, lows, highs = (np.asarray(each, float) for each in (values, lows, highs))
    m = len(values)
    shares = np.ones(m) if weights is None else m * np.asarray(weights, float)
    mean = (shares * values).mean()
    below, above = combined(shares * (values - lows), tasks) / m, combined(shares * (highs - values), tasks) / m
    return float(mean - below), float(mean + above)


def mean_of_rows(*groups: Sequence[Mapping[Any, Any]]) -> dict[str, float]:
    """Return the mean of the means of groups of rows, a task each, as ``value, ci_low, ci_high``; NaN where one is not known.

    Of one group it is the mean over its tasks, of two, those that are patched and those that are supported, what rules compare.
    """
    groups = tuple(filter(None, groups))
    rows = [row for group in groups for row in group]
    values, lows, highs = ([_number(row.get(name)) for row in rows] for name in ("value", "ci_low", "ci_high"))
    if not rows:
        return dict.fromkeys(("value", "ci_low", "ci_high"), math.nan)
    weights = [1 / (len(groups) * len(group)) for group in groups for _ in group] if len(groups) > 1 else None
    low, high = of_means(values, lows, highs, [shown_by(row) for row in rows], weights)
    value = sum(sum(_number(row["value"]) for row in group) / len(group) for group in groups) / len(groups)
    return {"value": value, "ci_low": low, "ci_high": high}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def bootstrap(
    statistic: Callable[[NDArray[Any]], NDArray[np.float64]], counts: NDArray[np.int64]
) -> tuple[float, float]:
    """Compute the 95 % interval of a function, from 0 to 1, of a confusion matrix ``(classes, classes)``.

    Draws 1,000 resamples of the images, seed 0, as multinomial confusion matrices; ``statistic`` takes a stack of these. They
    are drawn from the counts and one image more a class, half of it taken for the next: no class is without doubt.
    """
    import numpy as np

    generator, n, classes = np.random.default_rng(0), int(counts.sum()), len(counts)
    present = counts.sum(1).nonzero()[0]
    doubtful = counts.astype(np.float64)
    doubtful[present, present] += 0.5
    doubtful[present, np.roll(present, -1)] += 0.5
    cells = doubtful.ravel().nonzero()[0]
    chances = doubtful.ravel()[cells] / doubtful.sum()
    at_once = max(MAX_MATRIX_CELLS_AT_ONCE // counts.size, 1)
    values = []
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        resampled = np.zeros((size, counts.size), dtype=np.int64)
        resampled[:, cells] = generator.multinomial(n, chances, size=size)
        values.append(statistic(resampled.reshape(-1, classes, classes)))
    low, high = around(float(statistic(counts)), np.concatenate(values), float(statistic(doubtful)))
    return low, min(high, 1.0)


def around(value: float, resampled: NDArray[np.float64], center: float) -> tuple[float, float]:
    """Compute a 95 % interval from resamples ``(r,)`` of what has the value ``center``, not below 0.

    It lies around the value and around the value less the bias that the resamples show, each with its normal error: functions like
    macro F1 and the calibration error are biased on few images (Efron and Tibshirani 1993, section 10.6).
    """
    unbiased, half = value - (float(resampled.mean()) - center), Z95 * float(resampled.std(ddof=1))
    return max(min(value, unbiased) - half, 0.0), max(value, unbiased) + half
