"""Turn a word into a task, once: a registered name, ``NAME@val``, ``typo:NAME``, a folder, a CSV, or what a plugin finds.

The built-in datasets and the finder of folders, CSVs, ``typo:`` and ``corrupt:`` come through the hooks that plugins use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from wisepatch.config import listed
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.csv_listing import SUFFIXES
from wisepatch.datasets.notes import tell
from wisepatch.datasets.reading import Reading
from wisepatch.datasets.renaming import Around, renamed
from wisepatch.datasets.splits import ALL, CUT, SPLITS
from wisepatch.errors import DataError, UnknownNameError, UsageError
from wisepatch.hookspecs import hookimpl
from wisepatch.task_specs import (
    TYPO,
    canonical,
    existing,
    look_up,
    path_of,
    split_named,
    unknown_split,
    unwrapped,
    without_split,
)

FAMILIES = (
    "demo", "published.mnist_svhn_stl10", "published.cifar", "published.gtsrb", "published.kitti", "published.mtsd",
    "published.imagenet", "published.imagenet_shifts", "published.imagenet_video", "published.cars_food101", "published.dtd",
    "published.eurosat_resisc45", "published.sun397", "published.clevr",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A dataset as it was asked for: ``spec`` finds it again, ``split`` is set by ``NAME@val`` (or ``@train``, ``@testA``).

    Several tasks that are patched together are one, with their ``parts``: its dataset joins their images, its spec their words.
    """

    spec: str
    dataset: Dataset
    split: str | None = None
    parts: tuple[Task, ...] = ()

    def __repr__(self) -> str:
        """Return the word that finds the task again."""
        return f"Task({self.spec!r})"

    @property
    def each(self) -> tuple[Task, ...]:
        """Return the parts of several tasks, of one task itself."""
        return self.parts or (self,)

    @property
    def base_spec(self) -> str:
        """The word that finds the task again, without the split."""
        return self.spec.removesuffix(f"@{self.split}") if self.split else self.spec

    @property
    def is_own_split(self) -> bool:
        """Tell whether it names a split of the dataset's own, beside ``train``, ``val``, ``test`` and ``all``."""
        return self.split is not None and self.split not in (*SPLITS, ALL)

    @property
    def name(self) -> str:
        """Return the name under which results are kept."""
        return self.dataset.name


@hookimpl
def register_datasets() -> list[Dataset]:
    """Return the datasets of every built-in family."""
    families = [import_module(f"wisepatch.datasets.{family}") for family in FAMILIES]
    return [dataset for family in families for dataset in family.datasets()]


@hookimpl
def find_dataset(name: str) -> Dataset | None:
    """Return the dataset of ``typo:NAME``, ``corrupt:NAME``, a folder of class folders or of attacked images, or a CSV.

    Raises the errors of the dataset below ``typo:`` or ``corrupt:``, and :class:`DataError` for a file that is no CSV.
    """
    from wisepatch.datasets.attacked_folder import attacked_folder, is_attacked_folder
    from wisepatch.datasets.folder_or_csv import csv_dataset, folder_dataset
    from wisepatch.datasets.typography import attacked

    path, options = path_of(name)
    if path is None:
        scheme, inner, _ = unwrapped(name)
        if not scheme:
            return None
        if not inner.strip():
            what = "write on" if scheme == TYPO else "corrupt"
            raise UsageError(f"the task {name!r} names nothing to {what}", f"write {scheme}NAME")
        return attacked(look_up(inner)) if scheme == TYPO else _corrupted(name[len(scheme) :])
    try:
        if path.is_dir() and is_attacked_folder(path):
            return attacked_folder(path, reading=Reading.parse(options))
        if path.is_dir():
            return folder_dataset(path, reading=Reading.parse(options))
        if path.suffix.lower() in SUFFIXES:
            return csv_dataset(path, reading=Reading.parse(options))
    except OSError as error:
        reason = f"{error.filename or path} cannot be read: {error.strerror or error}"
        raise DataError(reason, "look at its permissions") from error
    raise DataError(f"task {name!r} is a file and no CSV", "give a folder of images, or a .csv with path,label")


