"""Tell a user, once, what they should know of their own files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.splits import is_number
from wisepatch.terminal import harmless, pasted

FIRST_NAMES = 3  # that a note gives


def shortened(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    first = ", ".join(map(printable, names[:FIRST_NAMES]))
    return first + (f", and {len(names) - FIRST_NAMES} more" if len(names) > FIRST_NAMES else "")


def printable(name: str) -> str:
    """Return a name, quoted where a terminal cannot show it."""
    return name if name.isprintable() else ascii(name)


def to_tell(dataset: Dataset) -> list[str]:
    """Return what a user should know of a task: its notes, how much was left out of it, and class names that are numbers."""
    told = list(dataset.notes)
    if dataset.left_out:
        reasons = "; ".join(f"{len(names)}: {reason}" for reason, names in dataset.left_out.items())
        check = f"`wisepatch datasets check {pasted([dataset.source])}` names them"
        told.append(f"{dataset.name}: {sum(map(len, dataset.left_out.values()))} left out ({reasons}); {check}")
    if dataset.labels and all(map(is_number, dataset.classes)):
        prompt = f'"a photo of a {dataset.classes[0]}."'
        names = f"give their names in a file with --classnames, in this order: {shortened(dataset.classes)}"
        told.append(f"{dataset.name}: the classes are numbers, and a model is asked for {prompt}; {names}")
    return told


def tell(dataset: Dataset) -> None:
    """Warn, once each, of what a user should know of a task."""
    for note in to_tell(dataset):
        tell_once(note)


@cache
def tell_once(note: str) -> None:
    """Warn of something, once in this process."""
    logging.getLogger(__name__).warning("note: %s", harmless(note))
