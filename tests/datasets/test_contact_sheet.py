"""Contact sheets: the place of each cell, and texts of any length."""

import numpy as np
from PIL import Image

from wisepatch.datasets.contact_sheet import CELL, LINE, MARGIN, contact_sheet


def test_contact_sheet_has_the_size_of_its_cells_and_takes_any_text():
    cells = [
        (Image.new("RGB", (10 * i, 300), (10 * i,) * 3), ("first line", "x" * 400 + "\n" + "y" * 9))
        for i in range(1, 8)
    ]
    sheet = contact_sheet([("title " * 99, cells), ("empty", [])])
    high = CELL + 2 * LINE + 2 * MARGIN
    assert sheet.size == (5 * (CELL + MARGIN) + MARGIN, 2 * 3 * LINE + 2 * high + MARGIN)
    pixels = np.asarray(sheet)
    assert (pixels[:, -MARGIN:] == 255).all()  # nothing runs over the edge
    y, x = 2 * LINE + MARGIN, MARGIN
    assert tuple(pixels[y + CELL // 2, x + CELL // 2]) == (10, 10, 10)
    assert tuple(pixels[y + high + CELL // 2, x + CELL + MARGIN + CELL // 2]) == (70, 70, 70)
