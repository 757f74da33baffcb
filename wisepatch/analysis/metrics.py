"""Metrics of predictions, each with a 95 % interval, registered with their direction and what they need of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.corruption_errors import by_group, mce
from wisepatch.analysis.intervals import RESAMPLES, around, bootstrap, clopper_pearson, of_mean, wilson
from wisepatch.datasets.samples import Annotations
from wisepatch.errors import UsageError
from wisepatch.hookspecs import Measured, Metric, Scores, hookimpl
from wisepatch.plugins import find_metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[Any]  # (..., classes, classes): [true, predicted]
    Labels = NDArray[np.int64]
    Values = NDArray[np.float64]
    Marks = NDArray[np.bool_]

NEEDS = {  # field of Annotations: its words, and the next step where a split has none
    "groups": ("groups of images", "use top1"),
    "sequences": ("sequences of video frames", "use top1"),
    "written": ("images that are written on", "name the task typo:NAME"),
    "corruption": ("corrupted images", "name the task corrupt:NAME"),
}
CALIBRATION: dict[str, Any] = {"higher_is_better": False, "needs_scores": True}
TOP, BINS = 5, 15
ATTACK: dict[str, Any] = {"higher_is_better": False, "needs": ("written",)}


@hookimpl
def register_metrics() -> Iterable[Metric]:
    """Register the built-in metrics."""
    return (
        _metric("top1", lambda labels, predicted, *_: _fraction(labels == predicted), label="accuracy"),
        _metric("top5", _top5, label="top-5 accuracy", needs_scores=True),
        _metric("mean_per_class", partial(_of_counts, mean_per_class), label="mean per-class accuracy"),
        _metric("balanced_accuracy", partial(_of_counts, mean_per_class), label="balanced accuracy"),
        _metric("macro_f1", partial(_of_counts, macro_f1), label="macro F1"),
        _metric("macro_f1_present", partial(_of_counts, macro_f1_present), label="macro F1 of the classes present"),
        _metric("ece", _ece, label="expected calibration error", **CALIBRATION),
        _metric("brier", _brier, label="Brier score", is_fraction=False, **CALIBRATION),
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
    metric: str | Metric,
    labels: Labels,
    predicted: Labels,
    classes: int,
    annotations: Annotations | None = None,
    scores: Scores | None = None,
) -> Iterator[tuple[str, Measured]]:
    """Yield ``(metric, measured)``, with ``worst_group`` also the accuracy of each group, ``top1[<group>]``.

    Labels and predicted classes are integers ``(n,)``. Raises :class:`UsageError` where the split lacks what the metric needs, or
    there are no ``scores`` and it needs them.
    """
    metric = find_metric(metric) if isinstance(metric, str) else metric
    annotations = annotations or Annotations()
    if problems := missing_needs(metric, annotations):
        raise problems[0]
    if metric.needs_scores and scores is None:
        raise UsageError(f"{metric.name} needs the scores of the answers", "give wisepatch.Scores, or use top1")
    yield from metric.measure(labels, predicted, classes, annotations, *([scores] if metric.needs_scores else []))


def measure(name: str, labels: Labels, predicted: Labels, classes: int, scores: Scores | None = None) -> Measured:
    """Measure predictions ``(n,)`` against labels ``(n,)`` by a metric that needs nothing else of the images.

    The 95 % interval is Wilson's for fractions of the images, Student's for ``brier``, a bootstrap with seed 0 for the others.
    """
    metric = find_metric(name)
    if metric.needs:
        raise UsageError(f"{name} needs the annotations of a split", "use wisepatch.analysis.metrics.measurements")
    return dict(measurements(metric, labels, predicted, classes, scores=scores))[name]


def _fraction(hits: Marks) -> Measured:
    """Measure the fraction of true values ``(n,)``, with Wilson's interval."""
    value, n = float(hits.mean()), len(hits)
    return Measured(value, n, *wilson(value, n))


def _top5(_labels: Labels, _predicted: Labels, _classes: int, _annotations: Annotations, scores: Scores) -> Measured:
    """Measure the fraction of images whose label is among the five classes with the largest probabilities."""
    return _fraction(scores.rank < TOP)


def _brier(_labels: Labels, _predicted: Labels, _classes: int, _annotations: Annotations, scores: Scores) -> Measured:
    """Average the squared distance between probabilities and label, from 0 to 2 (Brier 1950)."""
    return Measured(float(scores.brier.mean()), len(scores.brier), *of_mean(scores.brier, 0, 2))


def _ece(labels: Labels, predicted: Labels, _classes: int, _annotations: Annotations, scores: Scores) -> Measured:
    """Measure the expected calibration error, with 15 bins of equal width (Guo et al. 2017, equation 3).

    The resamples are normal: the sums of the bins' gaps between confidence and accuracy vary together, as their images do.
    """
    import numpy as np

    n, bins = len(labels), np.minimum((scores.confidence * BINS).astype(int), BINS - 1)
    gaps = scores.confidence.astype(float) - (labels == predicted)
    sums, squares = (np.bincount(bins, each, BINS) for each in (gaps, gaps**2))
    value = float(np.abs(sums).sum() / n)
    spread = np.diag(squares) - np.outer(sums, sums) / n
    errors = np.random.default_rng(0).multivariate_normal(np.zeros(BINS), spread, RESAMPLES, method="eigh")
    low, high = around(value, np.abs(sums + errors).sum(1) / n, value)
    if value <= np.quantile(np.abs(errors).sum(1) / n, 0.975):  # a calibrated model's is no smaller
        low = 0.0
    return Measured(value, n, low, high)


def _of_counts(
    statistic: Callable[[Counts], Values], labels: Labels, predicted: Labels, classes: int, _annotations: Annotations
) -> Measured:
    """Measure a function of the confusion matrix, with a bootstrap interval."""
    import numpy as np

    counts = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    return Measured(float(statistic(counts)), len(labels), *bootstrap(statistic, counts))


def mean_per_class(counts: Counts) -> Values:
    """Average over classes the accuracy on that class; classes without images do not count."""
    return _class_mean(counts, counts.sum(-1), 1.0)


def macro_f1(counts: Counts) -> Values:
    """Average F1 over classes; a class neither present nor predicted does not count (scikit-learn's default labels)."""
    return _class_mean(counts, counts.sum(-1) + counts.sum(-2), 2.0)


def macro_f1_present(counts: Counts) -> Values:
    """Average F1 over the classes that have images, as WILDS measures iWildCam (Koh et al. 2021, appendix)."""
    totals = counts.sum(-1)
    return _class_mean(counts, (totals + counts.sum(-2)) * (totals > 0), 2.0)


def _class_mean(counts: Counts, denominators: Counts, factor: float) -> Values:
    """Average ``factor * hits / denominator`` over the classes whose denominator is not 0."""
    import numpy as np

    hits = factor * np.diagonal(counts, axis1=-2, axis2=-1)
    scores = np.divide(hits, denominators, out=np.full(hits.shape, np.nan), where=denominators > 0)
    mean: Values = np.nanmean(scores, axis=-1)
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
