"""The answers of one checkpoint to one split, as the store holds them: nothing is computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wisepatch.errors import StoreError
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.predictions import read_predictions
from wisepatch.workflows.comparing import answers_by_task, eval_command, task_key

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class KeptAnswers:
    """Answers to the images of a split: ``frame`` has ``image, label, answer, confidence``, numbers of ``classes``."""

    checkpoint: Checkpoint
    task: str
    split: str
    classes: tuple[str, ...]
    frame: pd.DataFrame


def find_answers(store: Store, checkpoint: Checkpoint, task: str | None = None, split: str = "test") -> KeptAnswers:
    """Read the newest answers of a checkpoint to a task, or to the task that it was trained on.

    Raises :class:`StoreError` where the store holds none, or several tasks and nothing says which; :class:`UnknownNameError` for a
    task that is not known.
    """
    kept = answers_by_task(store, checkpoint)
    known = [name for name, of in reversed(kept) if of == split]  # as they were measured
    command = eval_command([checkpoint], [task or "TASK"], split)
    label = f"{checkpoint.name} ({checkpoint.id})"
    if task is None:
        task = default_task(store, [checkpoint], split)
        if task is None and known:
            raise StoreError(f"{label} has answered several tasks", f"name one with --task: {', '.join(known)}")
    key = task_key(task, split, list(kept)) if task else ("", split)
    if key not in kept:
        of = f" to {key[0]}" if task else ""
        splits = sorted({name for answered, name in kept if answered == key[0]})
        other = (
            f"; it has answered its {', '.join(splits)} split"
            if splits
            else f"; answered: {', '.join(known)}"
            if known
            else ""
        )
        raise StoreError(
            f"the store holds no predictions of {label}{of} on the {split!r} split", f"make them: {command}{other}"
        )
    path, details = kept[key][0]
    return KeptAnswers(checkpoint, *key, tuple(details["classes"]), read_predictions(path))


def default_task(store: Store, checkpoints: Sequence[Checkpoint], split: str = "test") -> str | None:
    """Return the task that one of the checkpoints was trained on, where it was answered, or the only one that was.

    ``None`` where nothing says which.
    """
    known = dict.fromkeys(name for each in checkpoints for name, of in answers_by_task(store, each) if of == split)
    ends = [end for each in checkpoints for end in (each, *(store.parents(each)[-1:] if each.recipe else ()))]
    for end in ends:
        if "task" in end.config and known:
            task, _ = task_key(str(end.config["task"]), split, [(name, split) for name in known])
            if task in known:
                return task
    return next(iter(known)) if len(known) == 1 else None
