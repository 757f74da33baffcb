"""Contact sheets: many small images with a line under each, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wisepatch.datasets.fonts import FONTS, font, has_all, installed_fonts
from wisepatch.progress import harmless

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

COLUMNS = 5
CELL, MARGIN, LINE = 168, 8, 15  # pixels


def contact_sheet(groups: Sequence[tuple[str, Sequence[tuple[Image.Image, Sequence[str]]]]]) -> Image.Image:
    """Draw groups of images, each under its title; an image comes with lines of text. Large images are made smaller."""
    from PIL import Image, ImageDraw

    lines = max((len(text) for _, images in groups for _, text in images), default=1)
    row_height = CELL + lines * LINE + 2 * MARGIN
    heights = [3 * LINE + row_height * -(-len(images) // COLUMNS) for _, images in groups]
    sheet = Image.new("RGB", (COLUMNS * (CELL + MARGIN) + MARGIN, sum(heights) + MARGIN), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for (title, images), height in zip(groups, heights, strict=True):
        _write(pen, (MARGIN, top + MARGIN), title, sheet.width - 2 * MARGIN, FONTS[2], 14, "black")
        for number, (image, text) in enumerate(images):
            left = MARGIN + number % COLUMNS * (CELL + MARGIN)
            y = top + 2 * LINE + MARGIN + number // COLUMNS * row_height
            sheet.paste(_fitted(image), (left, y))
            for index, line in enumerate(text):
                _write(pen, (left, y + CELL + 3 + index * LINE), line, CELL, FONTS[1], 11, "#333333")
        top += height
    return sheet


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, name: str, size: int, color: str
) -> None:
    """Write ``text`` on one line, cut with an ellipsis where it is wider than ``width`` pixels.

    Where the face ``name`` has not all of its letters, an installed one that has.
    """
    line = text = harmless(" ".join(text.split()))
    letters = frozenset(text.replace(" ", ""))
    files = () if has_all(name, text) else [file for _, file in installed_fonts(letters) if has_all(file, text)]
    face = font(next(iter(files), name), size)
    while text and face.getlength(line) > width:
        text = text[:-1]
        line = text + "…"
    pen.text(place, line, color, face)


def _fitted(image: Image.Image) -> Image.Image:
    from PIL import Image

    scale = CELL / max(image.size)
    width, height = (max(round(side * scale), 1) for side in image.size)
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    cell = Image.new("RGB", (CELL, CELL), "#eeeeee")
    cell.paste(image.convert("RGB").resize((width, height), resampling), ((CELL - width) // 2, (CELL - height) // 2))
    return cell
