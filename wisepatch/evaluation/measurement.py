"""Measure many checkpoints on many tasks: rows of results with their intervals, and predictions kept image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wisepatch.analysis.corruption_errors import RELATIVE, relative_error
from wisepatch.analysis.metrics import measurements
from wisepatch.analysis.same_images import IMAGES, images_of
from wisepatch.config import EvalConfig, listed
from wisepatch.evaluation.prediction import Predictions
from wisepatch.evaluation.recall import about_answers, predict_missing
from wisepatch.files import expanded
from wisepatch.hookspecs import Measured, Metric
from wisepatch.plugins import find_metric
from wisepatch.process_group import on_main
from wisepatch.progress import Progress, Silent
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.predictions import save_predictions
from wisepatch.store.results import append, showing
from wisepatch.tasks import Task, as_tasks


def evaluate(
    checkpoints: Sequence[Checkpoint | str] | Checkpoint | str,
    tasks: Sequence[Task | str] | Task | str,
    store: Store,
    data: Path | str,
    *,
    split: str = "test",
    metrics: Sequence[str] | str = (),
    run: str = "",
    run_name: str = "",
    extra_fields: Callable[[Checkpoint, Task], Mapping[str, Any]] | None = None,
    record: bool = True,
    watch: Callable[[Predictions], object] | None = None,
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure every checkpoint on every task, append the rows to the store's results, and return them.

    Checkpoints, tasks and metrics may be named, and one of them stands for a list of one.
    A task that names a split (``NAME@val``) keeps it. ``metrics`` replaces each task's own. ``extra_fields`` gives further
    fields of the rows of a checkpoint and task, or other values. Without ``record`` the rows are returned and not appended.

    Per-image predictions go to ``predictions/``, and to ``watch`` if given, task by task. Those that are there already are not
    computed again, unless ``settings.again``. Of several processes, which share the images, the main one measures and writes, and
    all return the rows.

    Raises the errors of data, model and store, and :class:`UnknownNameError` for an unknown metric, before any work.
    """
    settings = settings or EvalConfig()
    data, metrics, tasks = expanded(data), listed(metrics), as_tasks(tasks)
    found = [store.find(each) if isinstance(each, str) else each for each in listed(checkpoints)]
    metrics_of = {task.name: metrics_for(task, metrics) for task in tasks}
    for task in tasks:
        task.dataset.check_split(task.split or split)
    rows: list[dict[str, Any]] = []
    for predictions in predict_missing(
        found, tasks, store, data, split=split, settings=settings, progress=progress or Silent()
    ):

        def measure(
            predictions: Predictions = predictions, unrecorded: Sequence[dict[str, Any]] = () if record else tuple(rows)
        ) -> list[dict[str, Any]]:
            task = predictions.task
            rows_of_task = [
                row | {"run_name": run_name} | dict(extra_fields(checkpoint, task) if extra_fields else {})
                for index, checkpoint in enumerate(predictions.checkpoints)
                for row in _rows(checkpoint, predictions, index, metrics_of[task.name], run)
            ]
            with showing([*unrecorded, *rows_of_task]):
                _save(predictions, store, settings)
            return append(store.results, rows_of_task) if record else rows_of_task

        rows += on_main(measure)
        if watch:
            watch(predictions)
    return rows


def _save(predictions: Predictions, store: Store, settings: EvalConfig) -> None:
    """Store the answers image by image, a file a checkpoint, but for those that come from there."""
    task = predictions.task
    for index, checkpoint in enumerate(predictions.checkpoints):
        if checkpoint.id in predictions.recalled:
            continue
        save_predictions(
            store, checkpoint, task.name, predictions.split,
            {
                "image": predictions.image_ids, "label": predictions.labels,
                "answer": predictions.predicted[index], **predictions.scores_of(index)._asdict(),
            },
            about_answers(task, predictions.fingerprint, settings),
        )  # fmt: skip


def metrics_for(task: Task, asked: Sequence[str] = ()) -> list[Metric]:
    """Return the metrics asked for, or the task's own. Raises :class:`UnknownNameError`."""
    return [find_metric(name) for name in asked or (task.dataset.metric, *task.dataset.extra_metrics)]


def _rows(
    checkpoint: Checkpoint, predictions: Predictions, index: int, metrics: Sequence[Metric], run: str
) -> Iterator[dict[str, Any]]:
    task = predictions.task
    params = checkpoint.recipe.params if checkpoint.recipe else {}
    # Only where the names of the tasks do not tell.
    other = images_of(predictions.images or task.name) != images_of(task.name)
    shown = {IMAGES: predictions.images} if other else {}
    for metric in metrics:
        for name, measured in _measured(checkpoint, metric, predictions, index):
            yield {
                "run": run, "checkpoint": checkpoint.id, **checkpoint.model, "training": checkpoint.training,
                "method": checkpoint.method, "alpha": alpha_of(checkpoint),
                "params": {key: value for key, value in params.items() if key != "alpha"},
                "task": task.name, "split": predictions.split, "metric": name, "value": measured.value, "n": measured.n,
                "ci_low": measured.low, "ci_high": measured.high, "seed": checkpoint.config.get("seed"),
                "limit": task.dataset.limit, **shown,
            }  # fmt: skip


def _measured(
    checkpoint: Checkpoint, metric: Metric, predictions: Predictions, index: int
) -> Iterator[tuple[str, Measured]]:
    """Measure answers; of several corruptions also the errors relative to those of the zero-shot checkpoint, where it is there."""
    labels, answers, classes = predictions.labels, predictions.predicted[index], len(predictions.task.dataset.classes)
    yield from measurements(metric, labels, answers, classes, predictions.annotations, predictions.scores_of(index))
    if metric.name == "worst_corruption":
        for other, zeroshot in zip(predictions.checkpoints, predictions.predicted, strict=True):
            if (other.kind, other.model) == ("zeroshot", checkpoint.model):
                relative = relative_error(answers == labels, zeroshot == labels)
                yield from [(RELATIVE, relative)] if relative else []
                return


def alpha_of(checkpoint: Checkpoint) -> float | None:
    """Return the alpha of a checkpoint: 0 for a zero-shot one, 1 for a fine-tuned one, of a mix the recipe's."""
    return {"zeroshot": 0.0, "finetuned": 1.0}.get(checkpoint.kind, checkpoint.alpha)
