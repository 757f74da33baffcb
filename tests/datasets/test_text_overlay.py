"""Text on images: wholly inside, outlined, in a colour that stands out, wrapped or shrunk to fit."""

import shutil
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from wisepatch import find_task
from wisepatch.datasets import text_overlay
from wisepatch.datasets.fonts import FONTS, font, has_all
from wisepatch.datasets.text_overlay import MIN_CONTRAST, MIN_PIXELS, overlay
from wisepatch.datasets.typography import Style
from wisepatch.errors import DataError

GREY = 128
WORDS = (
    "cat", "Zürich", "кошка", "naïve/é=_%", "Ääkköset", "jÿgqp|", "W", "fire-fighting aircraft", "n01440764", "A & B",
    "a photo of a very long name of a class", "Wasserkraftwerk",
)  # fmt: skip


def rng(*numbers):
    return np.random.default_rng(list(numbers))


def flat(width, height, value=GREY):
    return Image.new("RGB", (width, height), (value,) * 3)


def drawn(image, text, generator, style):
    """The attacked image, and the last text that was asked of Pillow with its face and layout."""
    asked, within = [], []
    original = ImageDraw.ImageDraw.text

    def spy(self, xy, text, fill, font, *args, **kwargs):
        if not within:  # Pillow may draw a text of several lines by drawing each
            asked.append((text, {"font": font, **{name: kwargs[name] for name in text_overlay.LAYOUT}}))
        within.append(text)
        original(self, xy, text, fill, font, *args, **kwargs)
        within.pop()

    text_overlay._masks.cache_clear()
    with patch.object(ImageDraw.ImageDraw, "text", spy):
        result = overlay(image, text, generator, style)
    return result, *asked[-1]


def outlined_alone(text, kwargs):
    """The text with its outline on a canvas far larger than it, cut to what is there: coverage 0 to 255."""
    size = kwargs["font"].size
    canvas = Image.new("L", (size * (len(text) + 12), size * 4 * (text.count("\n") + 4)))
    ImageDraw.Draw(canvas).multiline_text((size * 5, size * 5), text, 255, **kwargs)
    left, top, right, bottom = canvas.getbbox()
    assert left > 2
    assert top > 2
    assert right < canvas.width - 2
    assert bottom < canvas.height - 2
    return np.asarray(canvas.crop(canvas.getbbox()))


def place_of(changed, alone):
    """Where inside the picture all of the text shows, and nothing but it: ``(top, left)``, or ``None``."""
    height, width = alone.shape
    rows, columns = changed.shape
    strong, faint = alone > 40, alone > 0
    first = np.argwhere(changed).min(0)
    for top in range(max(first[0] - 2, 0), min(first[0] + 3, rows - height + 1)):
        for left in range(max(first[1] - 2, 0), min(first[1] + 3, columns - width + 1)):
            inside = changed[top : top + height, left : left + width]
            if (inside >= strong).all() and (inside <= faint).all() and inside.sum() == changed.sum():
                return top, left
    return None


@settings(max_examples=120)
@given(
    st.integers(8, 300), st.integers(8, 300), st.sampled_from(FONTS), st.sampled_from(WORDS),
    st.sampled_from([(0.2, 0.4), (0.09, 0.18), (0.8, 1.0)]), st.integers(0, 2**32),
)  # fmt: skip
@example(8, 8, "DejaVuSans-Bold", "W", (0.8, 1.0), 1)
@example(300, 9, "", "cat", (0.2, 0.4), 0)
@example(64, 64, "DejaVuSerif-Bold", "jÿgqp|", (0.8, 1.0), 3)
def test_text_is_never_clipped(width, height, face, word, sizes, seed):
    assume(has_all(face, word))
    style = Style(low=sizes[0], high=sizes[1], fonts=(face,))
    image = flat(width, height)
    try:
        result, text, kwargs = drawn(image, word, rng(seed), style)
    except DataError as error:
        said = error.message
    else:
        said = ""
    if said:
        assert said == f"{word!r} fits into {width} x {height} pixels at no size from {MIN_PIXELS} pixels up"
        pieces = word.replace("-", "- ").replace("/", "/ ").split()
        least = font(face, MIN_PIXELS)
        assert (
            max(map(least.getlength, pieces)) + 4 >= width or 7 * len(pieces) + 4 >= height
        )  # not even one piece a line
        return
    assert "".join(text.split()) == "".join(word.split())  # no character is lost in wrapping
    assert kwargs["font"].size >= MIN_PIXELS
    assert result.size == image.size
    assert result.mode == "RGB"
    assert np.array_equal(
        np.asarray(image), np.asarray(flat(width, height))
    )  # the image that was given stays as it was
    assert place_of((np.asarray(result) != GREY).any(-1), outlined_alone(text, kwargs))


