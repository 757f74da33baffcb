"""Write measurements as people read them: per cent with one decimal, intervals, points of difference, p-values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def percent(value: float | None) -> str:
    """Write a fraction in per cent, with one decimal; ``-`` for none and for NaN."""
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def with_interval(row: Mapping[str, Any]) -> str:
    """Write a measurement in per cent with its 95 % interval, where it has one."""
    low = row.get("ci_low")
    if low is None or low != low:
        return percent(row.get("value"))
    return f"{percent(row['value'])} ({percent(low)} to {percent(row['ci_high'])})"


def points(value: float, low: float, high: float) -> str:
    """Write a difference of two fractions in points, with its interval."""
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def p_value(p: float) -> str:
    """Write a p-value with two digits."""
    return f"{p:.2g}" if p < 0.0995 else f"{p:.2f}"
