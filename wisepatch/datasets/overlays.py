"""Text written on images of any size: in free fonts, wrapped or shrunk to fit, outlined, wholly inside."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.lettering import FONTS, font
from wisepatch.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from wisepatch.datasets.lettering import Font
    from wisepatch.datasets.typography import Style

SMALLEST = 5  # pixels; nothing can be read below
FAR = 70  # between the mean brightness of ink and of what lies under it


def overlay(image: Image.Image, text: str, rng: np.random.Generator, style: Style) -> Image.Image:
    """``text`` written wholly inside a copy of ``image`` (RGB), in a random face, size, colour and place.

    The ink has a one-pixel outline in black or white, whichever is further from it. Text that is too wide is wrapped at
    spaces and hyphens, then shrunk. Raises :class:`DataError` where it fits at no size from 5 pixels up.
    """
    import numpy as np

    ink, size = _fitting_ink(text, image.size, rng, style)
    width, height = size
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    box = (left, top, left + width, top + height)
    weight = np.asarray(ink, dtype=np.float32)
    under = sum(float(np.vdot(np.asarray(channel, np.float32), weight)) for channel in image.crop(box).split())
    color = _far_color(rng, under / max(3 * float(weight.sum()), 1.0))
    outline = 255 if color.mean() < 128 else 0
    result = image.copy()
    result.paste((outline, outline, outline), box, _thickened(ink))
    result.paste(tuple(int(part) for part in color), box, ink)
    return result


def _thickened(ink: Image.Image) -> Image.Image:
    """The ink and one pixel around it: the largest of each 3 x 3 pixels, row by row and then column by column."""
    from PIL import Image, ImageChops

    for x, y in ((1, 0), (0, 1)):
        before, after = (Image.new("L", ink.size) for _ in range(2))
        before.paste(ink, (-x, -y))
        after.paste(ink, (x, y))
        ink = ImageChops.lighter(ink, ImageChops.lighter(before, after))
    return ink


def _far_color(rng: np.random.Generator, under: float) -> np.ndarray[Any, Any]:
    import numpy as np

    while True:
        color = rng.uniform(0, 255, 3).astype(np.float32)
        if abs(float(color.mean()) - under) > FAR:
            return color


def _fitting_ink(
    text: str, room: tuple[int, int], rng: np.random.Generator, style: Style
) -> tuple[Image.Image, tuple[int, int]]:
    """The text as a mask with one empty pixel around the ink, for the outline, no larger than ``room``."""
    from PIL import Image

    faces = [name for name in style.fonts if has_all(name, text)]
    if not faces:
        raise DataError(
            f"no font here has all characters of {text!r}", "name one that has with --font FILE, or other class names"
        )
    name = faces[int(rng.integers(len(faces)))]
    asked = max(round(rng.uniform(style.low, style.high) * min(room)), SMALLEST)
    for size in range(asked, SMALLEST - 1, -1):
        ink = _rendered(text, name, size, room[0] - 2)
        if ink is not None and ink.height + 2 <= room[1]:
            mask = Image.new("L", (ink.width + 2, ink.height + 2))
            mask.paste(ink, (1, 1))
            return mask, mask.size
    raise DataError(
        f"{text!r} fits into {room[0]} x {room[1]} pixels at no size from {SMALLEST} pixels up",
        "take larger images, or a shorter text",
    )


def _rendered(text: str, name: str, size: int, width: int) -> Image.Image | None:
    """The ink of a text and nothing around it, wrapped to ``width`` pixels; ``None`` where a word is wider than that.

    Raises :class:`DataError` for a text without ink, such as a space of no width.
    """
    from PIL import Image, ImageDraw

    face = _face(name, size)
    lines = _wrapped(text, face, width)
    if lines is None:
        return None
    written = "\n".join(lines)
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox(
        (0, 0), written, font=face, align="center", spacing=1
    )
    canvas = Image.new("L", (round(right - left) + 4 * size, round(bottom - top) + 4 * size))
    place = (2 * size - round(left), 2 * size - round(top))
    ImageDraw.Draw(canvas).multiline_text(place, written, fill=255, font=face, align="center", spacing=1)
    box = canvas.getbbox()
    if box is None:
        raise DataError(f"{text!r} has nothing that could be drawn", "write other words, or give other class names")
    return canvas.crop(box) if box[2] - box[0] <= width else None


def _wrapped(text: str, face: Font, width: int) -> list[str] | None:
    """Lines of at most ``width`` pixels, broken at spaces and after ``-`` and ``/``; ``None`` where one piece is wider."""
    words = [re.split(r"(?<=[-/])(?=[^-/])", word) for word in text.split()]
    pieces = [(" " if number == 0 else "", piece) for word in words for number, piece in enumerate(word)]
    lines = [""]
    for space, piece in pieces:
        glue = space if lines[-1] else ""
        if lines[-1] and face.getlength(lines[-1] + glue + piece) > width:
            lines.append(piece)
        else:
            lines[-1] += glue + piece
    return lines if all(face.getlength(line) <= width for line in lines) else None


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
