"""Count things in words."""

from __future__ import annotations


def count(number: int, thing: str, things: str = "") -> str:
    """Return a number with its noun: ``1 image``, ``2 images``; ``things`` is the plural where it has no plain s."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"
