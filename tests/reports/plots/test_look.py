"""Sizes, labels and colours."""

import pytest

from wisepatch import Look
from wisepatch.errors import UsageError
from wisepatch.reports.plots import parse_labels, parse_size
from wisepatch.reports.plots.look import DARK, LIGHT


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


def luminance(color):
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(share * channel for share, channel in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_and_curves_stand_out_from_the_ground(theme):
    def contrast(color):
        low, high = sorted((luminance(color), luminance(theme.ground)))
        return (high + 0.05) / (low + 0.05)

    assert contrast(theme.ink) > 7
    assert contrast(theme.muted) > 4.5
    assert all(contrast(color) > 2.2 for color in theme.colors)
    assert len(set(theme.colors)) == 7


def test_small_pictures_have_smaller_letters_and_large_ones_larger():
    sizes = [Look(size=size).font(*size) for size in ((3, 2.5), (7.2, 5.6), (16, 12))]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[2]
    assert Look(paper=True).font(3.35, 3) == 8
