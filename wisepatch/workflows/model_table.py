"""Put models side by side, task by task: what there was before, the ends, what was chosen; changes are tested image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wisepatch.analysis.comparison import LEVEL, Difference, adjusted, difference, too_few
from wisepatch.analysis.intervals import of_means
from wisepatch.analysis.same_images import shown_by
from wisepatch.evaluation.prediction import Predictions
from wisepatch.process_group import on_main
from wisepatch.store.checkpoints import Checkpoint
from wisepatch.store.results import append
from wisepatch.training.finetuning import Finetuned
from wisepatch.workflows.patch_job import PatchJob
from wisepatch.workflows.sweep import Sweep, name_of_start, zeroshot_below
from wisepatch.workflows.sweep_plan import TEST

PATCHING, SUPPORTED, ALSO = ROLES = ("patching", "supported", "also")
WORSE, BETTER, TOO_FEW = "*", "+", "?"


@dataclass(frozen=True)
class Cell:
    """A model on a task: the first metric with its interval, and the change from the first model on the same images.

    ``low`` and ``high`` are ``None`` for a metric without an interval, ``change`` for the first model.
    """

    task: str
    split: str
    role: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    change: Difference | None = None
    images: str = ""  # the task whose images these are, where it is another

    @property
    def mark(self) -> str:
        """Return ``*`` for worse and ``+`` for better beyond chance, ``?`` where a supported task has too few images to tell."""
        if self.change is None:
            return ""
        if self.change.p_holm < LEVEL:
            return BETTER if self.change.fixed > self.change.broken else WORSE
        few = self.role == SUPPORTED and too_few(self.change.fixed, self.change.broken, self.change.n)
        return TOO_FEW if few else ""


@dataclass(frozen=True)
class Table:
    """Models by their labels, and the cells of each, in the order of the tasks."""

    models: Mapping[str, Checkpoint]
    cells: Mapping[str, tuple[Cell, ...]]

    @property
    def tasks(self) -> list[Cell]:
        """Return the cells of the first model: a task each."""
        return list(next(iter(self.cells.values())))

    def mean(self, label: str, role: str) -> tuple[float, float | None, float | None] | None:
        """Return the mean of a model over the tasks of a role, with its interval; ``None`` where there are less than two."""
        cells = [cell for cell in self.cells[label] if cell.role == role]
        if len(cells) < 2:
            return None
        values, lows, highs = ([getattr(cell, name) for cell in cells] for name in ("value", "low", "high"))
        value = sum(values) / len(values)
        if None in lows:
            return value, None, None
        return value, *of_means(values, lows, highs, [cell.images or cell.task for cell in cells])

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield each cell as JSON types."""
        for label, cells in self.cells.items():
            for cell in cells:
                change = cell.change.record() if cell.change else {}
                yield {
                    "model": label, "checkpoint": self.models[label].id, "task": cell.task, "split": cell.split, "role": cell.role,
                    "metric": cell.metric, "value": cell.value, "n": cell.n, "ci_low": cell.low, "ci_high": cell.high,
                    "mark": cell.mark,
                    **{name: change.get(name) for name in ("difference", "low", "high", "fixed", "broken", "p", "p_holm")},
                }  # fmt: skip


def model_table(job: PatchJob, runs: Sequence[Finetuned], sweeps: Sequence[Sweep]) -> Table:
    """Measure on test data what a patch began with, its ends (one after the other: the models patched on the way), and the choice.

    Tasks that are measured ``also``, which had no part in training and choice (broad transfer, PAINT section 5), stand below.
    Answers that the store holds are not computed again.
    """
    plan, store, last = job.plan, job.run.store, sweeps[-1]
    assert last.chosen is not None
    start = runs[0].zeroshot
    below = zeroshot_below(store, start)
    models = {"zero-shot": below[0], name_of_start(store, start): start} if below else {"zero-shot": start}
    if len(sweeps) > 1:
        models |= {
            f"patched on {' and '.join(sweep.patching_tasks)}": sweep.chosen for sweep in sweeps[:-1] if sweep.chosen
        }
    elif len(runs) > 1:
        models |= {
            f"fine-tuned on {task.name}": run.finetuned for task, run in zip(plan.patching.each, runs, strict=True)
        }
    else:
        models["fine-tuned"] = runs[0].finetuned
    models["patched"] = last.chosen
    roles = (
        dict.fromkeys(plan.patching.each, PATCHING)
        | dict.fromkeys(plan.others, SUPPORTED)
        | dict.fromkeys(plan.also, ALSO)
    )
    answers: dict[str, Predictions] = {}
    measured = models | {"patched": _measured(last)}
    checkpoints = list({checkpoint.id: checkpoint for checkpoint in measured.values()}.values())
    known = {(row["checkpoint"], row["task"]) for sweep in sweeps for row in sweep.rows if row["split"] == TEST}
    rows = job.run.measure(
        checkpoints, list(roles), TEST, plan.metrics, notes=False,
        extra_fields=lambda _, task: {"alpha": None, "role": roles[task]},  # of no sweep
        watch=lambda predictions: answers.update({predictions.task.name: predictions}),
    )  # fmt: skip
    fresh = [row for row in rows if (row["checkpoint"], row["task"]) not in known]
    on_main(lambda: append(store.results, fresh))
    places = {checkpoint.id: place for place, checkpoint in enumerate(checkpoints)}
    cells: dict[str, tuple[Cell, ...]] = {}
    for label, checkpoint in measured.items():
        of_model = [_cell(rows, answers[task.name], places[checkpoint.id], role) for task, role in roles.items()]
        if cells:  # the first is what changes are counted from
            changes = adjusted(_change(answers[cell.task], places[checkpoint.id]) for cell in of_model)
            of_model = [replace(cell, change=change) for cell, change in zip(of_model, changes, strict=True)]
        cells[label] = tuple(of_model)
    return Table(models, cells)


def _measured(sweep: Sweep) -> Checkpoint:
    """Return the mix that the patched model has the weights of, whose answers are there; itself where it is an endpoint."""
    assert sweep.choice is not None
    assert sweep.chosen is not None
    mix = sweep.checkpoints[sweep.choice.alpha]
    return mix if mix.recipe == sweep.chosen.recipe else sweep.chosen


def _cell(rows: Sequence[Mapping[str, Any]], answers: Predictions, place: int, role: str) -> Cell:
    """Return the first metric of a model on a task."""
    task, checkpoint = answers.task.name, answers.checkpoints[place].id
    row = next(row for row in rows if (row["task"], row["checkpoint"]) == (task, checkpoint))
    return Cell(
        task, answers.split, role, row["metric"], row["value"], row["ci_low"], row["ci_high"], row["n"], images=shown_by(row)
    )  # fmt: skip


def _change(answers: Predictions, place: int) -> Difference:
    """Compare the model at a place with the first on the images that each has right."""
    right = answers.predicted == answers.labels
    return difference(answers.task.name, right[0], right[place])