def _corrupted(word: str) -> Dataset:
    """Return the dataset of ``NAME[:KIND[:SEVERITY]]``; of a name that is known, the kind or severity is what is wrong."""
    from wisepatch.datasets.corruptions import Corruption, corrupted, split_corruption, unknown_corruption

    inner, corruption = (word, Corruption()) if existing(word) else split_corruption(word)
    try:
        return corrupted(look_up(inner), corruption)
    except (DataError, UnknownNameError):
        name, colon, _ = inner.rpartition(":")
        if not colon or corruption.kind or name.lower().endswith(":"):
            raise
        try:
            look_up(split_corruption(name)[0])
        except (DataError, UnknownNameError):
            name = ""
        if not name:
            raise
        raise unknown_corruption(word) from None


def find_task(
    spec: str,
    classnames: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    cut: int = CUT,
    limit: int | None = None,
    *,
    names_left_out: bool = False,
) -> Task:
    """Look up ``spec``: a registered name in any case, ``NAME@val``, the papers' ``NAMEVal``, a folder, a CSV, or a scheme.

    ``typo:`` before any of these writes wrong class names on the images. ``classnames`` and ``templates`` replace those of the
    dataset. ``cut`` is how a user's own files are cut into splits: as today, or as when a checkpoint was trained.
    ``limit`` is the number of images of each split at most. Who ``names_left_out`` files needs no note that there are some.

    Raises :class:`UnknownNameError` that lists close names, :class:`DataError` for a folder that is none.
    """
    name, word = without_split(spec)
    try:
        dataset = renamed(_cut(look_up(name), cut), classnames, templates)
    except (DataError, UnknownNameError):
        if word and word.lower() not in (*SPLITS, ALL):
            raise unknown_split(spec, word) from None
        raise
    split = split_named(dataset, word, spec)
    tell(replace(dataset, left_out={}) if names_left_out else dataset)
    base, ending = canonical(name), f"@{split}" if split else ""
    if ending and existing(base + ending):  # a folder has this very name
        base += "/"
    return Task(base + ending, dataset if limit is None else replace(dataset, limit=limit), split)


def as_tasks(given: Iterable[Task | str] | Task | str) -> list[Task]:
    """Return tasks, of which some may be named; one alone stands for a list of one."""
    return [find_task(each) if isinstance(each, str) else each for each in listed(given)]


def _cut(dataset: Dataset, cut: int) -> Dataset:
    """Return the dataset with the splits of another ``cut``, where it is one of a user's own files."""
    from wisepatch.datasets.folder_or_csv import cut_again

    if cut == CUT:
        return dataset
    if isinstance(dataset.open, Around):
        return dataset.open.around(_cut(dataset.open.dataset, cut))
    return cut_again(dataset, cut) if dataset.family == "folder" else dataset


def find_tasks(
    specs: Iterable[str] | str,
    classnames: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    cut: int = CUT,
    limit: int | None = None,
) -> list[Task]:
    """Look up several tasks as :func:`find_task` does. Raises :class:`UsageError` as :func:`distinct` does."""
    specs = listed(specs)
    check_names_of_one(specs, classnames)
    return distinct(find_task(spec, classnames, templates, cut, limit) for spec in specs)


def check_names_of_one(specs: Sequence[str], classnames: Sequence[str] | None) -> None:
    """Raise :class:`UsageError` where class names are given for several tasks."""
    if classnames and len(specs) > 1:
        raise UsageError("class names are given for several tasks", "name one --task with --classnames")


def distinct(tasks: Iterable[Task]) -> list[Task]:
    """Return tasks, each once. Raises :class:`UsageError` for two different tasks of one name."""
    seen: dict[tuple[str, str | None], Task] = {}
    for task in tasks:
        other = seen.setdefault((task.name, task.split), task)
        if other.spec != task.spec:
            reason = f"two tasks are called {task.name!r}: {other.spec} and {task.spec}"
            raise UsageError(reason, "rename one of the folders")
    return list(seen.values())
