"""Axes of fractions, in per cent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axis import Axis

ROUNDING = 1e-9


def in_per_cent(*axes: Axis) -> None:
    """Write the fractions along axes in per cent, and mark none below 0 or above 1, where room for markers begins."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    class OfFractions(MaxNLocator):
        def tick_values(self, vmin: float, vmax: float) -> Any:
            ticks = np.asarray(super().tick_values(vmin, vmax))
            return ticks[(ticks >= -ROUNDING) & (ticks <= 1 + ROUNDING)]

    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axis.set_major_locator(OfFractions("auto", steps=[1, 2, 2.5, 5, 10]))  # as matplotlib's default
