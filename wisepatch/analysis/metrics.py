"""Measures of predictions, each with a 95 % interval.

Most are functions of a confusion matrix. Those over groups of images and over sequences of frames need the context of a
split besides (:class:`~wisepatch.datasets.base.Annotations`), and yield a row for each group too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from wisepatch.datasets.base import Annotations
from wisepatch.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def macro_f1_present(counts: Counts) -> NDArray[np.float64]:
    """Mean of F1 over the classes that have images, as WILDS measures iWildCam (Koh et al. 2021, appendix)."""
    import numpy as np

    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    totals = counts.sum(-1)
    f1 = np.divide(2.0 * hits, totals + counts.sum(-2), out=np.full(hits.shape, np.nan), where=totals > 0)
    mean: NDArray[np.float64] = np.nanmean(f1, axis=-1)
    return mean


METRICS: dict[str, Callable[[Counts], NDArray[np.float64]]] = {
    "top1": top1,
    "mean_per_class": mean_per_class,
    "macro_f1": macro_f1,
    "macro_f1_present": macro_f1_present,
}
WORST_GROUP = "worst_group"
SEQUENCES = {"pm0": 1, "pm10": None}  # frames of each sequence that count, the anchor first; None: all
ATTACKS = ("attack_success", "neither")  # of typographic attacks
ALL = (*METRICS, WORST_GROUP, *SEQUENCES, *ATTACKS)


def find_metric(name: str) -> str:
    """Return ``name`` if it is a metric. Raises :class:`UnknownNameError` otherwise."""
    if name not in ALL:
        raise UnknownNameError("metric", name, ALL)
    return name


def measurements(
    name: str, labels: Labels, predicted: Labels, classes: int, annotations: Annotations | None = None
) -> Iterator[tuple[str, Measured]]:
    """Yield ``(metric, measured)``: the metric ``name``, and with ``worst_group`` the accuracy of each group, ``top1[<group>]``.

    Raises :class:`UsageError` where the metric needs groups or sequences and the split has none.
    """
    annotations = annotations or Annotations()
    if find_metric(name) == WORST_GROUP:
        yield from _by_group(labels, predicted, annotations)
    elif name in SEQUENCES:
        yield name, _sequences(name, labels, predicted, annotations)
    elif name in ATTACKS:
        yield name, _attack(name, labels, predicted, annotations)
    else:
        yield name, measure(name, labels, predicted, classes)


def _by_group(labels: Labels, predicted: Labels, annotations: Annotations) -> Iterator[tuple[str, Measured]]:
    """The lowest accuracy among the groups that have images, and that of each (WILDS, worst-region accuracy of FMoW).

    The interval of the lowest is a bootstrap within the groups, seed 0, so that it knows of the choice among them.
    """
    import numpy as np

    if annotations.groups is None:
        raise UsageError(f"{WORST_GROUP} needs groups of images, and this task has none", "use top1")
    groups = np.asarray(annotations.groups)
    present = [g for g in range(len(annotations.group_names)) if (groups == g).any()]
    if not present:
        raise UsageError(f"{WORST_GROUP}: no image of this split belongs to a group", "use top1")
    sizes = np.array([(groups == g).sum() for g in present])
    accuracies = np.array([(labels == predicted)[groups == g].mean() for g in present])
    worst = int(accuracies.argmin())
    drawn = np.random.default_rng(0).binomial(sizes, accuracies, (RESAMPLES, len(sizes))) / sizes
    low, high = np.quantile(drawn.min(1), [0.025, 0.975])
    value = float(accuracies[worst])
    yield WORST_GROUP, Measured(value, int(sizes[worst]), min(float(low), value), max(float(high), value))
    for group, size, accuracy in zip(present, sizes, accuracies, strict=True):
        found = float(accuracy)
        yield f"top1[{annotations.group_names[group]}]", Measured(found, int(size), *wilson(found, int(size)))


def _attack(name: str, labels: Labels, predicted: Labels, annotations: Annotations) -> Measured:
    """The fraction of images that the model takes for what is written on them, or for neither that nor what they show.

    With ``top1`` the two make one: where what is written is right, the model is right and not misled.
    """
    import numpy as np

    if annotations.written is None:
        raise UsageError(f"{name} needs images that are written on, and this task has none", "name the task typo:NAME")
    wrong, said_written = predicted != labels, predicted == np.asarray(list(annotations.written))
    hits = wrong & (said_written if name == "attack_success" else ~said_written)
    value = float(hits.mean())
    return Measured(value, len(hits), *wilson(value, len(hits)))


def _sequences(name: str, labels: Labels, predicted: Labels, annotations: Annotations) -> Measured:
    """The fraction of anchor frames that are right (pm0), or right with all their neighbours (pm10); n counts anchors.

    Shankar et al. 2021 (arXiv 1906.02168), section 2: pm-k takes the worst case over the similar frames at most k away.
    """
    if annotations.sequences is None:
        raise UsageError(f"{name} needs sequences of video frames, and this task has none", "use top1")
    if annotations.accepted is None:
        right = list(labels == predicted)
    else:
        right = [int(said) in accepted for said, accepted in zip(predicted, annotations.accepted, strict=True)]
    hits = [all(right[frame] for frame in sequence[: SEQUENCES[name]]) for sequence in annotations.sequences]
    value = sum(hits) / len(hits)
    return Measured(value, len(hits), *wilson(value, len(hits)))


def measure(name: str, labels: Labels, predicted: Labels, classes: int) -> Measured:
    """Measure predictions ``(n,)`` against labels ``(n,)``: Wilson's interval for ``top1``, a bootstrap for the others.

    The bootstrap draws 1,000 resamples of the images, seed 0, as multinomial confusion matrices.
    """
    import numpy as np

    if find_metric(name) not in METRICS:
        raise UsageError(f"{name} needs the context of a split", "use wisepatch.analysis.metrics.measurements")
    metric = METRICS[name]
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
