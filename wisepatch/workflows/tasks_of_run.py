"""The tasks of a run: what its checkpoints are measured on, where nothing else is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wisepatch.datasets.splits import CUT, FIRST_CUT
from wisepatch.errors import UsageError
from wisepatch.store.checkpoints import Checkpoint
from wisepatch.task_roles import other_tasks, several_tasks
from wisepatch.task_specs import canonical, without_split
from wisepatch.tasks import Task, as_tasks, check_names_of_one, distinct, find_task


def tasks_of_run(
    finetuned: Checkpoint, others: Sequence[Task | str] | Task | str | None = None, limit: int | None = None
) -> tuple[Task, list[Task]]:
    """Return the patching task of a fine-tuned checkpoint, as it was trained (several as one), and the other tasks to measure.

    ``others`` of ``None`` means the supported tasks of its run. Of a checkpoint that does not say what it was trained on, which was
    imported, the first of ``others`` is the patching task. ``limit`` is the number of images of each split at most. Raises
    :class:`UsageError` where two of them would be told apart by nothing but a split or a folder.
    """
    config = finetuned.config
    if "task" not in config:
        if not others:
            raise UsageError(
                f"{finetuned.name} does not say what it was trained on",
                "name that first with --eval, and then the other tasks",
            )
        patching, *rest = as_tasks(others)
        return patching, other_tasks(patching, rest)
    names, templates = config.get("classnames"), config.get("templates")
    patching = several_tasks([find_task(word, names, templates, _cut(config), limit) for word in patched_words(config)])
    words = config.get("supported") or () if others is None else others
    return patching, other_tasks(patching, words, _cut(config), limit)


def patched_words(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words for the tasks that a checkpoint was trained or patched on, one or several."""
    return tuple(config.get("tasks") or (config["task"],))


def _cut(config: Mapping[str, Any]) -> int:
    """Return how the files were cut that a checkpoint was trained on; those of early versions do not say it."""
    cut: int = config.get("cut", FIRST_CUT)
    return cut


def evaluation_tasks(
    checkpoints: Sequence[Checkpoint],
    specs: Sequence[str],
    classnames: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[Task]:
    """Return the tasks to measure some checkpoints on.

    Without ``specs`` the task that one of them was trained on, and the supported ones of its run. A task that one was trained
    on keeps the class names and prompts of that run unless others are given. Raises :class:`UsageError` where none is named.
    """
    trained = [checkpoint for checkpoint in checkpoints if "task" in checkpoint.config]
    if not specs:
        if not trained:
            raise UsageError(f"{checkpoints[0].name} was not trained on a task", "name tasks with --task")
        patching, others = tasks_of_run(trained[0], limit=limit)
        return [*patching.each, *others]
    check_names_of_one(specs, classnames)
    tasks = []
    for spec in specs:
        word = canonical(without_split(spec)[0])
        run: Mapping[str, Any] = next(
            (each.config for each in trained if word in patched_words(each.config)), {"cut": CUT}
        )
        names, prompts = classnames or run.get("classnames"), templates or run.get("templates")
        tasks.append(find_task(spec, names, prompts, _cut(run), limit))
    return distinct(tasks)
