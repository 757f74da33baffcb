"""``wisepatch eval``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from wisepatch.cli import options as o
from wisepatch.cli.results import labels, show_rows, show_seeds
from wisepatch.config import EvalConfig
from wisepatch.errors import StoreError
from wisepatch.reports.numbers import percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wisepatch.cli.output import Output
    from wisepatch.evaluation.prediction import Predictions
    from wisepatch.store.checkpoints import Checkpoint, Store

MATRIX_CLASSES = 12  # at most, to show the whole matrix
WORST_PAIRS = 20


@o.with_settings
def command(
    checkpoints: o.CheckpointsArgument,
    names: o.ClassOptions,
    evaluation: EvalConfig,
    machine: o.Machine,
    common: o.Common,
    task: o.TaskOption = [],  # noqa: B006 -- Typer copies defaults
    split: o.SplitOption = "test",
    metric: o.MetricOption = [],  # noqa: B006
    limit: o.LimitOption = None,
    per_class: o.PerClassOption = False,
    confusion: o.ConfusionOption = False,
    wide: o.WideOption = False,
    form: o.FormatOption = "table",
) -> None:
    """Measure any checkpoints on any tasks, all checkpoints in one pass over the data.

    Without --task: the task that one of them was trained on, and the supported ones of that run.

    Example: `wisepatch eval zeroshot finetuned patched --task MNIST,CIFAR10`, `wisepatch eval patched --per-class --confusion`

    Example: `wisepatch eval zeroshot patched --task photos,corrupt:photos,corrupt:photos:fog:3 --limit 500`
    """
    common = common.printing(form)
    output, metrics = replace(common, as_json=common.as_json or wide).output, o.metric_names(metric)
    classnames, templates = names.names(), names.templates()
    store, data = common.open_store(), common.data_folder()
    named = o.find_checkpoints(store, checkpoints)
    if stray := of_other_runs(common, o.split_list(checkpoints), named):
        output.say(f"note: {stray}")
    from wisepatch.evaluation.measurement import evaluate
    from wisepatch.store.wide_records import to_wide
    from wisepatch.workflows.preflight import evaluation_splits, preflight
    from wisepatch.workflows.run import new_run
    from wisepatch.workflows.tasks_of_run import evaluation_tasks

    tasks = evaluation_tasks(named, names.task_words(task), classnames, templates, limit)
    preflight(evaluation_splits(tasks, split), data, metrics, store=store)
    answers: list[Predictions] = []
    rows = evaluate(
        named, tasks, store, data, split=split, metrics=metrics, run=new_run("eval"), settings=evaluation,
        progress=output.progress(), watch=answers.append if per_class or confusion else None,
    )  # fmt: skip
    if wide:
        output.records(to_wide(rows), "wide")
    else:
        show_rows(output, rows, labels(named))
        show_seeds(output, rows)
    for each in answers:
        if per_class:
            show_classes(output, each, labels(named))
        if confusion:
            show_confusions(output, each, labels(named))


def show_classes(output: Output, of_task: Predictions, names: Mapping[str, str]) -> None:
    """Print the accuracy and precision of each class, a row a checkpoint."""
    from wisepatch.analysis.comparison import class_accuracies

    task, classes, rows = of_task.task.name, of_task.task.dataset.classes, []
    for checkpoint, answers in zip(of_task.checkpoints, of_task.predicted, strict=True):
        for name, measured, precision in class_accuracies(of_task.labels, answers, classes):
            facts = {"n": measured.n, "accuracy": measured.value, "ci_low": measured.low, "ci_high": measured.high}
            of = {"task": task, "split": of_task.split, "checkpoint": checkpoint.id, "class": name}
            output.records([of | facts | {"precision": precision}], "class")
            interval = f"{percent(measured.low)} to {percent(measured.high)}"
            rows.append((name, names[checkpoint.id], percent(measured.value), interval, percent(precision), measured.n))
    rows.sort(key=lambda row: classes.index(row[0]))
    last = {number for number, row in enumerate(rows[:-1]) if row[0] != rows[number + 1][0]}
    columns = (f"class of {task}", "checkpoint", "per cent", "95 % interval", "precision", "n")
    output.table(columns, rows, ends=last if len(names) > 1 else ())


def show_confusions(output: Output, of_task: Predictions, names: Mapping[str, str]) -> None:
    """Print how often each class is taken for which: of few classes the matrix of each checkpoint, of many the worst pairs."""
    from wisepatch.analysis.comparison import confusions

    task, classes = of_task.task.name, of_task.task.dataset.classes
    for checkpoint, answers in zip(of_task.checkpoints, of_task.predicted, strict=True):
        pairs = confusions(of_task.labels, answers, answers)
        of = {"task": task, "split": of_task.split, "checkpoint": checkpoint.id}
        output.records(
            (
                {**of, "label": classes[pair.label], "answer": classes[pair.answer], "images": pair.after}
                for pair in pairs
            ),
            "confusion",
        )
        output.result(f"{names[checkpoint.id]} on {task} ({of_task.split}): images by class and answer")
        if len(classes) <= MATRIX_CLASSES:
            counts = [
                [int(((of_task.labels == i) & (answers == j)).sum()) for j in range(len(classes))]
                for i in range(len(classes))
            ]
            output.table(
                ("shows", *classes),
                [(name, *row) for name, row in zip(classes, counts, strict=True)],
            )
        else:
            shown = [(classes[pair.label], classes[pair.answer], pair.after) for pair in pairs[:WORST_PAIRS]]
            output.table(("shows", "taken for", "images"), shown)


def of_other_runs(common: o.Common, words: Sequence[str], named: Sequence[Checkpoint]) -> str:
    """Say which of the newest checkpoints of their kinds belong to different runs; an empty string where all are of one."""
    from wisepatch.store.references import REFERENCES

    newest = [checkpoint for checkpoint in named if checkpoint.id not in words and set(words) & set(REFERENCES)]
    store = common.open_store()
    families = {checkpoint.id: _family(store, checkpoint) for checkpoint in newest}
    for number, one in enumerate(newest):
        for other in newest[number + 1 :]:
            if one.id in families[other.id] or other.id in families[one.id] or one.parents == other.parents != ():
                continue
            last = max(newest, key=lambda each: (each.recipe is not None, each.created))
            whole = common.again("eval", *last.parents, last.id)
            return f"{one.name} ({one.id}) and {other.name} ({other.id}) are of different runs; of one run: {whole}"
    return ""


def _family(store: Store, checkpoint: Checkpoint) -> set[str]:
    """Return the ids of a checkpoint and of all that it comes from, as far as these are there."""
    family, waiting = set(), [checkpoint.id]
    while waiting:
        identity = waiting.pop()
        family.add(identity)
        with suppress(StoreError):
            waiting += [parent for parent in store.get(identity).parents if parent not in family]
    return family
