"""The one sink: tables and words for people, JSON lines for programs; results on stdout, the rest on stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

from wisepatch.cli.tables import Form, render, sentence
from wisepatch.progress import RichProgress
from wisepatch.ranks import is_main
from wisepatch.terminal import harmless

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from typing import TextIO

    from rich.console import Console

from wisepatch.errors import WisepatchError

RESULT = "result"  # the type of a measurement among the records of --json


class OutputClosedError(Exception):
    """Nobody reads what is printed any more (``| head``)."""


def write(stream: TextIO | None, text: str) -> None:
    """Print text on a stream of this process; one that was closed before (``>&-``) takes nothing.

    Raises :class:`OutputClosedError` where nobody reads it, :class:`WisepatchError` where it cannot be written.
    """
    if stream is None:
        return
    try:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        _give_up(stream)
        if isinstance(error, BrokenPipeError):
            raise OutputClosedError from None
        raise WisepatchError(
            f"the output cannot be written: {error.strerror}", "free space there, or name another place"
        ) from None


def _give_up(stream: TextIO) -> None:
    """Lead a stream nowhere, or Python would try again when it ends."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), stream.fileno())


class Output:
    """Where a command prints. With ``as_json`` stdout holds one JSON object a line and nothing else."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, form: Form = "table") -> None:
        """Choose who reads: people, or a program; ``quiet`` leaves progress and messages out, ``form`` is that of tables."""
        self.as_json = as_json
        self.form = form
        self.after_table = False
        self.quiet = quiet or not is_main()
        self.helps = not is_main()  # says nothing: the main process says it
        # Python writes the library's warnings, such as that a plugin is skipped, to stderr.
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata; what cannot be read is an error
        logging.getLogger("wisepatch").setLevel(logging.ERROR if self.quiet else logging.WARNING)
        if self.quiet:
            os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # of what is fetched; read when its library is imported

    @cached_property
    def err(self) -> Console:
        """Return where bars are drawn."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    @cached_property
    def width(self) -> int | None:
        """Return the columns of the terminal; ``None`` where stdout is none."""
        return shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None

    def say(self, text: str) -> None:
        """Tell a person something that is no result (stderr)."""
        if not self.quiet:
            write(sys.stderr, f"{harmless(text)}\n")

    def result(self, text: str) -> None:
        """Print a line that is a result, for people: on stdout, or on stderr where stdout holds CSV."""
        if self.form == "csv":
            self.say(text)
        elif not self.as_json and not self.helps:
            write(sys.stdout, sentence(self.form, text))
            self.after_table = False

    def records(self, records: Iterable[Mapping[str, Any]], kind: str = RESULT) -> None:
        """Print records as JSON lines, of which the field ``type`` says what each is; nothing for people."""
        if self.as_json and not self.helps:
            for record in records:
                typed = _without_nan({"type": kind, **record})
                write(sys.stdout, json.dumps(typed, default=str, allow_nan=False) + "\n")

    def table(
        self,
        columns: Sequence[str | list[str]],
        rows: Iterable[Sequence[object]],
        *,
        strong: int | None = None,
        ends: Container[int] = (),
    ) -> None:
        """Print a table for people; numbers right, the row ``strong`` in bold, a line below each row of ``ends``.

        A cell that is a list has a line for each item. The form is that of ``--format``; see :mod:`wisepatch.cli.tables`.
        """
        if self.as_json or self.helps:
            return
        encoding = (sys.stdout and sys.stdout.encoding) or "utf-8"
        text = render(self.form, columns, rows, strong=strong, ends=ends, width=self.width, encoding=encoding)
        write(sys.stdout, f"\n{text}" if self.after_table and self.form != "table" else text)
        self.after_table = True

    def progress(self) -> Bar:
        """Return a bar on stderr for long work."""
        return Bar(self)


class Bar(RichProgress):
    """Draws the library's progress as the command line was asked to; silent when quiet."""

    def __init__(self, output: Output) -> None:
        """Draw to the stderr of ``output``."""
        super().__init__()
        self.output = output

    @property
    def quiet(self) -> bool:
        """Tell whether nothing is to be said."""
        return self.output.quiet

    @property
    def console(self) -> Console:
        """Return where bars are drawn."""
        return self.output.err

    def say(self, text: str) -> None:
        """Write a line."""
        self.output.say(text)


def close_bars() -> None:
    """Give the terminal back: end every bar that an error left open."""
    for bar in list(RichProgress.live):
        bar.finish()


def print_error(error: WisepatchError, *, as_json: bool = False) -> None:
    """Print on stderr what is wrong and why, the next step, and what was kept; for programs one JSON object on stdout too."""
    Output(as_json=True).records(getattr(error, "rows", ()))  # measured, and not kept
    notes = getattr(error, "__notes__", [])
    lines = [
        f"{error.word}: {error.lines[0]}",
        *error.lines[1:],
        *([f"hint: {error.hint}"] if error.hint else []),
        *notes,
    ]
    for line in lines:
        write(sys.stderr, f"{harmless(line)}\n")
    if as_json:
        record = {"type": "error", "error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        write(sys.stdout, json.dumps(record | ({"notes": notes} if notes else {})) + "\n")


def _without_nan(value: Any) -> Any:
    """Return a value of JSON types with ``None`` for the numbers that JSON does not know."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return [_without_nan(each) for each in value] if isinstance(value, list | tuple) else value
