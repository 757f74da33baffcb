"""Options of ``wisepatch plot``: which data is drawn, how it looks, and what belongs to which kind of picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from wisepatch.cli import completion
from wisepatch.config import setting
from wisepatch.errors import UsageError
from wisepatch.files import in_utf8

if TYPE_CHECKING:
    from wisepatch.reports.plots import Look

LOOK = "How it looks"
DATA = "What is drawn"
ROBUSTNESS = ("split", "metric", "reference_task", "shift", "reference")
ANSWERS = ("split", "checkpoint", "task")
TAKES = {  # beside the look: the options of each kind
    "frontier": ("patching", "supported", "split", "metric"),
    "robustness": ROBUSTNESS,
    "alpha": ("split", "metric"),
    "per-task": ("split", "metric", "task"),
    "layers": ("checkpoint",),
    "training": (),
    "confusion": ANSWERS,
    "calibration": ANSWERS,
}
OF_RUNS = ("frontier", "robustness", "alpha", "per-task", "training")
OF_RESULTS = OF_RUNS[:-1]
ALIASES = {"sweep": "frontier"}


@dataclass(frozen=True)
class DataOptions:
    """Tasks, splits and checkpoints that are drawn; which of these a kind takes is in :data:`TAKES`."""

    patching: str | None = setting(None, "The patching task, where the results do not say it.", DATA)
    supported: list[str] | None = setting(
        None, "The tasks to average across. (default: all but the patching task)", DATA
    )
    split: str | None = setting(None, "Which split to draw. (default: test)", DATA)
    metric: str | None = setting(None, "A metric, for the first of each run.", DATA, complete=completion.metrics)
    reference_task: str | None = setting(
        None,
        "robustness: the task across. (default: ImageNet, else the patching task)",
        DATA,
        complete=completion.tasks,
    )
    shift: list[str] | None = setting(
        None,
        "robustness: the tasks up. (default: the known shifts of the reference task)",
        DATA,
        complete=completion.tasks,
    )
    reference: Path | None = setting(
        None, "robustness: a CSV of standard models, a row a model and a column a task, to fit the lines to.", DATA
    )
    checkpoint: list[str] | None = setting(
        None, "layers, confusion, calibration: whose weights or answers. (default: finetuned, else latest)", DATA,
        complete=completion.checkpoints,
    )  # fmt: skip
    task: list[str] | None = setting(
        None, "confusion, calibration: the task (default: the trained one). per-task: those to draw.", DATA,
        complete=completion.tasks,
    )  # fmt: skip

    @property
    def on(self) -> str:
        """Return the split."""
        return self.split or "test"

    def given(self) -> list[str]:
        """Return the names of the options that were given."""
        return [field.name for field in fields(self) if getattr(self, field.name)]


@dataclass(frozen=True)
class LookOptions:
    """The look of a picture."""

    size: str | None = setting(None, "Width and height: 7x5 (inches), 18x12cm, 1200x800px.", LOOK)
    label: list[str] | None = setting(
        None, "NAME=TEXT: what a run, task, class or checkpoint is called. Repeatable.", LOOK
    )
    title: str | None = setting(None, "A title of your own; '' for none.", LOOK)
    paper: bool = setting(
        default=False, help="For a paper: as wide as a column (panels: a page), a serif font, no title.", panel=LOOK
    )
    dark: bool = setting(default=False, help="Light on a dark ground.", panel=LOOK)

    def look(self) -> Look:
        """Return the look. Raises :class:`UsageError` for a size or label that cannot be understood."""
        from wisepatch.reports.plots import Look, parse_labels, parse_size

        size = parse_size(self.size) if self.size else None
        return Look(size, parse_labels([in_utf8(word) for word in self.label or ()]), self.paper, self.dark)

    def own_title(self) -> str | None:
        """Return the title that was given; an empty one is none."""
        return None if self.title is None else in_utf8(self.title)


def check_options(
    kind: str, data: DataOptions, *, over_alpha: bool, results: bool, run: bool, compare: Sequence[str]
) -> str:
    """Return the kind to draw. Raises :class:`UsageError` for options that it does not take."""
    kind = ALIASES.get(kind, kind)
    if over_alpha and kind not in ("frontier", "alpha"):
        draws = "what trainings of the store have logged" if kind == "training" else "another picture"
        raise UsageError(f"--kind {kind} draws {draws}, --over-alpha each task over alpha", "give one of the two")
    kind = "alpha" if over_alpha else kind
    given = [
        *data.given(),
        *(["RESULTS"] if results else []),
        *(["run"] if run else []),
        *(["compare"] if compare else []),
    ]
    takes = (
        *TAKES[kind], *(("RESULTS",) if kind in OF_RESULTS else ()), *(("run", "compare") if kind in OF_RUNS else ()),
    )  # fmt: skip
    stray = [_written(name) for name in given if name not in takes]
    if stray:
        own = ", ".join(_written(name) for name in takes) or "none"
        raise UsageError(
            f"--kind {kind} does not take {', '.join(stray)}", f"leave it out; beside its look it takes: {own}"
        )
    if run and compare:
        raise UsageError("--run and --compare both name runs", "give one of the two")
    if compare and kind == "alpha":
        raise UsageError("--kind alpha draws the tasks of one run", "compare runs with --kind per-task, or frontier")
    return kind


def _written(name: str) -> str:
    return name if name == "RESULTS" else f"--{name.replace('_', '-')}"
