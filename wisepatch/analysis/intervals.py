"""Confidence intervals: Wilson and Clopper-Pearson for fractions, a bootstrap for functions of a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

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
    low = np.where(hits > 0, beta.ppf(tail, np.maximum(hits, 1), misses + 1), 0.0)
    high = np.where(misses > 0, beta.ppf(1 - tail, hits + 1, np.maximum(misses, 1)), 1.0)
    return low, high


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], counts: NDArray[np.int64]
) -> tuple[float, float]:
    """Compute the 95 % percentile interval of a function of a confusion matrix ``(classes, classes)``.

    Draws 1,000 resamples of the images, seed 0, as multinomial confusion matrices; ``statistic`` takes a stack of these.
    """
    import numpy as np

    generator, cells = np.random.default_rng(0), counts.ravel().nonzero()[0]
    n, classes = int(counts.sum()), len(counts)
    at_once = max(MAX_MATRIX_CELLS_AT_ONCE // counts.size, 1)
    values = []
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        resampled = np.zeros((size, counts.size), dtype=np.int64)
        resampled[:, cells] = generator.multinomial(n, counts.ravel()[cells] / n, size=size)
        values.append(statistic(resampled.reshape(-1, classes, classes)))
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return float(low), float(high)
