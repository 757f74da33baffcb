"""Sizes, labels and colours."""

import pytest

from wisepatch import Look
from wisepatch.errors import UsageError
from wisepatch.reports.plots import parse_labels, parse_size
from wisepatch.reports.plots.look import DARK, LIGHT, contrast, grid, luminance


@pytest.mark.parametrize(
    ("text", "inches"),
    [("7x5", (7, 5)), (" 7.5 X 5in", (7.5, 5)), ("25.4x12.7cm", (10, 5)), ("1440x720px", (10, 5)), ("7×5", (7, 5))],  # noqa: RUF001
)
def test_a_size_is_read_in_inches(text, inches):
    assert parse_size(text) == pytest.approx(inches)


@pytest.mark.parametrize("text", ["", "7", "7x", "ax5", "7x5mm", "-7x5", "0x5", "1x1", "1200x800", "7x5x3"])
def test_what_is_no_size_says_how_one_is_written(text):
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert "7x5" in caught.value.hint


def test_labels_are_pairs_of_name_and_text():
    assert parse_labels(["a=b", "MNIST=", "x=y=z"]) == {"a": "b", "MNIST": "", "x": "y=z"}
    for word in ("a", "=b", ""):
        with pytest.raises(UsageError, match="does not say what is called so") as caught:
            parse_labels([word])
        assert "NAME=TEXT" in caught.value.hint


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", "#ffffff") == contrast("#ffffff", "#000000") == 21
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert luminance("#00ff00") == pytest.approx(0.7152)


@pytest.mark.parametrize(
    ("panels", "shape"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (6, (2, 3)), (7, (3, 3))]
)
def test_panels_leave_as_few_places_empty_as_can_be(panels, shape):
    assert grid(panels, 3) == shape


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_and_curves_stand_out_from_the_ground(theme):
    assert contrast(theme.ink, theme.ground) > 7
    assert contrast(theme.muted, theme.ground) > 4.5
    assert all(contrast(color, theme.ground) > 2.2 for color in theme.colors)
    assert len(set(theme.colors)) == 7


def test_small_pictures_have_smaller_letters_and_large_ones_larger():
    sizes = [Look(size=size).font(*size) for size in ((3, 2.5), (7.2, 5.6), (16, 12))]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[2]
    assert Look(paper=True).font(3.35, 3) == 8
