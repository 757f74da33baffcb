"""Recall answers that the store holds, and compute only those that are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wisepatch.analysis.same_images import shown_together
from wisepatch.config import EvalConfig
from wisepatch.datasets.duplicates import share_files
from wisepatch.datasets.samples import Split, Subset, own_files
from wisepatch.evaluation.prediction import Predictions, predict_many
from wisepatch.files import in_utf8
from wisepatch.hookspecs import Scores
from wisepatch.process_group import on_main
from wisepatch.progress import Progress
from wisepatch.store.cache import versions
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.predictions import load_predictions
from wisepatch.tasks import Task

if TYPE_CHECKING:
    import pandas as pd


def predict_missing(
    checkpoints: Sequence[Checkpoint],
    tasks: Sequence[Task],
    store: Store,
    data: Path,
    *,
    split: str,
    settings: EvalConfig,
    progress: Progress,
) -> Iterator[Predictions]:
    """Yield each task's predictions by all checkpoints, in one pass over the images for those that the store does not hold.

    Answers are recalled where images, classes, prompts, precision and versions are the same, unless ``settings.again``.
    """
    opened = [task.dataset.split(task.split or split, data) for task in tasks]
    shown = shown_together({task.name: own_files(each) for task, each in zip(tasks, opened, strict=True)}, share_files)
    # What one process alone finds would have it wait for a pass that the others do not make.
    recalled = on_main(
        lambda: [
            _recall(checkpoints, task, each, store, data, settings, progress)
            for task, each in zip(tasks, opened, strict=True)
        ]
    )
    missing = [[c for c in checkpoints if c.id not in frames] for frames in recalled]
    for _, group in groupby(range(len(tasks)), key=lambda index: [c.id for c in missing[index]]):
        indices = list(group)
        todo = missing[indices[0]]
        passes: Iterator[Predictions | None] = iter([None] * len(indices))
        if todo or not checkpoints:
            group_tasks = [tasks[index] for index in indices]
            passes = iter(
                predict_many(todo, group_tasks, store, data, split=split, settings=settings, progress=progress)
            )
        for index, computed in zip(indices, passes, strict=True):
            joined = _joined(checkpoints, tasks[index], opened[index], recalled[index], computed)
            yield replace(joined, images=shown[tasks[index].name])


def about_answers(task: Task, fingerprint: str, settings: EvalConfig) -> dict[str, Any]:
    """Return what answers depend on beside the checkpoint, as JSON types."""
    return {
        "spec": task.base_spec, "fingerprint": fingerprint, "precision": settings.mixed_precision,
        "classes": list(task.dataset.classes), "templates": list(task.dataset.templates),
        "versions": versions("torch", "torchvision", "pillow", "open_clip_torch"),
    }  # fmt: skip


def _recall(
    checkpoints: Sequence[Checkpoint],
    task: Task,
    opened: Split,
    store: Store,
    data: Path,
    settings: EvalConfig,
    progress: Progress,
) -> dict[str, pd.DataFrame]:
    """Return the stored answers by the id of the checkpoint."""
    if settings.again:
        return {}
    frames: dict[str, pd.DataFrame] = {}
    for held, places in _holding(task, opened, data):
        about, images = about_answers(task, held.fingerprint(), settings), [*map(in_utf8, held.image_ids())]
        for checkpoint in checkpoints:
            if checkpoint.id in frames:
                continue
            frame = load_predictions(store, checkpoint, task.name, opened.name, about, note=progress.note)
            # Earlier versions kept no scores beside the confidence, and named written-on images by their index.
            if frame is not None and list(frame["image"]) == images and {*Scores._fields} <= {*frame.columns}:
                frames[checkpoint.id] = frame if places is None else frame.iloc[places].reset_index(drop=True)
    if frames:
        of = f"{len(frames)} of {len(checkpoints)} checkpoints" if len(checkpoints) > 1 else checkpoints[0].name
        progress.note(f"{task.name} ({opened.name}): the store holds the answers of {of}; --again computes them anew")
    return frames


def _holding(task: Task, opened: Split, data: Path) -> Iterator[tuple[Split, list[int] | None]]:
    """Yield the split and, where it is limited, the whole one with the places of its images there."""
    yield opened, None
    if task.dataset.limit and isinstance(opened.samples, Subset):
        whole = replace(task.dataset, limit=None).split(opened.name, data)
        if len(whole) > len(opened):
            yield whole, list(opened.samples.indices)


def _joined(
    checkpoints: Sequence[Checkpoint],
    task: Task,
    opened: Split,
    frames: dict[str, pd.DataFrame],
    computed: Predictions | None,
) -> Predictions:
    """Put recalled and computed answers into the order of the checkpoints."""
    if computed is not None and not frames:
        return computed
    columns = ("answer", *Scores._fields)
    rows = {identity: [frame[column].to_numpy() for column in columns] for identity, frame in frames.items()}
    if computed is not None:
        rows |= {
            checkpoint.id: [computed.predicted[index], *computed.scores_of(index)]
            for index, checkpoint in enumerate(computed.checkpoints)
        }
    first = next(iter(frames.values()))
    # Answers taken from those to all images get a file beside others to these images alone: the two are compared by it.
    of_these = {identity for identity, frame in frames.items() if frame.attrs["fingerprint"] == opened.fingerprint()}
    recalled = {*frames} if computed is None and not of_these else of_these
    predicted, *scores = (
        np.stack([rows[checkpoint.id][column] for checkpoint in checkpoints]) for column in range(len(columns))
    )
    return Predictions(
        task, opened.name, tuple(checkpoints), first["label"].to_numpy(), predicted, Scores(*scores), opened.annotations,
        list(first["image"]), opened.fingerprint(), frozenset(recalled),
    )  # fmt: skip
