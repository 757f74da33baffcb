"""Free fonts that the installed packages carry, and the words and letters that pretraining draws with them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from wisepatch.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageFont

    Font = ImageFont.FreeTypeFont

# Pillow's own face (the empty name), then faces that matplotlib installs.
FONTS = ("", "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono", "STIXGeneral")
WORD_FONTS = FONTS[:4]  # those in which the embedded model sees words while it is trained
NORMAL = (400, "normal", "regular")  # weights of a face
PROBE_PIXELS = (5, 12, 33)  # sizes at which a font file is tried: some have a few sizes alone


@cache
def font(name: str, size: int) -> Font:
    """Open the face ``name`` of :data:`FONTS`, or the font file of that path, at ``size`` pixels."""
    from PIL import ImageFont

    if name == "":
        return cast("Font", ImageFont.load_default(size))
    if name in FONTS:
        import matplotlib

        name = f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf"
    return ImageFont.truetype(name, size)


def check_font(path: str) -> None:
    """Raise :class:`UsageError` unless ``path`` is a font file that can be read."""
    from PIL import ImageFont

    try:
        for size in PROBE_PIXELS:
            ImageFont.truetype(path, size)
    except (OSError, ValueError) as error:
        exists = os.path.exists(path)  # noqa: PTH110 -- Path.exists raises an error for a name of 300 characters
        reason = "it is no font that FreeType draws at any size" if exists else "it does not exist"
        raise UsageError(f"the font {path} cannot be used: {reason}", "give a .ttf or .otf file") from error


def has_all(name: str, text: str) -> bool:
    """Tell whether a face has a glyph for every character of ``text`` (Pillow's own face is taken to have printable ASCII)."""
    if name == "":
        return text.isascii() and text.isprintable()
    return all(ord(character) in _glyphs(name) or character.isspace() for character in text)


def fonts_for(text: str, names: Iterable[str]) -> list[str]:
    """Return the faces of ``names`` that can write ``text``. Raises :class:`DataError` where none can."""
    having = [name for name in names if has_all(name, text)]
    if not having:
        hint = "name one that has with typo-attack --font FILE, or give other class names with --classnames"
        raise DataError(f"no font here has all characters of {text!r}", hint)
    return having


@cache
def _glyphs(name: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font(name, 12).path)).get_charmap())


