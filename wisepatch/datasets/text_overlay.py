"""Text written on images of any size: in free fonts, wrapped or shrunk to fit, outlined, wholly inside."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.fonts import font, fonts_for
from wisepatch.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from wisepatch.datasets.fonts import Font
    from wisepatch.datasets.typography import Style

    Box = tuple[int, int, int, int]  # left, top, right, bottom
    Masks = tuple[Image.Image, Image.Image]  # the coverage of letters alone, and with their outline: L, of one size

MIN_PIXELS = 5  # height of letters; nothing can be read below
MIN_CONTRAST = 70  # of 255, between the mean brightness of the letters and of what lies under them
BRIGHTNESS_PROBES = (64, 64)  # columns and rows of what lies under the text that are looked at
SIZE_STEPS = 24  # large letters come in sizes about this part of themselves apart, as a font is opened for each
CACHED_TEXTS, MAX_CACHED_PIXELS = 1024, 2**15  # two masks each: 64 MiB
LAYOUT: dict[str, Any] = {"align": "center", "spacing": 1, "stroke_width": 1}


def overlay(image: Image.Image, text: str, rng: np.random.Generator, style: Style) -> Image.Image:
    """Write ``text`` wholly inside a copy of ``image`` (RGB), in a random face, size, colour and place.

    The letters have a one-pixel outline in black or white, whichever is further from their colour. Text that is too wide is
    wrapped at spaces and hyphens, then shrunk. Raises :class:`DataError` where it fits at no size from 5 pixels up.
    """
    import numpy as np
    from PIL.Image import Resampling

    letters, outlined = _fitted(text, image.size, rng, style)
    left, top = (int(rng.integers(free + 1)) for free in np.subtract(image.size, letters.size))
    box = (left, top, left + letters.width, top + letters.height)
    under = float(np.asarray(image.resize(BRIGHTNESS_PROBES, Resampling.NEAREST, box)).mean())
    color = rng.integers(0, 256, 3)
    while abs(color.sum() / 3 - under) <= MIN_CONTRAST:
        color = rng.integers(0, 256, 3)
    result = image.copy()
    result.paste("white" if color.mean() < 128 else "black", box, outlined)
    result.paste(tuple(color.tolist()), box, letters)
    return result


def _fitted(text: str, room: tuple[int, int], rng: np.random.Generator, style: Style) -> Masks:
    """Draw ``text`` no larger than ``room``, in lines where it must be."""
    from PIL import Image, ImageDraw

    names = fonts_for(text, style.fonts)
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    name = names[int(rng.integers(len(names)))]
    size = max(round(rng.uniform(style.low, style.high) * min(room)), MIN_PIXELS)
    size -= size % max(size // SIZE_STEPS, 1)
    while size >= MIN_PIXELS:
        face = font(name, size)
        lines, length = _wrapped(text, face, room[0] - 2)
        if length > room[0] - 2:
            # Skip the sizes that are surely too large: hinting changes lengths by less than a tenth.
            size = min(size - 1, int(1.1 * size * max(room[0] - 2, 0) / length))
            continue
        left, top, right, bottom = pen.textbbox((0, 0), lines, face, **LAYOUT)
        box = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
        width, height = box[2] - box[0], box[3] - box[1]
        if width <= room[0] and height <= room[1]:
            draw = _masks if width * height <= MAX_CACHED_PIXELS else _masks.__wrapped__
            return draw(name, size, lines, box)
        size -= 1
    problem = f"{text!r} fits into {room[0]} x {room[1]} pixels at no size from {MIN_PIXELS} pixels up"
    raise DataError(problem, "take larger images, or a shorter text")


def _wrapped(text: str, face: Font, width: int) -> tuple[str, float]:
    """Break ``text`` at spaces, and after ``-`` and ``/``, into lines of at most ``width`` pixels where that is possible.

    Returns the lines and the length of the longest.
    """
    lines = [""]
    for word in text.split():
        for number, piece in enumerate(re.split(r"(?<=[-/])(?=[^-/])", word)):
            longer = f"{lines[-1]} {piece}" if number == 0 and lines[-1] else lines[-1] + piece
            if lines[-1] and face.getlength(longer) > width:
                lines.append(piece)
            else:
                lines[-1] = longer
    return "\n".join(lines), max(map(face.getlength, lines))


@lru_cache(CACHED_TEXTS)
def _masks(name: str, size: int, lines: str, box: Box) -> Masks:
    from PIL import Image, ImageDraw

    left, top, right, bottom = box
    canvas = Image.new("RGB", (right - left, bottom - top))
    pen = ImageDraw.Draw(canvas)
    pen.text((-left, -top), lines, (255, 255, 0), font(name, size), stroke_fill=(255, 0, 0), **LAYOUT)
    outlined, letters, _ = canvas.split()
    if letters.getbbox() is None:
        raise DataError(f"{lines!r} has nothing that could be drawn", "write other words, or give other class names")
    return letters, outlined
