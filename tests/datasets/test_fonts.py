"""Fonts: files that are none, and words and letters whose bytes the embedded model was trained on."""

import hashlib

import pytest
from PIL import features

from wisepatch.datasets.drawn_shapes import SHAPES, Scene, draw, generator
from wisepatch.datasets.fonts import write_letter, write_word
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
