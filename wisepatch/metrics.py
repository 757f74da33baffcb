"""Measures of predictions, each with a 95 % interval. A metric is a function of a confusion matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from wisepatch.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]  # (..., classes, classes): [true, predicted]
    Labels = NDArray[np.int64]

Z95 = 1.959963984540054
RESAMPLES = 1000
CELLS_AT_ONCE = 4_000_000  # of confusion matrices, 8 bytes each


class Measured(NamedTuple):
    """A value with its 95 % interval and the number of images."""

    value: float
    n: int
    low: float
    high: float


def top1(counts: Counts) -> NDArray[np.float64]:
    """Accuracy: the fraction of images whose most likely class is the right one."""
    import numpy as np

    hits: NDArray[np.float64] = np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))
    return hits


def mean_per_class(counts: Counts) -> NDArray[np.float64]:
    """Mean over classes of the accuracy on that class; classes without images do not count."""
    import numpy as np

    totals = counts.sum(-1)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    recall = np.divide(hits, totals, out=np.full(hits.shape, np.nan), where=totals > 0)
    mean: NDArray[np.float64] = np.nanmean(recall, axis=-1)
    return mean


def macro_f1(counts: Counts) -> NDArray[np.float64]:
    """Mean over classes of F1; a class neither present nor predicted does not count (scikit-learn's default labels)."""
    import numpy as np

    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    either = counts.sum(-1) + counts.sum(-2)
    f1 = np.divide(2.0 * hits, either, out=np.full(hits.shape, np.nan), where=either > 0)
    mean: NDArray[np.float64] = np.nanmean(f1, axis=-1)
    return mean


METRICS: dict[str, Callable[[Counts], NDArray[np.float64]]] = {
    "top1": top1,
    "mean_per_class": mean_per_class,
    "macro_f1": macro_f1,
}


def find_metric(name: str) -> str:
    """Return ``name`` if it is a metric. Raises :class:`UnknownNameError` otherwise."""
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    return name


def measure(name: str, labels: Labels, predicted: Labels, classes: int) -> Measured:
    """Measure predictions ``(n,)`` against labels ``(n,)``: Wilson's interval for ``top1``, a bootstrap for the others.

    The bootstrap draws 1,000 resamples of the images, seed 0, as multinomial confusion matrices.
    """
    import numpy as np

    metric = METRICS[find_metric(name)]
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    n = len(labels)
    value = float(metric(counts))
    if name == "top1":
        return Measured(value, n, *wilson(value, n))
    low, high = np.quantile(bootstrap(metric, counts), [0.025, 0.975])
    return Measured(value, n, float(low), float(high))


def bootstrap(metric: Callable[[Counts], NDArray[np.float64]], counts: Counts) -> NDArray[np.float64]:
    """The metric of 1,000 resamples of the images behind a confusion matrix, seed 0, a few matrices at a time."""
    import numpy as np

    rng, cells = np.random.default_rng(0), counts.ravel().nonzero()[0]
    n, classes = int(counts.sum()), len(counts)
    found = []
    for size in _chunks(RESAMPLES, max(CELLS_AT_ONCE // counts.size, 1)):
        resampled = np.zeros((size, counts.size), dtype=np.int64)
        resampled[:, cells] = rng.multinomial(n, counts.ravel()[cells] / n, size=size)
        found.append(metric(resampled.reshape(-1, classes, classes)))
    return np.concatenate(found)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def wilson(fraction: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a fraction of ``n`` trials, within [0, 1] (Wilson 1927)."""
    spread = Z95 * Z95 / n
    center = (fraction + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(fraction * (1 - fraction) / n + spread / (4 * n)) / (1 + spread)
    return max(min(center - half, fraction), 0.0), min(max(center + half, fraction), 1.0)
