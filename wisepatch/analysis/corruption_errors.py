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
from wisepatch.datasets.corruption_parameters import KINDS, SEVERITIES
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
    """Measure mCE: the mean over kinds of the error divided by AlexNet's; kinds without images are left out."""
    import numpy as np

    present, places, sizes = np.unique(
        [kind for kind, _ in annotations.corruption or ()], return_inverse=True, return_counts=True
    )
    wrong = np.bincount(places, predicted != labels)
    scale = np.array(ALEXNET)[present] * sizes
    drawn = np.random.default_rng(0).binomial(sizes, wrong / sizes, (RESAMPLES, len(present)))
    return _measured(float((wrong / scale).mean()), len(labels), (drawn / scale).mean(1))


def relative_error(right: NDArray[np.bool_], right_zeroshot: NDArray[np.bool_]) -> Measured | None:
    """Measure a model's error divided by the zero-shot checkpoint's, on the same images ``(n,)``; below 1 is better.

    Of the errors over all kinds: with few images the ratio of one kind is often undefined, and so is the paper's mean of
    ratios. The interval is a paired bootstrap, seed 0. ``None`` where the zero-shot checkpoint makes no error.
    """
    import numpy as np

    if right_zeroshot.all():
        return None
    cells = np.bincount(~right * 2 + ~right_zeroshot, minlength=4)
    drawn = np.random.default_rng(0).multinomial(len(right), cells / len(right), RESAMPLES)
    wrong, reference = drawn[:, 2] + drawn[:, 3], drawn[:, 1] + drawn[:, 3]
    ratios = wrong[reference > 0] / reference[reference > 0]
    return _measured(float((~right).sum() / (~right_zeroshot).sum()), len(right), ratios)


def _measured(value: float, n: int, resampled: NDArray[np.float64]) -> Measured:
    """Return a value with the 95 % percentile interval of its resamples."""
    import numpy as np

    low, high = np.quantile(resampled, [0.025, 0.975])
    return Measured(value, n, float(low), float(high))
