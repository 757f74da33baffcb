"""Write measurements as people read them: per cent with one decimal, intervals, points of difference, p-values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wisepatch.plugins import registry


def percent(value: float | None) -> str:
    """Write a fraction in per cent, with one decimal; ``-`` for none and for NaN."""
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def measured(row: Mapping[str, Any], column: str = "value") -> str:
    """Write a column of a measurement in per cent, or as it is where the metric is no fraction."""
    value = row.get(column)
    if value is None or value != value or is_fraction(row.get("metric")):
        return percent(value)
    return f"{value:.3f}"


def is_fraction(metric: object) -> bool:
    """Tell whether a metric, also one of a group such as ``top1[fog]``, is a fraction; one that nobody knows is."""
    known = registry().all("register_metrics").get(str(metric).partition("[")[0])
    return known is None or known.is_fraction


def with_interval(row: Mapping[str, Any]) -> str:
    """Write a measurement with its 95 % interval, where it has one."""
    low = row.get("ci_low")
    if low is None or low != low:
        return measured(row)
    return f"{measured(row)} ({measured(row, 'ci_low')} to {measured(row, 'ci_high')})"


def points(value: float, low: float, high: float) -> str:
    """Write a difference of two fractions in points, with its interval."""
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def p_value(p: float) -> str:
    """Write a p-value with two digits."""
    return f"{p:.2g}" if p < 0.0995 else f"{p:.2f}"
