"""The one sink: tables and words for people, JSON lines for programs; results on stdout, the rest on stderr."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from wisepatch.errors import WisepatchError
    from wisepatch.workflows.sweep import Sweep

MIN_COLUMNS_OF_A_FILE = 200  # a table is not folded where stdout is no terminal


def is_helper() -> bool:
    """Whether this is one of several processes that train together (``accelerate launch``, ``torchrun``), and not the main one."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 and int(os.environ.get("RANK") or 0) > 0


class Output:
    """Where a command prints. With ``as_json`` stdout holds one JSON object a line and nothing else."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        """Choose who reads: people, or a program; ``quiet`` leaves progress and messages out."""
        self.as_json = as_json
        self.quiet = quiet or is_helper()
        self.helps = is_helper()  # says nothing: the main process says it
        # Python writes the library's warnings, such as that a plugin is skipped, to stderr.
        logging.getLogger("wisepatch").setLevel(logging.ERROR if self.quiet else logging.WARNING)

    @cached_property
    def err(self) -> Console:
        """Return where bars are drawn."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    @cached_property
    def width(self) -> int | None:
        """Columns of the terminal; ``None`` where stdout is none."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def say(self, text: str) -> None:
        """Tell a person something that is no result (stderr)."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def result(self, text: str) -> None:
        """Print a line that is a result, for people (stdout)."""
        if not self.as_json and not self.helps:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def records(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Print records as JSON lines; nothing for people."""
        if self.as_json and not self.helps:
            for record in records:
                clean = {key: None if value != value else value for key, value in record.items()}  # JSON knows no NaN
                sys.stdout.write(json.dumps(clean, default=str, allow_nan=False) + "\n")
            sys.stdout.flush()

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        title: str | None = None,
        strong: int | None = None,
    ) -> None:
        """Print a table for people; numbers right, the row ``strong`` in bold. Never cut off: a narrow terminal wraps it."""
        if self.as_json or self.helps:
            return
        from rich.console import Console
        from rich.table import Table

        body = [[str(cell) for cell in row] for row in rows]
        grid = Table(title=title, title_justify="left", title_style="", header_style="bold")
        for index, column in enumerate(columns):
            numbers = bool(body) and all(row[index][:1].isdigit() or row[index] in ("", "-") for row in body)
            grid.add_column(column, justify="right" if numbers else "left", overflow="fold")
        for number, row in enumerate(body):
            grid.add_row(*(cell.replace("[", "\\[") for cell in row), style="bold" if number == strong else None)
        width = self.width or max(shutil.get_terminal_size().columns, MIN_COLUMNS_OF_A_FILE)
        Console(highlight=False, width=width).print(grid)

    def progress(self) -> Bar:
        """A bar on stderr for long work."""
        return Bar(self)


class Bar:
    """Draws the library's progress with rich; silent when quiet. Without a terminal, one line a stage."""

    live: ClassVar[list[Bar]] = []

    def __init__(self, output: Output) -> None:
        """Draw to the stderr of ``output``."""
        self.output = output
        self.bars: Bars | None = None
        self.task: TaskID | None = None

    def start(self, what: str, total: int) -> None:
        """Begin a stage."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.finish()
        if self.output.quiet:
            return
        if not self.output.err.is_terminal:
            self.output.say(f"{what} ...")
            return
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"),
            TextColumn("elapsed"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.output.err,
        )  # fmt: skip
        self.task = self.bars.add_task(what, total=total, detail="")
        self.bars.start()
        Bar.live.append(self)

    def advance(self, steps: int = 1, detail: str = "") -> None:
        """Go on."""
        if self.bars is not None and self.task is not None:
            self.bars.update(self.task, advance=steps, detail=detail)

    def finish(self) -> None:
        """End the stage."""
        if self.bars is not None:
            self.bars.stop()
            self.bars = None
            Bar.live.remove(self)

    def note(self, text: str) -> None:
        """Say something that stays."""
        if self.bars is not None:
            self.bars.console.print(text, markup=False)
        else:
            self.output.say(text)


def close_bars() -> None:
    """Give the terminal back: end every bar that an error left open."""
    for bar in list(Bar.live):
        bar.finish()


def print_error(error: WisepatchError) -> None:
    """Two lines on stderr: what is wrong and why, and the next step."""
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")


def percent(value: float | None) -> str:
    """A fraction in per cent, with one decimal."""
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def show_rows(output: Output, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    """Print measurements: a row each for people with its interval, tidy JSON for programs. ``names`` gives checkpoints' names."""
    output.records(rows)
    if not rows:
        return
    output.table(
        ("checkpoint", "task", "split", "metric", "per cent", "95 % interval", "n"),
        [
            (
                names.get(row["checkpoint"], row["checkpoint"]), row["task"], row["split"], row["metric"], percent(row["value"]),
                f"{percent(row['ci_low'])} to {percent(row['ci_high'])}", row["n"],
            )
            for row in rows
        ],
    )  # fmt: skip


def show_sweep(output: Output, sweep: Sweep) -> None:
    """Print a sweep: one table a split for people; rows, then what was chosen, for programs."""
    output.records(sweep.rows)
    if sweep.choice and sweep.chosen:
        output.records([{
            "chosen": sweep.chosen.name, "checkpoint": sweep.chosen.id, "alpha": sweep.choice.alpha, "rule": str(sweep.rule),
            "selected_on": sweep.selected_on,
        }])  # fmt: skip
    tasks = (sweep.patching, *sweep.supported)
    for split, points in sweep.points.items():
        rows = [row for row in sweep.rows if row["split"] == split]
        first = {row["task"]: row["metric"] for row in reversed(rows)}
        metric = " / ".join(dict.fromkeys(first[task] for task in tasks))
        values = {(row["alpha"], row["task"]): row["value"] for row in rows if row["metric"] == first[row["task"]]}
        strong = next((i for i, p in enumerate(points) if sweep.choice and p.alpha == sweep.choice.alpha), None)
        extra = ("supported", "mean") if len(sweep.supported) else ()
        body = []
        for number, point in enumerate(points):
            cells: list[object] = [f"{point.alpha:g}", *(percent(values.get((point.alpha, task))) for task in tasks)]
            if extra and point.supported is not None:
                cells += [percent(point.supported), percent((point.patching + point.supported) / 2)]
            body.append([*cells, ("chosen" if number == strong else "")] if sweep.choice else cells)
        note = ""
        if sweep.choice:
            seen = "chosen on this split" if split == sweep.selected_on else f"alpha was chosen on {sweep.selected_on}"
            note = f" ({seen}{', TEST DATA' if sweep.selected_on == 'test' else ''})"
        output.table(
            ("alpha", *tasks, *extra, *(("",) if sweep.choice else ())), body,
            title=f"{metric} in per cent, {split} split{note}", strong=strong,
        )  # fmt: skip
