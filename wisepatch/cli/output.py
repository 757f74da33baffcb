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

from wisepatch.cli.tables import MIN_COLUMNS_OF_A_FILE, Form, render, sentence
from wisepatch.launcher import is_main
from wisepatch.progress import RichProgress, harmless
from wisepatch.reports.numbers import percent, with_interval

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from typing import TextIO

    from rich.console import Console

    from wisepatch.store.checkpoints import Checkpoint
    from wisepatch.workflows.sweep import Sweep

from wisepatch.errors import WisepatchError

RESULT = "result"  # the type of a measurement among the records of --json
INTERVAL_COLUMNS = 26  # of a value with its interval and mark, and the lines beside it


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


def labels(checkpoints: Iterable[Checkpoint]) -> dict[str, str]:
    """Return by id what checkpoints are called in a table: the name, and the id beside one that several have."""
    checkpoints = list(checkpoints)
    names = [checkpoint.name for checkpoint in checkpoints]
    return {each.id: each.name if names.count(each.name) == 1 else f"{each.name} ({each.id})" for each in checkpoints}


def show_rows(output: Output, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    """Print measurements: a row each for people with its interval, tidy JSON for programs. ``names`` gives checkpoints' names.

    The number of images stands above the table, once for each task, and in the rows where those of a task differ.
    """
    output.records(rows)
    if not rows:
        return
    by_task = {(row["task"], row["split"]): row for row in rows}
    differ = any(row["n"] != by_task[row["task"], row["split"]]["n"] for row in rows)
    several = len({split for _, split in by_task}) > 1
    tasks = {f"{task}@{split}" if several else task: row for (task, split), row in by_task.items()}
    if not differ and (counts := _counts(tasks)):
        output.result(counts.removeprefix(", "))
    output.table(
        ("checkpoint", "task", "split", "metric", "per cent", "95 % interval", *(["n"] if differ else [])),
        [
            (
                names.get(row["checkpoint"], row["checkpoint"]), row["task"], row["split"], row["metric"], percent(row["value"]),
                f"{percent(row['ci_low'])} to {percent(row['ci_high'])}", *([row["n"]] if differ else []),
            )
            for row in rows
        ],
    )  # fmt: skip


def show_seeds(output: Output, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print mean and spread of measurements that differ in nothing but the seed; nothing where there are none."""
    from wisepatch.analysis.seeds import over_seeds

    if len({row["seed"] for row in rows if row["seed"] is not None}) < 2:
        return
    summary = over_seeds(rows).to_dict("records")
    output.records(({str(name): value for name, value in row.items()} for row in summary), "seeds")
    tasks = list(dict.fromkeys(row["task"] for row in summary))
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in summary:
        lines.setdefault((row["split"], row["metric"], row["alpha"]), {})[row["task"]] = row
    chosen = any(row["chosen"] for row in summary)
    body = [
        (
            f"{alpha:g}" if alpha == alpha else "-", split, metric, *(_spread(of.get(task)) for task in tasks),
            *([max(row["chosen"] for row in of.values()) or ""] if chosen else []),
        )
        for (split, metric, alpha), of in sorted(lines.items(), key=lambda line: line[0])
    ]  # fmt: skip
    if body:
        number = max(row["seeds"] for row in summary)
        output.result(f"per cent: mean ± standard deviation over {number} seeds (smallest to largest)")
        output.table(("alpha", "split", "metric", *tasks, *(["chosen by seeds"] if chosen else [])), body)


def _spread(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{percent(row['mean'])} ± {percent(row['sd'])} ({percent(row['low'])} to {percent(row['high'])})"


def show_sweep(output: Output, sweep: Sweep, *, tables: bool = True) -> None:
    """Print a sweep: one table a split for people, unless without ``tables``; rows, then what was chosen, for programs."""
    from wisepatch.workflows.cautions import cautions

    output.records(sweep.rows)
    if sweep.choice and sweep.chosen:
        output.records([{
            "chosen": sweep.chosen.name, "checkpoint": sweep.chosen.id, **_chosen_fields(sweep), "rule": str(sweep.rule),
            "selected_on": sweep.selected_on, "cautions": cautions(sweep), "note": sweep.note, **sweep.facts,
        }], "choice")  # fmt: skip
    for split in sweep.points if tables and not sweep.coefficients else ():
        _show_split(output, sweep, split)


def _chosen_fields(sweep: Sweep) -> dict[str, Any]:
    """Return the alpha that was chosen, or the number of the candidate and its coefficient for each task."""
    assert sweep.choice is not None
    if not sweep.coefficients:
        return {"alpha": sweep.choice.alpha}
    each = zip(sweep.patching_tasks, sweep.coefficients[sweep.choice.alpha], strict=True)
    return {"alpha": None, "candidate": int(sweep.choice.alpha), "coefficients": dict(each)}


def _show_split(output: Output, sweep: Sweep, split: str) -> None:
    """Print the points of one split: the first metric of each task, ``-`` for tasks that are not measured on it.

    Where some of the metrics are better when lower, mean values mean nothing, and the mean score that rules compare is shown.
    """
    from wisepatch.plugins import registry

    known = registry().all("register_metrics")
    rows = [row for row in sweep.rows if row["split"] == split or len(sweep.points) == 1]
    first = {row["task"]: row for row in reversed(rows)}
    tasks = {task: first.get(task) for task in (*sweep.patching_tasks, *sweep.supported)}
    metrics = {
        row["metric"]: row["metric"] not in known or known[row["metric"]].higher_is_better
        for row in tasks.values()
        if row
    }
    measured = {(row["alpha"], row["task"]): row for row in rows if row["metric"] == first[row["task"]]["metric"]}
    mixed = len(set(metrics.values())) > 1
    marks, drop = _marks(sweep, measured)
    fits = len(tasks) * INTERVAL_COLUMNS + 30 <= (output.width or MIN_COLUMNS_OF_A_FILE)
    body, strong = [], None
    for number, point in enumerate(sweep.points[split]):
        chosen = sweep.choice is not None and point.alpha == sweep.choice.alpha
        of_tasks = {task: measured.get((point.alpha, task), {}) for task in tasks}
        cells = [f"{point.alpha:g}"]
        for task, row in of_tasks.items():
            text = with_interval(row) if chosen or fits else percent(row.get("value"))
            cells.append(text + (marks.get((point.alpha, task)) or " " if marks and task in sweep.supported else ""))
        if sweep.patched:
            cells.append(percent(point.patching))
        if sweep.supported:
            mean = None if point.supported is None else (point.patching + point.supported) / 2
            supported = percent(point.supported)
            if chosen or fits:
                supported = with_interval(_mean_row([of_tasks[task] for task in sweep.supported], point.supported))
            cells += [percent(point.mean_score)] if mixed else [supported, percent(mean)]
        if sweep.choice:
            strong = number if chosen else strong
            cells.append("chosen" if chosen else "")
        body.append(cells)
    columns = [
        "alpha",
        *(task if not row or row["split"] == split else f"{task}@{row['split']}" for task, row in tasks.items()),
    ]
    if sweep.patched:
        columns.append("patched")
    if sweep.supported:
        columns += ["mean score"] if mixed else ["supported", "mean"]
    note = ""
    if sweep.choice:
        columns.append("")
        seen = "chosen on this split" if split == sweep.selected_on else f"alpha was chosen on {sweep.selected_on}"
        note = f" ({seen}{', TEST DATA' if sweep.selected_on == 'test' else ''})"
    words = " / ".join(name if higher else f"{name} (lower is better)" for name, higher in metrics.items())
    output.result(f"{words} in per cent, {split} split{note}{_counts(tasks)}")
    output.table(columns, body, strong=strong)
    if set(marks.values()) - {""}:
        output.result(
            "* worse than at alpha 0 beyond chance (McNemar's exact test, p < 0.05, Holm over the supported tasks)"
        )
        points = "point" if drop == 0.01 else "points"
        output.result(f"? too few images to exclude, at 95 %, a drop of more than {100 * drop:g} {points}")


def _marks(
    sweep: Sweep, measured: Mapping[tuple[float, str], Mapping[str, Any]]
) -> tuple[dict[tuple[float, str], str], float]:
    """Return the mark of each alpha and supported task, where images were counted, and the drop that is asked about."""
    from wisepatch.analysis.comparison import TELLING_DROP, drop_marks

    drop = (sweep.rule and getattr(sweep.rule.value, "drop", None)) or TELLING_DROP
    counts: dict[float, dict[str, tuple[int, int, int]]] = {}
    for (alpha, task), row in measured.items():
        if alpha and task in sweep.supported and row.get("broken") is not None:
            counts.setdefault(alpha, {})[task] = (row["fixed"], row["broken"], row["n"])
    return {(alpha, task): mark for alpha, of in counts.items() for task, mark in drop_marks(of, drop).items()}, drop


def _mean_row(rows: Sequence[Mapping[str, Any]], value: float | None) -> dict[str, Any]:
    """Return a mean over tasks with its interval, as a row; without one where a task has none."""
    from wisepatch.analysis.intervals import of_means

    known = [row for row in rows if row.get("ci_low") is not None]
    if value is None or not known or len(known) < sum(bool(row) for row in rows):
        return {"value": value}
    low, high = of_means(*([row[name] for row in known] for name in ("value", "ci_low", "ci_high")))
    return {"value": value, "ci_low": low, "ci_high": high}


def _counts(tasks: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return on how many images each task was measured; one number where it is the same for all."""
    numbers = {task: row["n"] for task, row in tasks.items() if row and row.get("n")}
    if not numbers:
        return ""
    limits = {row["limit"] for row in tasks.values() if row and row.get("limit")}
    limited = "".join(f" (limited to {limit} of a split)" for limit in limits)
    if len(set(numbers.values())) == 1:
        return f", n = {next(iter(numbers.values()))}{limited}"
    return f", n = {', '.join(f'{n} ({task})' for task, n in numbers.items())}{limited}"
