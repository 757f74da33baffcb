"""Paired differences: two models on the same images, image by image.

An image is ``fixed`` where the second model alone is right, ``broken`` where the first alone is; the others of the ``n`` images
tell nothing about the difference of the two accuracies, ``(fixed - broken) / n``, whose negative is the drop. All functions take
counts, and broadcast over arrays of them:

- :func:`mcnemar` ``(fixed, broken)``: the exact p-value of no difference;
- :func:`drop_limit` ``(fixed, broken, n, confidence)``: the one-sided upper limit of the drop;
- :func:`mean_drop_limit` ``(fixed, broken, n, confidence, tasks)``: that of the mean drop of tasks, which are the last axis;
- :func:`difference_interval` ``(fixed, broken, n, confidence)``: the two-sided interval of the difference;
- :func:`images_to_certify` ``(drop, confidence)``: how many images certify a drop, where not one is broken;
- :func:`holm` ``(p_values)``: p-values adjusted for looking at several.

The limits square and add the distances of Clopper and Pearson's exact limits from the fractions that are fixed and broken
(Newcombe 1998, Statistics in Medicine 17:2635, method 10; Zou and Donner 2008, ibid. 27:1693). Without an image that is fixed they
are Clopper and Pearson's own: with not one broken either, the drop is at most ``1 - 0.05 ** (1 / n)``. Of fewer than 20 images,
where squaring and adding errs too often, half of the error is allowed to each of the two fractions (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.intervals import beta_limits
from wisepatch.analysis.same_images import combined

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FEW_IMAGES = 20


def mcnemar(fixed: ArrayLike, broken: ArrayLike) -> Any:
    """Compute the two-sided p-value of McNemar's exact test: both kinds of image are as likely (1947; a binomial test)."""
    import numpy as np
    from scipy.stats import binom

    fixed, broken = np.asarray(fixed), np.asarray(broken)
    return np.minimum(2 * binom.cdf(np.minimum(fixed, broken), fixed + broken, 0.5), 1.0)[()]


def drop_limit(fixed: ArrayLike, broken: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> Any:
    """Compute the one-sided upper confidence limit of the drop in accuracy, a fraction of the ``n`` images."""
    import numpy as np

    tail = 1 - confidence
    fixed, broken, n = np.broadcast_arrays(fixed, broken, n)
    won, lost = fixed / n, broken / n
    above = beta_limits(broken, n, tail)[1] - lost
    below = won - beta_limits(fixed, n, tail)[0]
    spread = (1 - won) * (1 - lost)
    # Fractions of one multinomial sample: what is fixed is not broken.
    correlation = -np.sqrt(np.divide(won * lost, spread, out=np.zeros(spread.shape), where=spread > 0))
    limit = lost - won + np.sqrt(above**2 + below**2 - 2 * correlation * above * below)
    if (few := (n < FEW_IMAGES) & (fixed > 0)).any():
        surely = beta_limits(broken, n, tail / 2)[1] - beta_limits(fixed, n, tail / 2)[0]
        limit = np.where(few, np.maximum(limit, surely), limit)
    return np.minimum(limit, 1.0)[()]


def mean_drop_limit(
    fixed: ArrayLike, broken: ArrayLike, n: ArrayLike, confidence: float = 0.95, tasks: Sequence[str] = ()
) -> Any:
    """Compute the one-sided upper confidence limit of the mean drop of several ``tasks``, by name.

    The last axis is that of the tasks; the distances from the drops to their limits are
    :func:`~wisepatch.analysis.same_images.combined`. Of one task it is that task's limit.
    """
    import numpy as np

    fixed, broken, n = np.broadcast_arrays(fixed, broken, n)
    drops = (broken - fixed) / n
    distances = np.asarray(drop_limit(fixed, broken, n, confidence)) - drops
    return (drops.mean(-1) + combined(distances, tasks) / drops.shape[-1])[()]


def difference_interval(fixed: ArrayLike, broken: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Any, Any]:
    """Compute the two-sided interval of the difference in accuracy, the second model's less the first's."""
    one_sided = (1 + confidence) / 2
    return -drop_limit(fixed, broken, n, one_sided), drop_limit(broken, fixed, n, one_sided)


def mean_difference_interval(
    fixed: ArrayLike, broken: ArrayLike, n: ArrayLike, confidence: float = 0.95, tasks: Sequence[str] = ()
) -> tuple[Any, Any]:
    """Compute the two-sided interval of the mean difference of several ``tasks``, which are the last axis."""
    one_sided = (1 + confidence) / 2
    return -mean_drop_limit(fixed, broken, n, one_sided, tasks), mean_drop_limit(broken, fixed, n, one_sided, tasks)


def images_to_certify(drop: float, confidence: float = 0.95) -> int:
    """Return how many images certify that the drop is at most ``drop``, where none is broken: 299 for one point at 95 %."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-drop))


def holm(p_values: Sequence[float]) -> NDArray[Any]:
    """Adjust p-values ``(m,)`` for looking at all of them (Holm 1979): the chance of one false alarm keeps its level."""
    import numpy as np

    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted
