"""Measure how close a patched model comes to the optimum (PAINT, sections 4 and 5), and which alphas nothing else beats.

With accuracies as fractions, ``theta_0`` the zero-shot and ``theta_1`` the fine-tuned model:

- ``to_finetuned``: what is lost on the patching task, ``patching(theta_1) - patching(theta)``;
- ``to_zeroshot``: what is lost on the supported tasks, ``supported(theta_0) - supported(theta)``;
- ``to_optimal``: their mean, PAINT's accuracy distance to optimal, which is the fine-tuned model's accuracy on the patching task
  together with the zero-shot model's on the supported tasks;
- ``on_frontier``: no other alpha is at least as good on both and better on one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class PatchingMeasures(NamedTuple):
    """The measures of each alpha ``(n,)``; distances are negative where a mix is better than an end."""

    to_finetuned: NDArray[np.float64]
    to_zeroshot: NDArray[np.float64]
    to_optimal: NDArray[np.float64]
    on_frontier: NDArray[np.bool_]


def patching_measures(alphas: ArrayLike, patching: ArrayLike, supported: ArrayLike) -> PatchingMeasures:
    """Measure a sweep by its scores ``(n,)``, better when higher, on the patching task and averaged over the supported ones.

    Distances are NaN where the end that they are measured from was not (alpha 1, alpha 0), or without supported tasks.
    """
    import numpy as np

    alphas, patching, supported = (np.asarray(each, float) for each in (alphas, patching, supported))
    best = _at(1.0, alphas, patching), _at(0.0, alphas, supported)
    to_finetuned, to_zeroshot = best[0] - patching, best[1] - supported
    return PatchingMeasures(
        to_finetuned, to_zeroshot, (to_finetuned + to_zeroshot) / 2, frontier(patching, supported)
    )  # fmt: skip


def _at(alpha: float, alphas: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    import numpy as np

    found = scores[alphas == alpha]
    return float(found[-1]) if len(found) else np.nan


def frontier(patching: ArrayLike, supported: ArrayLike) -> NDArray[np.bool_]:
    """Mark the points that no other is at least as good as on both axes and better than on one (the Pareto frontier).

    Without supported scores (all NaN) it is the best on the patching task. A point with NaN is never on it.
    """
    import numpy as np

    patching, supported = np.asarray(patching, float), np.asarray(supported, float)
    if np.isnan(supported).all():
        supported = np.zeros_like(patching)
    points = np.stack([patching, supported])  # (2, n)
    mine, other = points[:, :, None], points[:, None, :]
    beaten: NDArray[np.bool_] = np.all(other >= mine, axis=0) & np.any(other > mine, axis=0)
    dominated = np.any(beaten, axis=1)
    return np.asarray(~dominated & ~np.isnan(patching) & ~np.isnan(supported))
