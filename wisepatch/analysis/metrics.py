"""Metrics of predictions, each with a 95 % interval, registered with their direction and what they need of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.corruption_errors import by_group, mce
from wisepatch.analysis.intervals import bootstrap, clopper_pearson, wilson
from wisepatch.datasets.samples import Annotations
from wisepatch.errors import UsageError
from wisepatch.hookspecs import Measured, Metric, hookimpl
from wisepatch.plugins import find_metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]  # (..., classes, classes): [true, predicted]
    Labels = NDArray[np.int64]
    Scores = NDArray[np.float64]

NEEDS = {  # field of Annotations: its words, and the next step where a split has none
    "groups": ("groups of images", "use top1"),
    "sequences": ("sequences of video frames", "use top1"),
    "written": ("images that are written on", "name the task typo:NAME"),
    "corruption": ("corrupted images", "name the task corrupt:NAME"),
}
ATTACK: dict[str, Any] = {"higher_is_better": False, "needs": ("written",)}


@hookimpl
def register_metrics() -> Iterable[Metric]:
    """Register the built-in metrics."""
    return (
        _metric("top1", lambda labels, predicted, *_: _fraction(labels == predicted), label="accuracy"),
        _metric("mean_per_class", partial(_of_counts, mean_per_class), label="mean per-class accuracy"),
        _metric("macro_f1", partial(_of_counts, macro_f1), label="macro F1"),
        _metric("macro_f1_present", partial(_of_counts, macro_f1_present), label="macro F1 of the classes present"),
        Metric("worst_group", _worst_group, needs=("groups",), label="accuracy of the worst group"),
        _metric("pm0", partial(_sequences, 1), needs=("sequences",)),
        _metric("pm10", partial(_sequences, None), needs=("sequences",)),
        _metric("attack_success", partial(_mistakes, True), **ATTACK, label="says what is written"),
        _metric("neither", partial(_mistakes, False), **ATTACK),
        Metric(
            "worst_corruption",
            partial(by_group, _worst_group),
            needs=("corruption",),
            label="accuracy under the worst corruption",
        ),
        _metric("mce", mce, higher_is_better=False, needs=("corruption",), label="mCE"),
    )


def _metric(name: str, measure: Callable[..., Measured], **row: Any) -> Metric:
    """Make a metric of one value."""
    return Metric(name, lambda *data: [(name, measure(*data))], **row)


def missing_needs(metric: Metric, annotations: Annotations) -> list[UsageError]:
    """List, as errors to raise or to collect, what a metric needs of a split and the split's annotations do not have."""
    missing = [NEEDS.get(field, (field, "use top1")) for field in metric.needs if not _has(annotations, field)]
    return [UsageError(f"{metric.name} needs {words}, and this task has none", hint) for words, hint in missing]


def _has(annotations: Annotations, field: str) -> bool:
    values = getattr(annotations, field, None)
    if field == "groups" and values is not None:  # -1: the image belongs to none
        values = [group for group in values if 0 <= group < len(annotations.group_names)]
    return values is not None and len(values) > 0


def measurements(
    metric: str | Metric, labels: Labels, predicted: Labels, classes: int, annotations: Annotations | None = None
) -> Iterator[tuple[str, Measured]]:
    """Yield ``(metric, measured)``, with ``worst_group`` also the accuracy of each group, ``top1[<group>]``.

    Labels and predicted classes are integers ``(n,)``. Raises :class:`UsageError` where the split lacks what the metric needs.
    """
    metric = find_metric(metric) if isinstance(metric, str) else metric
    annotations = annotations or Annotations()
    if problems := missing_needs(metric, annotations):
        raise problems[0]
    yield from metric.measure(labels, predicted, classes, annotations)


def measure(name: str, labels: Labels, predicted: Labels, classes: int) -> Measured:
    """Measure predictions ``(n,)`` against labels ``(n,)`` by a metric that needs nothing else.

    The 95 % interval is Wilson's for ``top1``, a bootstrap with seed 0 for the other built-in ones.
    """
    metric = find_metric(name)
    if metric.needs:
        raise UsageError(f"{name} needs the annotations of a split", "use wisepatch.analysis.metrics.measurements")
    return dict(measurements(metric, labels, predicted, classes))[name]


