"""Contact sheets: many small images with a line under each, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wisepatch.datasets.fonts import FONTS, font

if TYPE_CHECKING:
    from PIL import Image

CELL, MARGIN, LINE = 168, 8, 15  # pixels
TEXT_FONT, TITLE_FONT = FONTS[1], FONTS[2]


def contact_sheet(
    groups: Sequence[tuple[str, Sequence[tuple[Image.Image, Sequence[str]]]]], columns: int = 5
) -> Image.Image:
    """Draw groups of images, each under its title; an image comes with lines of text. Large images are made smaller."""
    from PIL import Image, ImageDraw

    lines = max((len(text) for _, images in groups for _, text in images), default=1)
    row_height = CELL + lines * LINE + 2 * MARGIN
    heights = [3 * LINE + row_height * max(-(-len(images) // columns), 1) for _, images in groups]
    sheet = Image.new("RGB", (columns * (CELL + MARGIN) + MARGIN, sum(heights) + MARGIN), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for (title, images), height in zip(groups, heights, strict=True):
        title = shortened(title, sheet.width - 2 * MARGIN, TITLE_FONT, 14)
        pen.text((MARGIN, top + MARGIN), title, fill="black", font=font(TITLE_FONT, 14))
        for number, (image, text) in enumerate(images):
            left = MARGIN + number % columns * (CELL + MARGIN)
            y = top + 2 * LINE + MARGIN + number // columns * row_height
            sheet.paste(_fitted(image), (left, y))
            for index, line in enumerate(text):
                place = (left, y + CELL + 3 + index * LINE)
                pen.text(place, shortened(line, CELL, TEXT_FONT, 11), fill="#333333", font=font(TEXT_FONT, 11))
        top += height
    return sheet


def shortened(text: str, width: int, name: str, size: int) -> str:
    """Put ``text`` on one line, cut with an ellipsis where it is wider than ``width`` pixels."""
    face, text = font(name, size), " ".join(text.split())
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _fitted(image: Image.Image) -> Image.Image:
    """Fit the image into a square cell, small ones in whole pixels."""
    from PIL import Image

    scale = CELL / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    cell = Image.new("RGB", (CELL, CELL), "#eeeeee")
    cell.paste(image.convert("RGB").resize(size, resampling), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell
