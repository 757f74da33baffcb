"""Give a task other class names and prompts, also below what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, runtime_checkable

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.reading import reading_of
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.errors import UsageError


@runtime_checkable
class Around(Protocol):
    """The ``open`` of a task that is made of another: ``around`` makes the same of a third."""

    dataset: Dataset

    def __call__(self, split: str, root: Path, transform: Transform | None = None) -> Samples:
        """Open a split."""
        ...

    def around(self, dataset: Dataset) -> Dataset:
        """Make the same task of another ``dataset``."""
        ...


def renamed(dataset: Dataset, classnames: Sequence[str] | None, templates: Sequence[str] | None) -> Dataset:
    """Return ``dataset`` with other class names (as many, in the same order) and prompt templates.

    Raises :class:`UsageError` for another number of names. Attacked datasets write the new names.
    """
    from wisepatch.datasets.attacked_folder import attacked_folder

    if isinstance(dataset.open, Around):
        return dataset.open.around(renamed(dataset.open.dataset, classnames, templates))
    names = dataset.head_names
    if classnames is not None and dataset.family == "attacked":
        dataset = attacked_folder(Path(dataset.source), classnames, reading_of(dataset))
    elif classnames is not None:
        _check_class_names(dataset, names, classnames)
        names = tuple(classnames)
        dataset = replace(dataset, head_classes=names) if dataset.label_map else replace(dataset, classes=names)
    return replace(dataset, templates=tuple(templates)) if templates else dataset


def _check_class_names(dataset: Dataset, names: Sequence[str], given: Sequence[str]) -> None:
    """Raise :class:`UsageError` where as many names are not given, with the first place where they differ, or one comes twice."""
    if len(given) != len(names):
        order = f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        pairs = enumerate(zip_longest(names, given, fillvalue="nothing"), start=1)
        number, (own, other) = next((n, pair) for n, pair in pairs if pair[0].casefold() != pair[1].casefold())
        reason = f"{len(given)} class names for {len(names)} classes of {dataset.name!r}"
        first = f"the first that differ are number {number}: {other} is given for {own}"
        raise UsageError(f"{reason}; {first}", f"one name a line, in this order: {order}")
    lines: dict[str, int] = {}
    for number, name in enumerate(given, start=1):
        other_number = lines.setdefault(" ".join(name.replace("_", " ").split()).casefold(), number)
        same = names[other_number - 1] == names[number - 1]  # as two of ImageNet's classes are
        if other_number != number and not same:
            raise UsageError(
                f"two classes of {dataset.name!r} are called {name!r}: number {other_number} and number {number}",
                "a model cannot tell them apart: give them two names, or give their images one label",
            )