def _fraction(hits: Labels) -> Measured:
    """Measure the fraction of true values ``(n,)``, with Wilson's interval."""
    value, n = float(hits.mean()), len(hits)
    return Measured(value, n, *wilson(value, n))


def _of_counts(
    statistic: Callable[[Counts], Scores], labels: Labels, predicted: Labels, classes: int, _annotations: Annotations
) -> Measured:
    """Measure a function of the confusion matrix, with a bootstrap interval."""
    import numpy as np

    counts = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    return Measured(float(statistic(counts)), len(labels), *bootstrap(statistic, counts))


def mean_per_class(counts: Counts) -> Scores:
    """Average over classes the accuracy on that class; classes without images do not count."""
    return _class_mean(counts, counts.sum(-1), 1.0)


def macro_f1(counts: Counts) -> Scores:
    """Average F1 over classes; a class neither present nor predicted does not count (scikit-learn's default labels)."""
    return _class_mean(counts, counts.sum(-1) + counts.sum(-2), 2.0)


def macro_f1_present(counts: Counts) -> Scores:
    """Average F1 over the classes that have images, as WILDS measures iWildCam (Koh et al. 2021, appendix)."""
    totals = counts.sum(-1)
    return _class_mean(counts, (totals + counts.sum(-2)) * (totals > 0), 2.0)


def _class_mean(counts: Counts, denominators: Counts, factor: float) -> Scores:
    """Average ``factor * hits / denominator`` over the classes whose denominator is not 0."""
    import numpy as np

    hits = factor * np.diagonal(counts, axis1=-2, axis2=-1)
    scores = np.divide(hits, denominators, out=np.full(hits.shape, np.nan), where=denominators > 0)
    mean: Scores = np.nanmean(scores, axis=-1)
    return mean


def _worst_group(
    labels: Labels, predicted: Labels, _classes: int, annotations: Annotations
) -> Iterator[tuple[str, Measured]]:
    """Measure the lowest accuracy among the groups that have images, then that of each (WILDS, worst region of FMoW).

    Its interval comes from simultaneous Clopper-Pearson intervals of all groups (Bonferroni): the minimum of a sample is biased
    low, and so is a bootstrap of it.
    """
    import numpy as np

    groups, right = np.asarray(annotations.groups), labels == predicted
    hits = {name: right[groups == g] for g, name in enumerate(annotations.group_names) if (groups == g).any()}
    rows = {f"top1[{name}]": _fraction(of_group) for name, of_group in hits.items()}
    confidence = 1 - 0.05 / len(hits)
    intervals = [clopper_pearson(int(of_group.sum()), len(of_group), confidence) for of_group in hits.values()]
    low, high = (min(bounds) for bounds in zip(*intervals, strict=True))
    worst = min(rows.values(), key=lambda row: row.value)
    yield "worst_group", Measured(worst.value, worst.n, low, high)
    yield from rows.items()


def _sequences(
    frames: int | None, labels: Labels, predicted: Labels, _classes: int, annotations: Annotations
) -> Measured:
    """Measure the fraction of anchor frames that are right (pm0), or right with all their neighbours (pm10); n counts anchors.

    The first ``frames`` of each sequence count, the anchor first (``None``: all). Shankar et al. 2021 (arXiv 1906.02168),
    section 2: pm-k takes the worst case over the similar frames at most k away.
    """
    import numpy as np

    right = labels == predicted
    if annotations.accepted is not None:
        right = np.array([label in row for label, row in zip(predicted.tolist(), annotations.accepted, strict=True)])
    return _fraction(np.array([right[list(row[:frames])].all() for row in annotations.sequences or ()]))


def _mistakes(as_written: bool, labels: Labels, predicted: Labels, _classes: int, annotations: Annotations) -> Measured:
    """Measure the fraction of images that are taken for what is written on them and not shown, or else for neither."""
    import numpy as np

    written = np.asarray(annotations.written)
    return _fraction((predicted != labels) & ((predicted == written) == as_written))
