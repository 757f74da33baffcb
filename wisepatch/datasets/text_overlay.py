"""Text written on images of any size: in free fonts, wrapped or shrunk to fit, outlined, wholly inside."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from threading import RLock
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache, cached

from wisepatch.datasets.fonts import FONTS, font
from wisepatch.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from wisepatch.datasets.fonts import Font
    from wisepatch.datasets.typography import Style

    Drawn = tuple[Image.Image, Image.Image]  # masks of one size: the ink, and the ink with its outline

SMALLEST = 5  # pixels; nothing can be read below
FAR = 70  # between the mean brightness of ink and of what lies under it
PROBES = 64  # rows and columns of what lies under the ink that are looked at, at most
KEPT = 64 * 2**20  # bytes of drawn words that are kept, as the same come again and again
SIZES = 24  # large letters come in sizes that differ by about this part of themselves


def overlay(image: Image.Image, text: str, rng: np.random.Generator, style: Style) -> Image.Image:
    """``text`` written wholly inside a copy of ``image`` (RGB), in a random face, size, colour and place.

    The ink has a one-pixel outline in black or white, whichever is further from it. Text that is too wide is wrapped at
    spaces and hyphens, then shrunk. Raises :class:`DataError` where it fits at no size from 5 pixels up.
    """
    import numpy as np

    ink, around = _fitting_ink(text, image.size, rng, style)
    left, top = int(rng.integers(image.width - ink.width + 1)), int(rng.integers(image.height - ink.height + 1))
    box = (left, top, left + ink.width, top + ink.height)
    color = _far_color(rng, _brightness(image, ink, box))
    outline = 255 if sum(color) < 3 * 128 else 0
    # From the outline (no ink) to the colour (full ink), in one paste: as a palette, it costs a table.
    shades = outline + np.outer(np.arange(256) / 255, np.asarray(color) - outline)
    painted = ink.copy()
    painted.putpalette(shades.astype(np.uint8).tobytes())
    result = image.copy()
    result.paste(painted.convert("RGB"), box, around)
    return result


def _brightness(image: Image.Image, ink: Image.Image, box: tuple[int, int, int, int]) -> float:
    """The mean brightness of ``image`` under the ink in ``box``, by its coverage, at up to 64 x 64 places."""
    import numpy as np
    from PIL import Image

    size = (min(ink.width, PROBES), min(ink.height, PROBES))
    weight = np.asarray(ink.resize(size, Image.Resampling.NEAREST), np.float32)
    under = np.asarray(image.resize(size, Image.Resampling.NEAREST, box=box))
    red, green, blue = (under[..., channel].astype(np.float32) for channel in range(3))
    return float(np.vdot(weight, red + green + blue) / (3 * max(float(weight.sum()), 1.0)))


def _thickened(coverage: np.ndarray[Any, Any]) -> Image.Image:
    """The ink and one pixel around it: the largest of each 3 x 3 pixels. The ink leaves its first and last pixels empty."""
    import numpy as np
    from PIL import Image

    wide = coverage.copy()
    np.maximum(wide[:, 1:], coverage[:, :-1], out=wide[:, 1:])
    np.maximum(wide[:, :-1], coverage[:, 1:], out=wide[:, :-1])
    high = wide.copy()
    np.maximum(high[1:], wide[:-1], out=high[1:])
    np.maximum(high[:-1], wide[1:], out=high[:-1])
    return Image.fromarray(high)


def _far_color(rng: np.random.Generator, under: float) -> list[float]:
    while True:
        color: list[float] = rng.uniform(0, 255, 3).tolist()
        if abs(sum(color) / 3 - under) > FAR:
            return color


def _fitting_ink(text: str, room: tuple[int, int], rng: np.random.Generator, style: Style) -> Drawn:
    """The text as it is drawn, no larger than ``room``."""
    faces = [name for name in style.fonts if has_all(name, text)]
    if not faces:
        raise DataError(
            f"no font here has all characters of {text!r}", "name one that has with --font FILE, or other class names"
        )
    name = faces[int(rng.integers(len(faces)))]
    size = max(round(rng.uniform(style.low, style.high) * min(room)), SMALLEST)
    size -= size % max(size // SIZES, 1)  # few sizes, as each is opened once
    width = room[0] - 2
    while size >= SMALLEST:
        lines = [" ".join(text.split())]
        if _length(name, size, lines[0]) > width:
            pieces = _pieces(text)
            widest = max(_length(name, size, piece) for _, piece in pieces)
            if widest > width:
                # On, past the sizes that are surely too large: hinting moves lengths by less than a tenth.
                size = min(size - 1, int(1.1 * size * max(width, 0) / widest))
                continue
            lines = _wrapped(pieces, name, size, width)
        drawn = _drawn(name, size, "\n".join(lines))
        if drawn[0].width <= room[0] and drawn[0].height <= room[1]:
            return drawn
        size -= 1
    raise DataError(
        f"{text!r} fits into {room[0]} x {room[1]} pixels at no size from {SMALLEST} pixels up",
        "take larger images, or a shorter text",
    )


@cached(LRUCache(KEPT, getsizeof=lambda drawn: 2 * drawn[0].width * drawn[0].height), lock=RLock())
def _drawn(name: str, size: int, text: str) -> Drawn:
    """The ink of some lines with one empty pixel around it; kept, so not to be changed.

    Raises :class:`DataError` for a text without ink, such as a space of no width.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    lines = text.split("\n")
    width, margin = int(max(_length(name, size, line) for line in lines)), size
    while True:
        canvas = Image.new("L", (width + 2 * margin, 2 * size * len(lines) + 2 * margin))
        ImageDraw.Draw(canvas).text((margin, margin), text, 255, _face(name, size), align="center", spacing=1)
        box = canvas.getbbox()
        if box is None:
            raise DataError(f"{text!r} has nothing that could be drawn", "write other words, or give other class names")
        if min(box[:2]) > 0 and box[2] < canvas.width and box[3] < canvas.height:
            ink = canvas.crop((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1))
            return ink, _thickened(np.asarray(ink))
        margin *= 4  # stacked marks reach further than anything that a face says of itself


@lru_cache(2**16)
def _length(name: str, size: int, text: str) -> float:
    return _face(name, size).getlength(text)


def _pieces(text: str) -> list[tuple[str, str]]:
    """What may not be broken, each with what stands before it on one line: a space, or nothing after ``-`` and ``/``."""
    words = [re.split(r"(?<=[-/])(?=[^-/])", word) for word in text.split()]
    return [(" " if number == 0 else "", piece) for word in words for number, piece in enumerate(word)]


def _wrapped(pieces: list[tuple[str, str]], name: str, size: int, width: int) -> list[str]:
    """Lines of at most ``width`` pixels, of pieces that are no wider."""
    lines = [""]
    for space, piece in pieces:
        longer = lines[-1] + space + piece if lines[-1] else piece
        if lines[-1] and _length(name, size, longer) > width:
            lines.append(piece)
        else:
            lines[-1] = longer
    return lines


@cache
def _face(name: str, size: int) -> Font:
    from PIL import ImageFont

    return font(name, size) if name in FONTS else ImageFont.truetype(name, size)


@cache
def has_all(name: str, text: str) -> bool:
    """Whether a face has a glyph for every character of ``text`` (Pillow's own face is taken to have printable ASCII)."""
    if name == "":
        return text.isascii() and text.isprintable()
    from matplotlib.ft2font import FT2Font

    known = FT2Font(str(_face(name, 12).path)).get_charmap()
    return all(ord(character) in known or character.isspace() for character in text)
