"""Errors under the common corruptions, relative to another model's (Hendrycks and Dietterich 2019, section 4.2).

The paper's CE of a kind is a model's error over its severities divided by AlexNet's, and mCE the mean over the fifteen kinds.
AlexNet's errors are published for ImageNet alone; for any other task the zero-shot checkpoint stands in, and the measure is called
``error_vs_zeroshot``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.intervals import RESAMPLES
from wisepatch.datasets.corruption_pictures import KINDS, SEVERITIES
from wisepatch.datasets.samples import Annotations
from wisepatch.hookspecs import Measured

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RELATIVE = "error_vs_zeroshot"
# AlexNet's errors in the order of the kinds, of the published code (github.com/hendrycks/robustness).
ALEXNET = (
    0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324, 0.564592, 0.853204,
    0.646056, 0.717840, 0.606500,
)  # fmt: skip


def groups_of(annotations: Annotations) -> tuple[list[int], tuple[str, ...]]:
    """Return the group of each image and the names of the groups: the kinds, or of one kind the severities."""
    corruption = annotations.corruption or ()
    if len({kind for kind, _ in corruption}) > 1:
        return [kind for kind, _ in corruption], KINDS
    return [severity - 1 for _, severity in corruption], tuple(f"severity {level}" for level in SEVERITIES)


def by_group(measure: Any, *data: Any) -> Iterator[tuple[str, Measured]]:
    """Measure the worst kind or severity and each, by the function that measures the worst group and each."""
    *predictions, annotations = data
    groups, names = groups_of(annotations)
    for name, measured in measure(*predictions, replace(annotations, groups=groups, group_names=names)):
        yield ("worst_corruption" if name == "worst_group" else name), measured


def mce(labels: NDArray[Any], predicted: NDArray[Any], _classes: int, annotations: Annotations) -> Measured:
    """Measure mCE: the mean over kinds of the error divided by AlexNet's. The interval is a bootstrap, seed 0."""
    import numpy as np

    kinds = np.array([kind for kind, _ in annotations.corruption or ()])
    counts = _counts(kinds, predicted != labels, np.zeros(len(labels), bool))
    published = np.array(ALEXNET)[np.unique(kinds)]

    def statistic(cells: NDArray[Any]) -> NDArray[np.float64]:
        wrong = cells[:, :, 1].sum(-1) / np.maximum(cells.sum((-2, -1)), 1)
        mean: NDArray[np.float64] = (wrong / published).mean(-1)
        return mean

    return _measured(counts, statistic)


def relative_error(
    right: NDArray[np.bool_], right_zeroshot: NDArray[np.bool_], annotations: Annotations
) -> Measured | None:
    """Measure the mean over kinds of a model's error divided by the zero-shot checkpoint's, on the same images ``(n,)``.

    Below 1 is better than zero-shot. Kinds on which the zero-shot checkpoint makes no error are left out; ``None`` where it makes
    none at all. The interval is a bootstrap of the images of each kind, paired, seed 0.
    """
    import numpy as np

    counts = _counts(np.array(groups_of(annotations)[0]), ~right, ~right_zeroshot)
    counts = counts[counts[:, :, 1].sum(-1) > 0]

    def statistic(cells: NDArray[Any]) -> NDArray[np.float64]:
        wrong, reference = cells[:, :, 1, :].sum(-1), cells[:, :, :, 1].sum(-1)
        ratios = np.divide(wrong, reference, out=np.full(wrong.shape, np.nan), where=reference > 0)
        known = np.isfinite(ratios)
        mean: NDArray[np.float64] = np.nansum(ratios, -1) / np.maximum(known.sum(-1), 1)
        return mean

    return _measured(counts, statistic) if len(counts) else None


def _counts(groups: NDArray[Any], wrong: NDArray[np.bool_], reference: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count images ``(groups, 2, 2)`` by whether a model and the reference are wrong; groups without images are left out."""
    import numpy as np

    present, places = np.unique(groups, return_inverse=True)
    cells = places * 4 + wrong * 2 + reference
    return np.bincount(cells, minlength=4 * len(present)).reshape(-1, 2, 2)


def _measured(counts: NDArray[np.int64], statistic: Any) -> Measured:
    """Return a statistic of counts ``(groups, 2, 2)`` with its 95 % percentile interval; each group keeps its size."""
    import numpy as np

    generator = np.random.default_rng(0)
    drawn = [generator.multinomial(group.sum(), group.ravel() / group.sum(), RESAMPLES) for group in counts]
    low, high = np.quantile(statistic(np.stack(drawn, 1).reshape(RESAMPLES, -1, 2, 2)), [0.025, 0.975])
    return Measured(float(statistic(counts[None])[0]), int(counts.sum()), float(low), float(high))
