"""The one sink: tables and words for people, JSON lines for programs; results on stdout, the rest on stderr."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from wisepatch.launcher import is_main

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from wisepatch.errors import WisepatchError
    from wisepatch.workflows.sweep import Sweep

MIN_COLUMNS_OF_A_FILE = 200  # a table is not folded where stdout is no terminal


class Output:
    """Where a command prints. With ``as_json`` stdout holds one JSON object a line and nothing else."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        """Choose who reads: people, or a program; ``quiet`` leaves progress and messages out."""
        self.as_json = as_json
        self.quiet = quiet or not is_main()
        self.helps = not is_main()  # says nothing: the main process says it
        # Python writes the library's warnings, such as that a plugin is skipped, to stderr.
        logging.getLogger("wisepatch").setLevel(logging.ERROR if self.quiet else logging.WARNING)

    @cached_property
    def err(self) -> Console:
        """Return where bars are drawn."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    @cached_property
    def width(self) -> int | None:
        """Return the columns of the terminal; ``None`` where stdout is none."""
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
        strong: int | None = None,
    ) -> None:
        """Print a table for people; numbers right, the row ``strong`` in bold. Never cut off: a narrow terminal wraps it."""
        if self.as_json or self.helps:
            return
        from rich.console import Console
        from rich.table import Table

        body = [[str(cell) for cell in row] for row in rows]
        grid = Table(header_style="bold")
        for index, column in enumerate(columns):
            numbers = bool(body) and all(_is_number_or_nothing(row[index]) for row in body)
            grid.add_column(column, justify="right" if numbers else "left", overflow="fold")
        for number, row in enumerate(body):
            grid.add_row(*(cell.replace("[", "\\[") for cell in row), style="bold" if number == strong else None)
        width = self.width or max(shutil.get_terminal_size().columns, MIN_COLUMNS_OF_A_FILE)
        Console(highlight=False, width=width).print(grid)

    def progress(self) -> Bar:
        """Return a bar on stderr for long work."""
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
    """Print on stderr what is wrong and why, the next step, and what was kept."""
    Output(as_json=True).records(getattr(error, "rows", ()))  # measured, and not kept
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
    for note in getattr(error, "__notes__", ()):
        sys.stderr.write(f"{note}\n")


def _is_number_or_nothing(cell: str) -> bool:
    return cell in ("", "-") or cell.lstrip("-")[:1].isdigit()


def percent(value: float | None) -> str:
    """Write a fraction in per cent, with one decimal; ``-`` for none and for NaN."""
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
    for split in sweep.points:
        _show_split(output, sweep, split)


def _show_split(output: Output, sweep: Sweep, split: str) -> None:
    """Print the points of one split: the first metric of each task, ``-`` for tasks that are not measured on it.

    Where some of the metrics are better when lower, mean values mean nothing, and the mean score that rules compare is shown.
    """
    from wisepatch.plugins import registry

    known = registry().all("register_metrics")
    rows = [row for row in sweep.rows if row["split"] == split or len(sweep.points) == 1]
    first = {row["task"]: row for row in reversed(rows)}
    tasks = {task: first.get(task) for task in (sweep.patching, *sweep.supported)}
    metrics = {
        row["metric"]: row["metric"] not in known or known[row["metric"]].higher_is_better
        for row in tasks.values()
        if row
    }
    values = {
        (row["alpha"], row["task"]): row["value"] for row in rows if row["metric"] == first[row["task"]]["metric"]
    }
    mixed = len(set(metrics.values())) > 1
    body, strong = [], None
    for number, point in enumerate(sweep.points[split]):
        cells = [f"{point.alpha:g}", *(percent(values.get((point.alpha, task))) for task in tasks)]
        if sweep.supported:
            mean = None if point.supported is None else (point.patching + point.supported) / 2
            cells += [percent(point.mean_score)] if mixed else [percent(point.supported), percent(mean)]
        if sweep.choice:
            strong = number if point.alpha == sweep.choice.alpha else strong
            cells.append("chosen" if strong == number else "")
        body.append(cells)
    columns = [
        "alpha",
        *(task if not row or row["split"] == split else f"{task}@{row['split']}" for task, row in tasks.items()),
    ]
    if sweep.supported:
        columns += ["mean score"] if mixed else ["supported", "mean"]
    note = ""
    if sweep.choice:
        columns.append("")
        seen = "chosen on this split" if split == sweep.selected_on else f"alpha was chosen on {sweep.selected_on}"
        note = f" ({seen}{', TEST DATA' if sweep.selected_on == 'test' else ''})"
    words = " / ".join(name if higher else f"{name} (lower is better)" for name, higher in metrics.items())
    output.result(f"{words} in per cent, {split} split{note}")
    output.table(columns, body, strong=strong)
