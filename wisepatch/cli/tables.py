"""Tables in the forms that people paste: drawn for the terminal, Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from wisepatch.terminal import harmless

if TYPE_CHECKING:
    from rich.table import Table

Form = Literal["table", "markdown", "latex", "csv"]
Row = Sequence[str]  # of cells; a cell of several lines holds "\n"

ID_LETTERS = 12
ID = re.compile(rf"[0-9a-f]{{{ID_LETTERS}}}")  # of a checkpoint
BORDER = 3  # columns of a terminal between those of a table
MIN_COLUMNS_OF_A_FILE = 200  # a table is not folded where stdout is no terminal
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#&!$])")
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"\(\pm\)", '"': r"\textquotedbl{}",
}  # fmt: skip


def render(
    form: Form,
    columns: Sequence[str | list[str]],
    rows: Iterable[Sequence[object]],
    *,
    strong: int | None = None,
    ends: Container[int] = (),
    width: int | None = None,
    encoding: str = "utf-8",
) -> str:
    """Return a table as text that ends in a new line; a cell that is a list has a line for each item.

    The row ``strong`` is bold, a line follows each row of ``ends``, where the form has such. ``width`` is that of the terminal,
    ``None`` where there is none; signs that ``encoding`` has not are written out.
    """
    header, body = [_text(column) for column in columns], [[_text(cell) for cell in row] for row in rows]
    if form == "table":
        return draw(header, body, strong=strong, ends=ends, width=width, encoding=encoding)
    if form == "csv":
        content = io.StringIO(newline="")
        csv.writer(content, lineterminator="\n").writerows([header, *body])
        return content.getvalue()
    right = [bool(body) and all(is_number_or_nothing(row[index]) for row in body) for index in range(len(header))]
    if form == "latex":
        return _latex(header, body, right, strong, ends)
    lines = [_markdown_row(header), "|" + "|".join("---:" if number else "---" for number in right) + "|"]
    lines += [_markdown_row(row, strong=number == strong) for number, row in enumerate(body)]
    return "\n".join(lines) + "\n"


def sentence(form: Form, text: str) -> str:
    """Return a line of text that stands between tables of a form; what reads CSV knows none, and the text is empty."""
    if form == "table":
        return f"{harmless(text)}\n"
    if form == "latex":
        return f"% {harmless(text)}\n"
    return f"\n{_in_markdown(harmless(text))}\n\n" if form == "markdown" else ""


def draw(
    header: Row,
    body: Sequence[Row],
    *,
    strong: int | None = None,
    ends: Container[int] = (),
    width: int | None = None,
    encoding: str = "utf-8",
) -> str:
    """Draw a table for a terminal; numbers right. Never cut off: a narrow terminal wraps it, but for ids, which stay whole.

    Where words would be broken each row stands by itself, a line a column.
    """
    from rich.console import Console

    width = width or max(shutil.get_terminal_size().columns, MIN_COLUMNS_OF_A_FILE)
    text = io.TextIOWrapper(io.BytesIO(), encoding, "backslashreplace", newline="\n")  # rich draws with its signs
    on_terminal = bool(sys.stdout and sys.stdout.isatty())
    # Without emoji and markup: corrupt:NAME:fog:3 would become a picture of fog.
    console = Console(file=text, width=width, force_terminal=on_terminal, emoji=False, markup=False, highlight=False)
    header, body = _encodable([header], encoding)[0], _encodable(body, encoding)
    widths = _widths(list(zip(header, *body, strict=True)), width - BORDER * len(header) - 1)
    if widths or len(header) <= 2:
        grid = _across(header, body, widths or [None] * len(header), strong, ends)
    else:
        grid = _row_by_row(header, body, strong)
    console.print(grid)
    text.seek(0)
    return text.read()


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Share out so much room among columns: to each its longest word, and what is left until its longest line fits.

    Those that need least have it first. Empty where not even the words fit.
    """
    widths = [_longest(word for cell in cells for word in cell.split()) for cells in columns]
    lines = [_longest(line for cell in cells for line in cell.splitlines()) for cells in columns]
    spare = room - sum(widths)
    if spare < 0:
        return []
    by_need = sorted(range(len(columns)), key=lambda index: lines[index] - widths[index])
    for served, index in enumerate(by_need):
        more = min(lines[index] - widths[index], spare // (len(columns) - served))
        widths[index] += more
        spare -= more
    return widths


def _longest(texts: Iterable[str]) -> int:
    """Return how many columns of a terminal the longest of some texts takes."""
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def _across(
    header: Row, body: Sequence[Row], widths: Sequence[int | None], strong: int | None, ends: Container[int]
) -> Table:
    """Lay rows and columns out as they are, each column of its width."""
    from rich.table import Table

    grid = Table(header_style="bold")
    for index, (column, width) in enumerate(zip(header, widths, strict=True)):
        numbers = bool(body) and all(is_number_or_nothing(row[index]) for row in body)
        ids = any(ID.fullmatch(row[index]) for row in body) and all(is_id_or_nothing(row[index]) for row in body)
        grid.add_column(
            column, overflow="fold", no_wrap=ids, justify="right" if numbers and not ids else "left", width=width,
            min_width=ID_LETTERS if ids else None,
        )  # fmt: skip
    for number, row in enumerate(body):
        style = "bold" if number == strong else None
        grid.add_row(*row, style=style, end_section=number in ends)
    return grid


def _row_by_row(header: Row, body: Sequence[Row], strong: int | None) -> Table:
    """Lay each row out below the one before, a line for each cell that holds something."""
    from rich.table import Table

    grid = Table(show_header=False)
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for number, row in enumerate(body):
        cells = [(name, cell) for name, cell in zip(header, row, strict=True) if cell]
        for place, (name, cell) in enumerate(cells, start=1):
            style = "bold" if number == strong else None
            grid.add_row(name, cell, style=style, end_section=place == len(cells))
    return grid


def _text(cell: object) -> str:
    return "\n".join(harmless(str(line)) for line in (cell if isinstance(cell, list) else [cell]))


def _encodable(rows: Sequence[Row], encoding: str) -> list[list[str]]:
    """Return rows in signs that the terminal can show."""
    return [[cell.encode(encoding, "backslashreplace").decode(encoding) for cell in row] for row in rows]


def _markdown_row(row: Row, *, strong: bool = False) -> str:
    cells = [_in_markdown(cell).replace("\n", "<br>") for cell in row]
    return "| " + " | ".join(f"**{cell}**" if strong and cell else cell for cell in cells) + " |"


def _in_markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", text)


def _latex(header: Row, body: Sequence[Row], right: Sequence[bool], strong: int | None, ends: Container[int]) -> str:
    """Write a ``tabular`` with the rules of the package booktabs; East Asian letters need XeLaTeX or LuaLaTeX and a font."""
    lines = [rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in right)}}}", r"\toprule"]
    lines += [_latex_row(header), r"\midrule"]
    for number, row in enumerate(body):
        lines.append(_latex_row(row, strong=number == strong))
        lines += [r"\midrule"] if number in ends else []
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_row(row: Row, *, strong: bool = False) -> str:
    cells = []
    for cell in row:
        lines = ["".join(LATEX.get(sign, sign) for sign in line) for line in cell.split("\n")]
        text = lines[0] if len(lines) == 1 else r"\shortstack[l]{" + r" \\ ".join(lines) + "}"
        cells.append(rf"\textbf{{{text}}}" if strong and text else text)
    if cells[0].startswith("["):  # the \\ before it would take it for a length
        cells[0] = f"{{}}{cells[0]}"
    return " & ".join(cells) + r" \\"


def is_id_or_nothing(cell: str) -> bool:
    """Tell whether a cell holds the id of a checkpoint, or nothing."""
    return cell in ("", "-") or bool(ID.fullmatch(cell))


def is_number_or_nothing(cell: str) -> bool:
    """Tell whether a cell begins with a number, or holds nothing."""
    return cell in ("", "-") or cell.lstrip("+-")[:1].isdigit()