def test_test_of_clipping_sees_a_column_that_is_missing():
    result, text, kwargs = drawn(flat(64, 64), "cat", rng(0), Style())
    changed, alone = (np.asarray(result) != GREY).any(-1), outlined_alone(text, kwargs)
    assert place_of(changed, alone)
    for axis in (0, 1):
        for at in (np.argwhere(changed).min(0)[axis], np.argwhere(changed).max(0)[axis]):
            cut = changed.copy()
            cut[(slice(None),) * axis + (slice(at - 1, at + 2),)] = False
            assert not place_of(cut, alone)
    spilt = changed.copy()
    spilt[(~changed.any(1)).nonzero()[0][0], 0] = True
    assert not place_of(spilt, alone)


def test_marks_that_stack_above_and_below_are_not_clipped():
    stacked = "o" + "\u0302\u0323" * 12 + "k"
    style = Style(fonts=("DejaVuSans",))
    result, text, kwargs = drawn(flat(200, 200), stacked, rng(1), style)
    size = kwargs["font"].size
    canvas = Image.new("L", (60 * size, 60 * size))
    ImageDraw.Draw(canvas).multiline_text((30 * size, 30 * size), text, 255, **kwargs)
    assert place_of((np.asarray(result) != GREY).any(-1), np.asarray(canvas.crop(canvas.getbbox())))


@settings(max_examples=100)
@given(st.integers(8, 247), st.sampled_from(("cat", "two words")), st.integers(0, 2**32))
def test_ink_stands_out_from_what_is_under_it_and_the_outline_from_the_ink(value, word, seed):
    style = Style(low=0.4, high=0.5, fonts=("DejaVuSans-Bold",))
    result, text, kwargs = drawn(flat(96, 96, value), word, rng(seed), style)
    canvas, around = (Image.new("L", (900, 400)) for _ in range(2))
    ImageDraw.Draw(canvas).multiline_text((100, 100), text, 255, stroke_fill=0, **kwargs)
    ImageDraw.Draw(around).multiline_text((100, 100), text, 255, **kwargs)
    ink, edge = (np.asarray(mask.crop(around.getbbox())) for mask in (canvas, around))
    pixels = np.asarray(result).astype(float)
    top, left = place_of((pixels != value).any(-1), edge)
    inside = pixels[top : top + ink.shape[0], left : left + ink.shape[1]]
    colors, outline = np.unique(inside[ink == 255], axis=0), np.unique(inside[(edge == 255) & (ink == 0)])
    assert len(colors) == 1
    assert outline.tolist() in ([0], [255])
    assert abs(colors.mean() - value) > MIN_CONTRAST - 1
    assert abs(colors.mean() - outline[0]) >= 127  # whichever of black and white is further


def test_letters_are_as_high_as_asked():
    for low, high in ((0.1, 0.1), (0.3, 0.3)):
        sizes = {drawn(flat(200, 100), "cat", rng(i), Style(low=low, high=high))[2]["font"].size for i in range(20)}
        assert sizes == {round(low * 100)}
    sizes = {drawn(flat(200, 100), "cat", rng(i), Style(low=0.1, high=0.3))[2]["font"].size for i in range(60)}
    assert min(sizes) in range(10, 13)
    assert max(sizes) in range(28, 31)