@cache
def installed_fonts(letters: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Return the fonts of this machine that are needed to write ``letters``, each with its family and its file.

    One that has all is alone; where none has, those that have further ones; empty where no font helps. Upright faces alone,
    those of a normal weight and without serifs first.
    """
    from matplotlib.font_manager import findSystemFonts, fontManager
    from matplotlib.ft2font import FT2Font

    if not letters:
        return ()
    listed = {each.fname for each in fontManager.ttflist}
    for file in set(findSystemFonts()) - listed:  # installed after matplotlib made its list
        with suppress(OSError, RuntimeError):
            fontManager.addfont(file)
    # Matplotlib's font of last resort has a box for every letter.
    faces = [each for each in fontManager.ttflist if each.style == "normal" and "Last Resort" not in each.name]
    faces.sort(
        key=lambda face: (face.weight not in NORMAL, "Serif" in face.name, "Mono" in face.name, face.name, face.fname)
    )
    partly: list[tuple[set[str], tuple[str, str]]] = []
    for entry in faces:
        try:
            face = FT2Font(entry.fname)
        except (OSError, RuntimeError):  # listed, and gone or broken
            continue
        have = {letter for letter in letters if ord(letter) in face.get_charmap()} if face.scalable else set()
        if have == letters:
            return ((entry.name, entry.fname),)
        partly.append((have, (entry.name, entry.fname)))
    chosen, lacking = [], set(letters)
    for have, named in sorted(partly, key=lambda each: -len(each[0])):
        if have & lacking:
            chosen.append(named)
            lacking -= have
    return tuple(chosen)


def fitting_font(text: str, name: str, size: int, width: int) -> Font:
    """Open the face at ``size`` pixels, or at the largest smaller size at which ``text`` is at most ``width`` pixels wide."""
    while size > 1 and font(name, size).getlength(text) > width:
        size -= 1
    return font(name, size)


def text_mask(text: str, face: Font, canvas: int, x: float, y: float) -> Image.Image:
    """Draw ``text`` in white, wholly inside an ``L`` image of ``canvas`` x ``canvas`` pixels.

    ``x`` and ``y`` in 0 to 1 place it within the room that is left.
    """
    from PIL import Image, ImageDraw

    left, top, right, bottom = face.getbbox(text)
    image = Image.new("L", (canvas, canvas))
    at = ((canvas - (right - left)) * x - left, (canvas - (bottom - top)) * y - top)
    ImageDraw.Draw(image).text(at, text, fill=255, font=face)
    return image


def write_word(word: str, image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Write ``word`` at a random place, size, face and case, in a colour that stands out, sometimes outlined."""
    name = WORD_FONTS[int(rng.integers(len(WORD_FONTS)))]
    text = word.upper() if rng.random() < 0.25 else word
    face = fitting_font(text, name, int(rng.integers(13, 27)), image.width - 2)
    return _ink(image, text_mask(text, face, image.width, rng.random(), rng.random()), rng)


def write_letter(letter: str, image: Image.Image, rng: np.random.Generator, *, hand: bool = False) -> Image.Image:
    """Write one large letter, turned a little, sometimes as coarse as a scan of 8 x 8 to 16 x 16 pixels.

    With ``hand`` it is also slanted, stretched and thickened or thinned, and more often coarse.
    """
    from PIL import Image, ImageFilter

    size = image.width
    name = FONTS[int(rng.integers(len(FONTS)))]
    text = letter if rng.random() < 0.5 else letter.upper()
    face = fitting_font(text, name, int(rng.integers(30, 68)), size)
    mask = text_mask(text, face, size, rng.random(), rng.random())
    if hand:
        slant, squeeze = rng.uniform(-0.35, 0.35), rng.uniform(0.8, 1.25)
        bend = (squeeze, slant, size / 2 * (1 - squeeze - slant), 0, 1, 0)
        mask = mask.transform(mask.size, Image.Transform.AFFINE, bend, Image.Resampling.BILINEAR)
        pen = rng.random()
        if pen < 0.5:
            mask = mask.filter(ImageFilter.MaxFilter(3) if pen < 0.3 else ImageFilter.MinFilter(3))
    mask = mask.rotate(rng.uniform(-14, 14), Image.Resampling.BILINEAR)
    if rng.random() < (0.6 if hand else 0.4):
        coarse = int(rng.integers(8, 17))
        mask = mask.resize((coarse, coarse), Image.Resampling.BOX).resize((size, size), Image.Resampling.BICUBIC)
    return _ink(image, mask, rng)


def _ink(image: Image.Image, mask: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Paint ``mask`` (``L``) on an image in a colour that stands out, two times in five with an outline."""
    import numpy as np
    from PIL import Image, ImageFilter

    pixels: np.ndarray[Any, Any] = np.asarray(image, dtype=np.float32)
    weight = np.asarray(mask, dtype=np.float32)[..., None] / 255
    under = (pixels * weight).sum((0, 1)) / max(float(weight.sum()), 1.0)
    color = rng.uniform(0, 255, 3)
    while abs((color - under).mean()) <= 70:
        color = rng.uniform(0, 255, 3)
    if rng.random() < 0.4:  # an outline of the opposite brightness, one pixel wide
        edge = np.asarray(mask.filter(ImageFilter.MaxFilter(3)), dtype=np.float32)[..., None] / 255
        pixels = pixels * (1 - edge) + np.float32(255 if color.mean() < 128 else 0) * edge
    mixed = pixels * (1 - weight) + color.astype(np.float32) * weight
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
