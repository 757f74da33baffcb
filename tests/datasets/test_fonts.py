"""Fonts: files that are none, and words and letters whose bytes the embedded model was trained on."""

import hashlib

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import features

from wisepatch.datasets.drawn_shapes import SHAPES, Scene, draw, generator
from wisepatch.datasets.fonts import installed_fonts, write_letter, write_word
from wisepatch.datasets.typography import Style
from wisepatch.errors import UsageError


def test_file_that_is_no_font_says_so(tmp_path):
    (tmp_path / "letter.ttf").write_text("Dear font")
    for path in (tmp_path / "letter.ttf", tmp_path):
        with pytest.raises(
            UsageError, match=r"cannot be used: it is no font that FreeType draws at any size"
        ) as caught:
            Style(fonts=(str(path),))
        assert str(path) in caught.value.message
        assert caught.value.hint == "give a .ttf or .otf file"


def test_font_file_with_a_name_of_300_characters_does_not_exist():
    with pytest.raises(UsageError, match="cannot be used: it does not exist"):
        Style(fonts=("x" * 300 + ".ttf",))


@pytest.mark.skipif(features.version("freetype2") != "2.14.3", reason="another FreeType may place ink otherwise")
def test_words_and_letters_of_pretraining_are_drawn_to_the_byte():
    digest = hashlib.sha256()
    for index in range(60):
        rng = generator("pretraining", 7, index)
        image = draw(Scene("speckled"), rng)
        digest.update(write_word(SHAPES[index % 10], image, rng).tobytes())
        digest.update(write_letter("abcdefghij"[index % 10], image, rng, hand=index % 2 == 0).tobytes())
    assert digest.hexdigest()[:16] == "58c5c1f443d29975"


def font_of(letters, path, family):
    """Write a font in which each letter is a square."""
    names = [".notdef", *(f"letter{number}" for number in range(len(letters)))]
    pen = TTGlyphPen(None)
    for at, corner in enumerate(((0, 0), (0, 500), (500, 500), (500, 0))):
        (pen.lineTo if at else pen.moveTo)(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, letters), names[1:], strict=True)))
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800)
    builder.setupPost()
    builder.save(path)
    return str(path)


def test_letters_are_looked_for_in_the_fonts_of_the_machine(tmp_path, monkeypatch):
    cats, dogs = font_of("猫", tmp_path / "cats.ttf", "Cats"), font_of("犬狗", tmp_path / "dogs.ttf", "Dogs")
    (tmp_path / "broken.ttf").write_text("Dear font")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", font_manager.fontManager.ttflist[:1])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [cats, dogs, str(tmp_path / "broken.ttf")])
    for letters, files in (
        ("猫", [cats]),
        ("犬狗", [dogs]),
        ("猫犬狗", [dogs, cats]),
        ("猫虎", [cats]),
        ("虎", []),
        ("", []),
    ):
        installed_fonts.cache_clear()
        assert [file for _, file in installed_fonts(frozenset(letters))] == files
    installed_fonts.cache_clear()
