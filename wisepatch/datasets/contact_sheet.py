"""Contact sheets: many small images with lines of text under each, as one picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from wisepatch.datasets.fonts import FONTS, font, has_all, installed_fonts
from wisepatch.terminal import harmless

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

COLUMNS = 5
CELL, MARGIN, LINE = 168, 8, 15  # pixels
TITLE_LINE = 18
AT_LEAST, AT_MOST = 10, 60  # images of a group that samples all classes


def from_all_classes(labels: Iterable[int], at_least: int = AT_LEAST, at_most: int = AT_MOST) -> list[int]:
    """Return the places of the images to show of a list that is in order of interest: one of each class, then a second of each.

    They are as many as there are classes, but not fewer than ``at_least`` (where there are so many) or more than ``at_most``.
    """
    rounds: list[tuple[int, int]] = []
    seen: dict[int, int] = {}
    for place, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        rounds.append((seen[label], place))
    number = min(max(len(seen), at_least), at_most)
    return [place for _, place in sorted(rounds)[:number]]


def contact_sheet(groups: Sequence[tuple[str, Sequence[tuple[Image.Image, Sequence[str]]]]]) -> Image.Image:
    """Draw groups of images, each under its title; an image comes with lines of text, which are wrapped and never cut.

    Large images are made smaller.
    """
    from PIL import Image, ImageDraw

    width = COLUMNS * (CELL + MARGIN) + MARGIN
    laid = [(_wrapped(title, FONTS[2], 14, width - 2 * MARGIN), list(_rows(images))) for title, images in groups]
    heights = [
        3 * LINE + (len(title[1]) - 1) * TITLE_LINE + sum(CELL + lines * LINE + 2 * MARGIN for lines, _ in rows)
        for title, rows in laid
    ]
    sheet = Image.new("RGB", (width, sum(heights) + MARGIN), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for (title, rows), height in zip(laid, heights, strict=True):
        _write(pen, (MARGIN, top + MARGIN), title, TITLE_LINE, "black")
        y = top + 2 * LINE + MARGIN + (len(title[1]) - 1) * TITLE_LINE
        for lines, cells in rows:
            for number, (image, text) in enumerate(cells):
                left = MARGIN + number * (CELL + MARGIN)
                sheet.paste(_fitted(image), (left, y))
                below = y + CELL + 3
                for part in text:
                    _write(pen, (left, below), part, LINE, "#333333")
                    below += len(part[1]) * LINE
            y += CELL + lines * LINE + 2 * MARGIN
        top += height
    return sheet


Text = tuple["ImageFont.FreeTypeFont | ImageFont.ImageFont", list[str]]  # a face, and lines that fit
Row = tuple[int, list[tuple["Image.Image", list[Text]]]]  # how many lines the longest text has, and the cells


def _rows(images: Sequence[tuple[Image.Image, Sequence[str]]]) -> Iterator[Row]:
    """Lay out images in rows, each as high as its longest text needs."""
    for start in range(0, len(images), COLUMNS):
        cells = [
            (image, [_wrapped(line, FONTS[1], 11, CELL) for line in text])
            for image, text in images[start : start + COLUMNS]
        ]
        yield max(sum(len(lines) for _, lines in text) for _, text in cells), cells


def _wrapped(text: str, name: str, size: int, width: int) -> Text:
    """Break a text into lines of at most ``width`` pixels: between words, beside wide (East Asian) letters, or within a long word.

    Where the face ``name`` has not all of its letters, an installed one that has.
    """
    text = harmless(" ".join(text.split()))
    letters = frozenset(text.replace(" ", ""))
    files = () if has_all(name, text) else [file for _, file in installed_fonts(letters) if has_all(file, text)]
    face = font(next(iter(files), name), size)
    lines = [""]
    for piece in _pieces(text):
        if face.getlength((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
            continue
        if lines[-1]:
            lines.append("")
        for letter in piece if face.getlength(piece.rstrip()) > width else [piece]:
            if lines[-1] and face.getlength(lines[-1] + letter) > width and letter != " ":
                lines.append("")
            lines[-1] += letter
    return face, [line.rstrip() for line in lines]


def _pieces(text: str) -> Iterator[str]:
    """Yield what stays on one line, with the space after it: words, and single wide letters."""
    piece = ""
    for letter in text:
        wide = unicodedata.east_asian_width(letter) in "WF"
        if piece and (wide or piece[-1] == " ") and letter != " ":
            yield piece
            piece = ""
        piece += letter
        if wide:
            yield piece
            piece = ""
    if piece:
        yield piece


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: Text, line_height: int, color: str) -> None:
    face, lines = text
    for number, line in enumerate(lines):
        pen.text((place[0], place[1] + number * line_height), line, color, face)


def _fitted(image: Image.Image) -> Image.Image:
    from PIL import Image

    scale = CELL / max(image.size)
    width, height = (max(round(side * scale), 1) for side in image.size)
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    cell = Image.new("RGB", (CELL, CELL), "#eeeeee")
    cell.paste(image.convert("RGB").resize((width, height), resampling), ((CELL - width) // 2, (CELL - height) // 2))
    return cell
