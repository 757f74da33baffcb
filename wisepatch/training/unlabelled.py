"""Open unlabelled images to train beside those of a task: below a folder, in a CSV, or of another task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wisepatch.datasets.any_images import list_images
from wisepatch.datasets.image_files import FileSamples, unreadable
from wisepatch.datasets.samples import Split
from wisepatch.errors import DataError, WisepatchError
from wisepatch.task_specs import existing
from wisepatch.tasks import find_task


def open_unlabelled(where: str, data: Path, transform: Callable[[Any], Any] | None = None) -> Split:
    """Open the images of a path, or of a task by name, its training images unless it names another split; labels mean nothing.

    Raises :class:`DataError` for a path without images, and the errors of a task.
    """
    if existing(where):
        files = [(path, 0) for path in list_images([where]).paths]
        return Split(where, "unlabelled", (), "top1", FileSamples(files, transform, as_seen=True))
    try:
        task = find_task(where)
        return task.dataset.split(task.split or "train", data, transform)
    except WisepatchError as error:
        error.hint = f"--distill-on takes a folder, a CSV or a task{'; ' if error.hint else ''}{error.hint}"
        raise


def shows_test_images(where: str) -> bool:
    """Tell whether images that a task is measured on would be trained on."""
    return not existing(where) and find_task(where).split == "test"


def unlabelled_problems(where: str | None, data: Path) -> list[WisepatchError]:
    """Return why the images cannot be read; none where none are asked for."""
    if where is None:
        return []
    try:
        broken = unreadable(open_unlabelled(where, data))
    except WisepatchError as error:
        return [error]
    if broken:
        file, why = next(iter(broken.items()))
        reason = f"{len(broken)} of the images of {where} cannot be read, such as {file} ({why})"
        return [DataError(reason, "take them away, or give them anew")]
    return []
