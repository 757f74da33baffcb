"""Contact sheets: the place of each cell, texts of any length and script that stay whole, and images of all classes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wisepatch.datasets import contact_sheet as module
from wisepatch.datasets.contact_sheet import CELL, LINE, MARGIN, TITLE_LINE, contact_sheet, from_all_classes


def drawn(monkeypatch, groups):
    """Draw a sheet; return it and the lines that were written on it, with their widths in pixels."""
    lines, write = [], module._write

    def watch(pen, place, text, line_height, color):
        face, written = text
        lines.extend((line, place[0] + face.getlength(line)) for line in written)
        write(pen, place, text, line_height, color)

    monkeypatch.setattr(module, "_write", watch)
    return contact_sheet(groups), lines


def test_sheet_has_the_size_of_its_cells_and_grows_with_their_longest_text(monkeypatch):
    cells = [(Image.new("RGB", (10 * i, 300), (10 * i,) * 3), ("first line", "short")) for i in range(1, 8)]
    cells[6] = (cells[6][0], ("first line", "x" * 90))
    sheet, lines = drawn(monkeypatch, [("title", cells), ("empty", [])])
    wrapped = sum("x" in line for line, _ in lines)
    assert wrapped > 2
    high = CELL + 2 * LINE + 2 * MARGIN
    assert sheet.size == (5 * (CELL + MARGIN) + MARGIN, 2 * 3 * LINE + 2 * high + (wrapped - 1) * LINE + MARGIN)
    pixels = np.asarray(sheet)
    y, x = 2 * LINE + MARGIN, MARGIN
    assert tuple(pixels[y + CELL // 2, x + CELL // 2]) == (10, 10, 10)
    assert tuple(pixels[y + high + CELL // 2, x + CELL + MARGIN + CELL // 2]) == (70, 70, 70)


@settings(max_examples=20)
@given(
    st.lists(
        st.sampled_from(["a", "wide words", "猫の写真", "x" * 60, "colour_coded-name", "99 %", "é", "한국어 이름"]),
        min_size=1,
    )
)
def test_texts_are_wrapped_and_no_letter_is_lost(words):
    text = " ".join(words)
    face, lines = module._wrapped(text, module.FONTS[1], 11, CELL)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(face.getlength(line) <= CELL for line in lines)
    assert all(word in " ".join(lines) for word in words if face.getlength(word) <= CELL / 2 and word.isascii())


def test_captions_of_a_sheet_stay_whole_and_inside_in_any_script(monkeypatch):
    names = [
        "a class of more than a few words that needs lines",
        "写真に写っている動物の種類を示す非常に長い名前",
        "n" * 200,
    ]
    cells = [(Image.new("RGB", (9, 9)), (f"shows {name}", f"before: {name}, 99 % sure")) for name in names]
    sheet, lines = drawn(monkeypatch, [("title " * 99, cells)])
    whole = "".join("".join(line.split()) for line, _ in lines)
    for name in names:
        assert "".join(f"shows {name}".split()) in whole
        assert "".join(f"before: {name}, 99 % sure".split()) in whole
    assert all(right <= sheet.width - MARGIN for _, right in lines)
    titles = sum(line.startswith("title") for line, _ in lines)
    assert (np.asarray(sheet)[: titles * TITLE_LINE, -MARGIN:] == 255).all()


def test_every_class_is_shown_once_before_any_is_shown_twice():
    labels = [0] * 20 + [1, 2] + [0] * 5
    assert from_all_classes(labels, at_least=4) == [0, 20, 21, 1]
    assert from_all_classes(range(30), at_least=4) == list(range(30))
    assert from_all_classes(range(99), at_least=4, at_most=6) == list(range(6))
    assert from_all_classes([], at_least=4) == []
    assert from_all_classes([7, 7], at_least=4) == [0, 1]
