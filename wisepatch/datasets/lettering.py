"""Words and letters drawn with free fonts that the installed packages carry."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    Font = ImageFont.FreeTypeFont

# Pillow's own face (the empty name), then faces that matplotlib installs.
FONTS = ("", "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono", "STIXGeneral")


@cache
def font(name: str, size: int) -> Font:
    """The face ``name`` of :data:`FONTS` at ``size`` pixels."""
    from importlib.util import find_spec
    from pathlib import Path

    from PIL import ImageFont

    if name:
        spec = find_spec("matplotlib")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("matplotlib, which carries the fonts, is not installed")
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"
        return ImageFont.truetype(str(path), size)
    face = ImageFont.load_default(size)
    if not isinstance(face, ImageFont.FreeTypeFont):
        raise ModuleNotFoundError("this Pillow was built without FreeType: its default font has one size")
    return face


def fitting_font(text: str, name: str, size: int, width: int) -> Font:
    """The face at ``size`` pixels, or at the largest smaller size at which ``text`` is at most ``width`` pixels wide."""
    while size > 1 and font(name, size).getlength(text) > width:
        size -= 1
    return font(name, size)


def text_mask(text: str, face: Font, canvas: int, x: float, y: float) -> Image.Image:
    """An ``L`` image of ``canvas`` x ``canvas`` pixels with ``text`` in white, wholly inside it.

    ``x`` and ``y`` in 0 to 1 place it within the room that is left.
    """
    from PIL import Image, ImageDraw

    left, top, right, bottom = face.getbbox(text)
    image = Image.new("L", (canvas, canvas))
    at = ((canvas - (right - left)) * x - left, (canvas - (bottom - top)) * y - top)
    ImageDraw.Draw(image).text(at, text, fill=255, font=face)
    return image
