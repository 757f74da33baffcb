"""Draw every kind of picture in every look into a page: python -m tests.reports.gallery FOLDER."""

import html
import sys
from pathlib import Path

from tests.reports.plots.pictures import KINDS, LOOKS, picture
from wisepatch import save_figure

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Pictures of wisepatch</title>
<style>body {{ font-family: sans-serif; background: #888 }} img {{ max-width: 32rem; max-height: 28rem; vertical-align: top }}
td {{ padding: 0.3rem }}</style><table>{rows}</table></html>
"""


def make_gallery(folder, kinds=tuple(KINDS), looks=tuple(LOOKS)):
    """Write a row of pictures for each kind, a column a look, and ``index.html``; return the page."""
    rows = []
    for kind in kinds:
        cells = []
        for look in looks:
            name = f"{kind}-{look}.png"
            save_figure(picture(kind, LOOKS[look]), folder / name)
            cells.append(f'<td><img src="{name}" alt="{html.escape(f"{kind}, {look}")}"></td>')
        rows.append(f"<tr><th>{kind}</th>{''.join(cells)}</tr>")
    page = folder / "index.html"
    page.write_text(PAGE.format(rows="\n".join(rows)), encoding="utf-8")
    return page


if __name__ == "__main__":
    print(make_gallery(Path(sys.argv[1])))  # noqa: T201