def test_faces_places_sizes_and_colours_vary_with_the_image():
    results = [drawn(flat(128, 128), "cat", rng(i), Style()) for i in range(80)]
    assert {result[2]["font"].getname() for result in results} == {font(name, 12).getname() for name in FONTS}
    corners = {tuple(np.argwhere((np.asarray(r[0]) != GREY).any(-1)).min(0)) for r in results}
    assert len(corners) > 60
    assert len({r[0].tobytes() for r in results}) == 80


def test_text_that_is_too_wide_is_wrapped_at_spaces_hyphens_and_slashes_then_shrunk():
    style = Style(low=0.2, high=0.2, fonts=("DejaVuSans",))
    _, text, kwargs = drawn(flat(64, 64), "red and white circle", rng(0), style)
    assert text.split("\n")[0] in ("red and", "red")
    assert text.count("\n") >= 2
    assert kwargs["font"].size == 13
    _, text, _ = drawn(flat(64, 64), "twenty-four/seven", rng(0), style)
    assert text in ("twenty-\nfour/\nseven", "twenty-\nfour/seven")
    _, text, kwargs = drawn(flat(64, 64), "Wasserkraftwerk", rng(0), style)
    assert text == "Wasserkraftwerk"
    assert kwargs["font"].size < 13
    _, text, _ = drawn(flat(300, 300), "a - b -c and/or", rng(0), Style(low=0.05, high=0.05))
    assert text == "a - b -c and/or"  # nothing changes where there is room


def test_long_names_of_traffic_signs_fit_on_their_small_images():
    for label, name in enumerate(find_task("GTSRB").dataset.classes):
        for size in (64, 48):
            _, text, kwargs = drawn(flat(size, size), name, rng(label, size), Style())
            assert "".join(text.split()) == "".join(name.split())
            assert kwargs["font"].size >= MIN_PIXELS
    assert max(map(len, find_task("GTSRB").dataset.classes)) > 60


def test_text_that_fits_at_no_size_says_so():
    with pytest.raises(DataError) as caught:
        overlay(flat(20, 20), "Donaudampfschifffahrtsgesellschaft", rng(0), Style())
    assert caught.value.message == (
        "'Donaudampfschifffahrtsgesellschaft' fits into 20 x 20 pixels at no size from 5 pixels up"
    )
    assert caught.value.hint == "take larger images, or a shorter text"
    for size in ((1, 1), (2, 300), (300, 2)):
        with pytest.raises(DataError, match=f"'i' fits into {size[0]} x {size[1]} pixels at no size"):
            overlay(flat(*size), "i", rng(0), Style())


def test_characters_that_no_face_has_are_named():
    for text in ("🐈", "cat 🐈", "\ud55c\uad6d", "a\x07b"):
        with pytest.raises(DataError) as caught:
            overlay(flat(200, 200), text, rng(0), Style())
        assert caught.value.message == f"no font here has all characters of {text!r}"
        assert "--font FILE" in caught.value.hint


def test_only_faces_that_have_all_characters_are_taken():
    for word, without in (("Zürich", "Pillow's"), ("кошка", "Pillow's"), ("naïve/é=_%", "Pillow's")):
        faces = {drawn(flat(200, 200), word, rng(i), Style())[2]["font"].getname() for i in range(40)}
        assert len(faces) > 3
        assert font("", 12).getname() not in faces, without


def test_text_without_ink_says_so():
    with pytest.raises(DataError, match="has nothing that could be drawn"):
        overlay(flat(50, 50), "\u200b", rng(0), Style(fonts=("DejaVuSans",)))


def test_font_file_is_used(tmp_path):
    shutil.copy(font("DejaVuSansMono", 12).path, tmp_path / "own.ttf")
    style = Style(fonts=(str(tmp_path / "own.ttf"),))
    _, _, kwargs = drawn(flat(64, 64), "Zürich", rng(0), style)
    assert kwargs["font"].path == str(tmp_path / "own.ttf")
    assert kwargs["font"].getname() == ImageFont.truetype(font("DejaVuSansMono", 12).path, 12).getname()
