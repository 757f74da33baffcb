"""Turn a word into a task, once: a registered name, ``NAME@val``, ``typo:NAME``, a folder, a CSV, or what a plugin finds.

The built-in datasets and the finder of folders, CSVs, ``typo:`` and ``corrupt:`` come through the hooks that plugins use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, runtime_checkable

from wisepatch.config import Balance, TrainConfig, listed
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.reading import Reading, split_word
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.datasets.several import joint_dataset
from wisepatch.datasets.splits import ALL, CUT, SPLITS
from wisepatch.errors import DataError, UnknownNameError, UsageError
from wisepatch.hookspecs import hookimpl
from wisepatch.plugins import registry

FAMILIES = (
    "demo", "published.mnist_svhn_stl10", "published.cifar", "published.gtsrb", "published.kitti", "published.mtsd",
    "published.imagenet", "published.imagenet_shifts", "published.imagenet_video", "published.cars_food101", "published.dtd",
    "published.eurosat_resisc45", "published.sun397", "published.clevr",
)  # fmt: skip
TYPO, CORRUPT = "typo:", "corrupt:"
WRAPPERS = (TYPO, CORRUPT)  # of other tasks
CSV_SUFFIXES = (".csv", ".tsv")
MEASURE_AFTERWARDS = "measure it afterwards: wisepatch eval zeroshot patched --task {}"  # a split of a dataset's own
DISTRIBUTION_OF_SCHEME = {"hf:": "wisepatch-huggingface"}
DISTRIBUTION_OF_TASK = {  # tasks of this project's plugins
    **dict.fromkeys(("fmow", "fmowid", "fmowood", "iwildcam", "iwildcamid", "iwildcamood"), "wisepatch-wilds"),
    "usps": "wisepatch-usps",
}


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

    path, options = _with_options(name)
    if path is None:
        scheme, inner, _ = _unwrapped(name)
        if not scheme:
            return None
        if not inner.strip():
            what = "write on" if scheme == TYPO else "corrupt"
            raise UsageError(f"the task {name!r} names nothing to {what}", f"write {scheme}NAME")
        return attacked(_look_up(inner)) if scheme == TYPO else _corrupted(name[len(scheme) :])
    try:
        if path.is_dir():
            return (
                attacked_folder(path)
                if is_attacked_folder(path)
                else folder_dataset(path, reading=Reading.parse(options))
            )
        if path.suffix.lower() in CSV_SUFFIXES:
            return csv_dataset(path, reading=Reading.parse(options))
    except OSError as error:
        reason = f"{error.filename or path} cannot be read: {error.strerror or error}"
        raise DataError(reason, "look at its permissions") from error
    raise DataError(f"task {name!r} is a file and no CSV", "give a folder of images, or a .csv with path,label")


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
    name, word = _without_split(spec)
    try:
        dataset = renamed(_cut(_look_up(name), cut), classnames, templates)
    except (DataError, UnknownNameError):
        if word and word.lower() not in (*SPLITS, ALL):
            raise _unknown_split(spec, word) from None
        raise
    split = _split_named(dataset, word, spec)
    tell(replace(dataset, left_out={}) if names_left_out else dataset)
    base, ending = _canonical(name), f"@{split}" if split else ""
    if ending and existing(base + ending):  # a folder has this very name
        base += "/"
    return Task(base + ending, dataset if limit is None else replace(dataset, limit=limit), split)


def as_tasks(given: Iterable[Task | str] | Task | str) -> list[Task]:
    """Return tasks, of which some may be named; one alone stands for a list of one."""
    return [find_task(each) if isinstance(each, str) else each for each in listed(given)]


def tell(dataset: Dataset) -> None:
    """Warn, once each, of what a user should know of a task of their own files."""
    from wisepatch.datasets.folder_or_csv import tell_once, to_tell

    for note in to_tell(dataset):
        tell_once(note)


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
    *,
    names_left_out: bool = False,
) -> list[Task]:
    """Look up several tasks; a name given twice is taken once, two different tasks of one name are an error."""
    tasks: dict[tuple[str, str | None], Task] = {}
    specs = listed(specs)
    if classnames and len(specs) > 1:
        raise UsageError("class names are given for several tasks", "name one --task with --classnames")
    for spec in specs:
        task = find_task(spec, classnames, templates, cut, limit, names_left_out=names_left_out)
        other = tasks.setdefault((task.name, task.split), task)
        if other.spec != task.spec:
            reason = f"two tasks are called {task.name!r}: {other.spec} and {task.spec}"
            raise UsageError(reason, "rename one of the folders")
    return list(tasks.values())


def other_tasks(
    patching: Task, tasks: Sequence[Task | str] | Task | str, cut: int = CUT, limit: int | None = None
) -> list[Task]:
    """Return the tasks to measure besides ``patching``; words are looked up.

    Raises :class:`UsageError` where two of them would be told apart by nothing but a split or a folder.
    """
    tasks, patched = listed(tasks), {each.base_spec for each in patching.each}
    others = [task for task in tasks if isinstance(task, Task)]
    others += find_tasks([task for task in tasks if isinstance(task, str)], cut=cut, limit=limit)
    other_split = next((t for t in others if t.base_spec in patched and t.is_own_split), None)
    if other_split:
        problem = f"{other_split.spec} is a split of the task that is patched, {patching.name}"
        raise UsageError(problem, MEASURE_AFTERWARDS.format(other_split.spec))
    others = [task for task in others if task.base_spec not in patched]
    seen = {each.name: each.spec for each in patching.each}
    for task in others:
        if task.name in seen:
            raise UsageError(
                f"two tasks of one sweep are called {task.name!r}: {seen[task.name]} and {task.spec}",
                "name one of them, or rename a folder",
            )
        seen[task.name] = task.spec
    return others


@dataclass(frozen=True)
class RunTasks:
    """The tasks of a run, looked up once: the one to patch, and those that must not get worse."""

    patching: Task
    supported: tuple[Task, ...] = ()

    @classmethod
    def find(
        cls,
        task: str | Sequence[str],
        supported: Iterable[str] = (),
        classnames: Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
        limit: int | None = None,
        balance: Balance = "examples",
    ) -> RunTasks:
        """Look the words up; class names and templates are the patching task's. Raises the errors of :func:`find_task`.

        ``NAME@train`` is ``NAME``: what is trained on it is measured on the other splits. Several tasks to patch are one with
        parts, and none of them may be supported too: :class:`UsageError`.
        """
        words, supported = listed(task), list(supported)
        if classnames and len(words) > 1:
            raise UsageError("class names are given for several tasks", "name one --task with --classnames")
        found = [_trained(find_task(word, classnames, templates, limit=limit)) for word in words]
        if len(found) == 1:
            return cls(found[0], tuple(other_tasks(found[0], supported, limit=limit)))
        patching = several_tasks(found, balance)
        others = find_tasks(supported, limit=limit)
        if both := next((each.name for each in others if each.base_spec in {one.base_spec for one in found}), None):
            raise UsageError(f"{both} is to be patched, and supported too", "name it once")
        return cls(patching, tuple(other_tasks(patching, others)))

    @classmethod
    def of(cls, config: TrainConfig) -> RunTasks:
        """Look up the tasks that the settings name."""
        return cls.find(
            config.tasks or config.task, config.supported, config.classnames, config.templates, config.limit, config.balance
        )  # fmt: skip

    def further(self, tasks: Sequence[Task | str] | Task | str, limit: int | None = None) -> tuple[Task, ...]:
        """Look up tasks that are measured besides. Raises :class:`UsageError` for one that is patched or supported anyway."""
        found = [each for each in listed(tasks) if isinstance(each, Task)]
        found += find_tasks([each for each in listed(tasks) if isinstance(each, str)], limit=limit)
        known = {each.name for each in (*self.patching.each, *self.supported)}
        for task in found:
            if task.name in known:
                raise UsageError(f"{task.name} is measured anyway, or another task of this name is", "leave it out")
        return tuple(found)


def _trained(task: Task) -> Task:
    return Task(task.base_spec, task.dataset) if task.split == "train" else task


def several_tasks(tasks: Sequence[Task], balance: Balance = "examples") -> Task:
    """Return tasks that are patched together as one task with parts; one alone is itself.

    Raises :class:`UsageError` for two of one name.
    """
    if len(tasks) == 1:
        return tasks[0]
    seen: dict[str, Task] = {}
    for task in tasks:
        other = seen.setdefault(task.name, task)
        if other is not task:
            specs = f": {other.spec} and {task.spec}" if other.spec != task.spec else ""
            raise UsageError(
                f"two tasks to patch are called {task.name!r}{specs}", "name each once, or rename a folder"
            )
    spec = ",".join(task.base_spec for task in tasks)
    return Task(spec, joint_dataset([task.dataset for task in tasks], balance), parts=tuple(tasks))


def renamed(dataset: Dataset, classnames: Sequence[str] | None, templates: Sequence[str] | None) -> Dataset:
    """Return ``dataset`` with other class names (as many, in the same order) and prompt templates.

    Raises :class:`UsageError` for another number of names. Attacked datasets write the new names.
    """
    from wisepatch.datasets.attacked_folder import attacked_folder

    if isinstance(dataset.open, Around):
        return dataset.open.around(renamed(dataset.open.dataset, classnames, templates))
    names = dataset.head_names
    if classnames is not None and dataset.family == "attacked":
        dataset = attacked_folder(Path(dataset.source), classnames)
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


def existing(word: str) -> Path | None:
    """Return the path that ``word`` names if something lies there; ``None`` for names that cannot be paths, too."""
    try:
        path = Path(word).expanduser()
        return path if word.strip() and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # a name of 300 letters, ~nobody, a NUL
        return None


def _with_options(word: str) -> tuple[Path | None, str]:
    """Return the path that a word names, with the options after a question mark, where there is no such path with them."""
    if whole := existing(word):
        return whole, ""
    name, options = split_word(word)
    return (existing(name), options) if options else (None, "")


def with_reading(word: str, reading: Reading) -> str:
    """Return the word for a task, with the options of ``reading`` where it is a folder or CSV that has none of its own."""
    name, at, split = word.rpartition("@")
    if not at or split.lower() not in (*SPLITS, ALL) or existing(word):
        name, at, split = word, "", ""
    scheme, inner, suffix = _unwrapped(name)
    if existing(inner):
        return f"{scheme}{inner}{reading.query()}{suffix}{at}{split}"
    return f"{scheme}{with_reading(inner, reading)}{suffix}{at}{split}" if scheme else word


def _unwrapped(name: str) -> tuple[str, str, str]:
    """Take ``typo:`` or ``corrupt:`` off a word; return it, the word inside, and what stands behind that (``:fog:3``)."""
    scheme = next((each for each in WRAPPERS if name.lower().startswith(each) and not existing(name)), "")
    inner, suffix = name[len(scheme) :], ""
    if scheme == CORRUPT and not existing(inner):
        from wisepatch.datasets.corruptions import split_corruption

        inner, corruption = split_corruption(inner)
        suffix = str(corruption)
    return scheme, inner, suffix


def _corrupted(word: str) -> Dataset:
    """Return the dataset of ``NAME[:KIND[:SEVERITY]]``; of a name that is known, the kind or severity is what is wrong."""
    from wisepatch.datasets.corruptions import Corruption, corrupted, split_corruption, unknown_corruption

    inner, corruption = (word, Corruption()) if existing(word) else split_corruption(word)
    try:
        return corrupted(_look_up(inner), corruption)
    except (DataError, UnknownNameError):
        name, colon, _ = inner.rpartition(":")
        if not colon or corruption.kind or name.lower().endswith(":"):
            raise
        try:
            _look_up(split_corruption(name)[0])
        except (DataError, UnknownNameError):
            name = ""
        if not name:
            raise
        raise unknown_corruption(word) from None


def _without_split(spec: str) -> tuple[str, str | None]:
    """Take ``@val`` (or the papers' ``Val``) off a word. Raises :class:`UsageError` for an empty name or split."""
    name, at, split = spec.strip().rpartition("@")
    if not at or "/" in split or existing(spec):
        name, split = spec.strip(), ""
    elif not split:
        raise _unknown_split(spec, split)
    if not name.strip():
        raise UsageError(f"the task name {spec!r} is empty", "`wisepatch datasets` lists those known by name")
    scheme, inner, suffix = _unwrapped(name)
    known, word = registry().names, inner.lower()
    if word not in known and word.endswith("val") and word[:-3] in known and existing(name) is None:
        return f"{scheme}{inner[:-3]}{suffix}", split or "val"
    return name, split or None


def _split_named(dataset: Dataset, word: str | None, spec: str) -> str | None:
    """Return the split that a word names, in any case. Raises :class:`UsageError` for none of the usual and the dataset's own."""
    if word is None:
        return None
    known = {split.lower(): split for split in (*SPLITS, ALL, *dataset.available_splits)}
    if word.lower() not in known:
        raise _unknown_split(spec, word, dataset.available_splits)
    return known[word.lower()]


def _unknown_split(spec: str, split: str, known: Iterable[str] = SPLITS) -> UsageError:
    hint = "check the path of a folder with @ in its name; a/@val is the split val of a folder"
    return UsageError(f"unknown split {split!r} in task {spec!r}", f"splits are {', '.join((*known, ALL))}; {hint}")


def _look_up(name: str) -> Dataset:
    if registered := _registered_name(name):
        return registry().datasets[registered]
    dataset = registry().find_dataset(name)
    if dataset is None:
        raise _unknown(name)
    return dataset


def _registered_name(name: str) -> str | None:
    """Find a registered name in any case, and imagenet-a or CIFAR-10 where no such file lies about."""
    names = registry().names
    near = None if existing(name) else names.get(_letters(name))
    return names.get(name.lower(), near)


def _letters(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _canonical(name: str) -> str:
    """Return the word that finds a task again from any folder."""
    if registered := _registered_name(name):
        return registered
    path, options = _with_options(name)
    if path:
        return f"{path.resolve()}{Reading.parse(options).query()}"
    scheme, inner, suffix = _unwrapped(name)
    return f"{scheme}{_canonical(inner)}{suffix}" if scheme else name


def _unknown(name: str) -> DataError | UnknownNameError:
    if scheme := re.match(r"[a-z][a-z0-9-]+:", name):
        known = DISTRIBUTION_OF_SCHEME.get(scheme[0])
        hint = f"install {known}" if known else "`wisepatch plugins` lists those installed"
        return DataError(f"no plugin knows what {scheme[0]} means in the task {name!r}", hint)
    if "/" in name or name.lower().endswith(".csv"):
        hint = "check the path; `wisepatch datasets` lists the tasks known by name"
        return DataError(f"there is no folder or CSV {name}", hint)
    skipped = registry().skipped
    owner = DISTRIBUTION_OF_TASK.get(_letters(name))
    if owner and owner not in {plugin.distribution.partition(" ")[0] for plugin in skipped}:
        return DataError(f"the task {name!r} is of the plugin {owner}, which is not installed", f"install {owner}")
    reasons = ", ".join(f"{plugin.name} ({plugin.problem})" for plugin in skipped)
    note = f"; plugins that were skipped: {reasons}" if reasons else ""
    return UnknownNameError("task", name, registry().datasets, f"`wisepatch datasets` lists all of them{note}")
