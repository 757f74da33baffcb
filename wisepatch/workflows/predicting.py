"""Ask checkpoints what images show: class names with probabilities, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wisepatch.config import EvalConfig, listed
from wisepatch.datasets.any_images import AnyImages
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.renaming import renamed
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.evaluation.answers import Answer, answers
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.tasks import Task
from wisepatch.workflows.tasks_of_run import evaluation_tasks, tasks_of_run

NAMED = "classes"  # what a task is called that is nothing but names
DEFAULT_STORE = "wisepatch-store"


def predict(
    model: Checkpoint | str | Sequence[Checkpoint | str],
    images: Any,
    *,
    task: Task | str | None = None,
    classnames: Sequence[str] | None = None,
    templates: Sequence[str] | str | None = None,
    top: int = 5,
    store: Store | Path | str = DEFAULT_STORE,
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """Answer images: paths, PIL images or arrays, one or many; the answers come in their order, for each checkpoint in turn.

    ``model`` is a checkpoint, or names one of ``store`` (several in a list). The classes are those of ``task``, or ``classnames``
    with prompts ``templates``, or else those that a checkpoint was trained on. A trained head is used where its classes are asked
    for. An image that cannot be read has an answer with ``problem``. Raises the errors of model, task and store.
    """
    where = store if isinstance(store, Store) else Store(store)
    checkpoints = [where.find(each) if isinstance(each, str) else each for each in listed(model)]
    asked = task if isinstance(task, Task) else asked_task(checkpoints, task, classnames, listed(templates or ()))
    one = isinstance(images, str | Path) or hasattr(images, "getexif") or getattr(images, "ndim", 4) in (2, 3)
    sources = AnyImages([images] if one else list(images))
    return list(answers(checkpoints, sources, asked, where, top=top, settings=settings, progress=progress))


def asked_task(
    checkpoints: Sequence[Checkpoint],
    task: str | None = None,
    classnames: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
) -> Task:
    """Return the task whose classes are asked for: a word, class names, or what one of the checkpoints was trained on.

    Class names that are all among those of a trained head are answered by that head. Raises the errors of
    :func:`~wisepatch.tasks.find_task`, and :class:`UsageError` where nothing says what is asked for.
    """
    heads = [list(each.head["classes"]) for each in checkpoints if each.head]
    prompts = tuple(templates or TEMPLATES["simple"])
    if task:
        return evaluation_tasks(checkpoints, [task], classnames, templates or None)[0]
    if classnames:
        return Task(NAMED, _named(tuple(classnames), prompts, heads))
    trained = next((each for each in checkpoints if "task" in each.config or each.head), None)
    if trained is None:
        raise UsageError(
            f"{checkpoints[0].name} was not trained on a task", "say what to choose from with --task, or --classnames"
        )
    try:
        if "task" in trained.config:
            asked = tasks_of_run(trained, ())[0]
            if asked.parts:
                names = ", ".join(each.name for each in asked.parts)
                raise UsageError(f"{trained.name} was patched on several tasks: {names}", "say which with --task")
            return replace(asked, dataset=renamed(asked.dataset, None, templates)) if templates else asked
    except WisepatchError as error:  # the folder of images that it was trained on is not here
        if not heads:
            error.hint += "; or say what to choose from with --task, or --classnames"
            raise
    return Task(NAMED, _named(tuple(heads[0]), prompts, heads))


def _named(names: tuple[str, ...], prompts: tuple[str, ...], heads: Sequence[Sequence[str]]) -> Dataset:
    """Make a dataset of nothing but class names; some of those of a trained head are restricted from it."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the class name {twice!r} is given twice", "give each class its own name")
    head = next((head for head in heads if set(names) <= set(head)), None)
    if head is None or list(names) == head:
        return Dataset(NAMED, names, _no_images, prompts)
    rows = tuple((head.index(name),) for name in names)
    return Dataset(NAMED, names, _no_images, prompts, head_classes=tuple(head), label_map=rows)


def _no_images(*_: Any) -> Any:
    raise UsageError("class names alone have no images", "name a task")
