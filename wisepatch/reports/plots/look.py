"""Set how a picture looks: size, colours that the colour-blind tell apart, fonts of a paper, a dark ground."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from wisepatch.errors import UsageError

SCREEN_WIDTH, SCREEN_FONT = 7.2, 9.5  # inches, points
COLUMN_WIDTH, PAGE_WIDTH, PAPER_FONT = 3.35, 6.9, 8.0  # of papers with two columns a page
PER_INCH = {"in": 1.0, "cm": 2.54, "px": 144.0}
DPI = 144
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*[xX*×]\s*(\d+(?:\.\d+)?)\s*(in|cm|px)?")  # noqa: RUF001 -- people write it
SMALLEST, LARGEST = 1.5, 60.0  # inches
# Okabe and Ito's colours, which people with any colour vision tell apart; on a dark ground the dark ones are last.
LIGHT_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#4A4A4A")
DARK_COLORS = ("#56B4E9", "#E69F00", "#2FC497", "#E39AC4", "#F0E442", "#FF7F3F", "#C8C8C8")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def marker_of(number: int, colors: int) -> str:
    """Return the marker of a curve by its number; those that share one of so many ``colors`` have different ones."""
    return MARKERS[(number + number // colors) % len(MARKERS)]


class Theme(NamedTuple):
    """Colours of the ground, of text, of what stands back, of the grid, and of curves."""

    ground: str
    ink: str
    muted: str
    grid: str
    colors: tuple[str, ...]


LIGHT = Theme("#ffffff", "#1a1a1a", "#5c5c5c", "#dedede", LIGHT_COLORS)
DARK = Theme("#14171c", "#ececec", "#a8adb5", "#363c46", DARK_COLORS)


@dataclass(frozen=True)
class Look:
    """Settings of a picture: ``size`` in inches (a kind's own without one), and what names are called in it (``labels``).

    With ``paper`` it has the width of a column (of a page where it has panels), a serif font at 8 points, and no title but one
    that is given.
    """

    size: tuple[float, float] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    paper: bool = False
    dark: bool = False

    @property
    def theme(self) -> Theme:
        """Return the colours."""
        return DARK if self.dark else LIGHT

    @property
    def families(self) -> tuple[str, str]:
        """Return the font family, and the file of its face."""
        return ("STIXGeneral", "STIXGeneral") if self.paper else ("DejaVu Sans", "DejaVuSans")

    def width(self, *, panels: bool) -> float:
        """Return the width in inches."""
        if self.size:
            return self.size[0]
        return (PAGE_WIDTH if panels else COLUMN_WIDTH) if self.paper else SCREEN_WIDTH

    def font(self, width: float, height: float) -> float:
        """Return the size of letters, in points, for a picture of that many inches: a small picture has smaller ones."""
        if self.paper:
            return PAPER_FONT if min(width, height) >= 2 else PAPER_FONT - 1.5
        if not self.size:
            return SCREEN_FONT
        return SCREEN_FONT * min(max(math.sqrt(width * height / (SCREEN_WIDTH * 5.6)), 0.68), 2.0)


def parse_size(text: str) -> tuple[float, float]:
    """Read ``7x5`` (inches), ``18x12cm`` or ``1200x800px`` (144 an inch) as inches. Raises :class:`UsageError`."""
    match = SIZE.fullmatch(text.strip().lower())
    hint = "write 7x5 (inches), 18x12cm or 1200x800px"
    if not match:
        raise UsageError(f"{text!r} is no size", hint)
    width, height = (float(match[side]) / PER_INCH[match[3] or "in"] for side in (1, 2))
    if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
        wrong = "small" if min(width, height) < SMALLEST else "large"
        reason = f"a picture of {width:g} x {height:g} inches is too {wrong}"
        raise UsageError(reason, f"between {SMALLEST:g} and {LARGEST:g} inches a side; {hint}")
    return width, height


def parse_labels(words: list[str]) -> dict[str, str]:
    """Read ``NAME=TEXT`` words: what a run, task or class is called in the picture. Raises :class:`UsageError`."""
    labels = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--label {word!r} does not say what is called so", "write --label NAME=TEXT")
        labels[name] = text
    return labels


def grid(panels: int, across: int) -> tuple[int, int]:
    """Return rows and columns for some panels, at most ``across`` beside each other, with as few places empty as can be."""
    rows = -(-panels // across)
    return rows, -(-panels // rows)


def luminance(color: str) -> float:
    """Return the relative luminance of ``#rrggbb``, from 0 to 1, as contrast is measured by (WCAG 2.2)."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(share * channel for share, channel in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Return the contrast between two colours, from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
