"""Describe tasks: images, labels, class names and prompts. Knows no model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from pathlib import Path

from wisepatch.counting import count
from wisepatch.datasets.guarding import Guarded, open_guarded
from wisepatch.datasets.joined import Joined
from wisepatch.datasets.limiting import limited
from wisepatch.datasets.samples import Samples, Split, Transform
from wisepatch.datasets.splits import ALL, SPLITS, cut_validation, held_out, split_problem
from wisepatch.errors import DataError, EmptySplitError, UsageError, warn_renamed

SURROGATES = re.compile("[\ud800-\udfff]")  # of names of files that are not in UTF-8


@dataclass(frozen=True)
class Dataset:
    """Describe a task: cheap to make and to list; nothing is read until :meth:`split`.

    ``open(split, root, transform)`` returns the map-style dataset of one published split; ``root`` is the data folder.
    ``splits`` are the published ones: ``train``, ``val``, ``test``, and others of its own (``testA``), which are evaluated as
    ``NAME@testA``. A missing ``val`` is cut from ``train``: a tenth, at most 5,000 images, seed 0, as in
    the code of WiSE-FT and PAINT, so that ``train``, ``val`` and ``test`` are always disjoint.

    ``metric`` is what alpha is chosen by, ``extra_metrics`` are reported besides. A task whose classes are some of
    another task's (ImageNet-A), or stand for several of them (ObjectNet), names that task's classes in ``head_classes`` and,
    for each of its own, their indices in ``label_map``: the head is the other task's, a class has the largest of their logits,
    and one without any is never predicted. ``counts`` are the images of each published split, ``layouts`` the places below
    the data folder where the data may lie (``{a,b}``: both; ``*``: any name), ``zeroshot`` published accuracies
    by model, ``gigabytes`` the size of the download, ``downloads`` says that :meth:`split` can do it.

    ``min_images`` is what a split must hold at least.
    ``limit`` opens at most so many images of a split, a stratified choice (:func:`~wisepatch.datasets.limiting.limited`).

    Of a user's own files, ``labels`` are the classes as folders or a CSV spell them, ``notes`` are told once by every command, and
    ``left_out`` names the files and folders that are no data, by reason.
    """

    name: str
    classes: tuple[str, ...]
    open: Callable[..., Samples]
    templates: tuple[str, ...] = ("a photo of a {}.",)
    splits: tuple[str, ...] = ("train", "test")
    metric: str = "top1"
    family: str = "other"
    source: str = field(default="", compare=False)
    extra_metrics: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    head_classes: tuple[str, ...] = ()
    label_map: tuple[tuple[int, ...], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict, compare=False)
    layouts: tuple[str, ...] = ()
    licence: str = field(default="", compare=False)
    gigabytes: float | None = field(default=None, compare=False)
    zeroshot: Mapping[str, float] = field(default_factory=dict, compare=False)
    downloads: bool = field(default=False, compare=False)
    labels: tuple[str, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    min_images: int = field(default=1, compare=False)
    limit: int | None = None
    also: InitVar[tuple[str, ...]] = ()
    merges: InitVar[tuple[tuple[int, ...], ...]] = ()

    def __post_init__(self, also: tuple[str, ...], merges: tuple[tuple[int, ...], ...]) -> None:
        """Check what a plugin author can get wrong. Raises :class:`UsageError`."""
        for old, new, value in (("also", "extra_metrics", also), ("merges", "label_map", merges)):
            if value:
                warn_renamed(f"Dataset({old}=...)", new)
                object.__setattr__(self, new, value)
        for name, words in (("classes", "classes"), ("templates", "prompt templates")):
            given = getattr(self, name)
            if isinstance(given, str):
                raise UsageError(f"the {name} of dataset {self.name!r} are one string", f"give a tuple: ({given!r},)")
            object.__setattr__(self, name, tuple(given) if isinstance(given, Iterable) else given)
            if not getattr(self, name):
                raise UsageError(f"dataset {self.name!r} has no {words}")
        self._check_types()
        for name in ("splits", "extra_metrics", "aliases", "head_classes", "layouts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "label_map", tuple(tuple(row) for row in self.label_map))
        for template in self.templates:
            if "{}" not in template and "{article}" not in template:
                raise UsageError(f"prompt template {template!r} of {self.name!r} has no {{}} for the class name")
        if problem := split_problem(self.splits):
            hint = f"splits are {', '.join(SPLITS)}, and others of its own, such as testA"
            raise UsageError(f"dataset {self.name!r} names the splits {self.splits}: {problem}", hint)
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"a limit of {self.limit} images leaves nothing of {self.name!r}", "give 1 or more")
        indices = {index for row in self.label_map for index in row}
        fits = len(self.label_map) == len(self.classes) and indices <= set(range(len(self.head_classes)))
        if (self.label_map or self.head_classes) and not (self.head_classes and fits):
            problem = f"the label_map of dataset {self.name!r} does not fit its classes and head_classes"
            raise UsageError(problem, "give for each class the indices of the head's classes that it stands for")

    def __repr__(self) -> str:
        """Return the name and the number of classes."""
        return f"Dataset({self.name!r}, {count(len(self.classes), 'class', 'classes')})"

    def _check_types(self) -> None:
        """Raise :class:`UsageError` for texts and lists that are something else."""
        for name in ("name", "metric", "family", "source", "licence"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"the {name} of dataset {self.name!r} is no text", "give a string")
        for name in ("classes", "templates", "splits", "extra_metrics", "aliases", "head_classes", "layouts"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise UsageError(f"the {name} of dataset {self.name!r} are no list", "give a tuple of strings")
            wrong = next((each for each in tuple(given) if not isinstance(each, str) or SURROGATES.search(each)), None)
            if wrong is not None:
                raise UsageError(f"the {name} of dataset {self.name!r}: {wrong!r} is no text", "give texts, in UTF-8")

    @property
    def head_names(self) -> tuple[str, ...]:
        """Return the class names that the head is made of, in its order."""
        return self.head_classes or self.classes

    @property
    def available_splits(self) -> tuple[str, ...]:
        """Return the splits that can be opened, the cut validation split among them."""
        usual = tuple(s for s in SPLITS if s in self.splits or (s == "val" and "train" in self.splits))
        return usual + tuple(s for s in self.splits if s not in SPLITS)

    def expected(self, split: str) -> int | None:
        """Return the number of images that ``split`` should have, where the publisher's figures are known."""
        if split in self.counts:
            cut = split == "train" and "val" not in self.splits
            return self.counts[split] - (held_out(self.counts[split]) if cut else 0)
        return held_out(self.counts["train"]) if split == "val" and "train" in self.counts else None

    def find(self, root: Path) -> str | None:
        """Return the first of ``layouts`` of which every part is below ``root`` and no folder is empty; reads names alone."""
        return next((layout for layout in self.layouts if all(_is_there(root / part) for part in parts(layout))), None)

    def lacking(self, root: Path) -> str:
        """Say of data that is not found whole: ``packed`` in archives, there ``in part``, ``no``, or ``?`` where nobody knows."""
        if getattr(self.open, "is_packed", lambda _: False)(root):
            return "packed"
        some = any(_is_there(root / part) for layout in self.layouts for part in parts(layout))
        return "in part" if some else "no" if self.layouts else "?"

    def check_split(self, split: str) -> None:
        """Raise :class:`DataError` for a split that the task does not offer."""
        if split not in (*self.available_splits, ALL):
            hint = f"it offers {', '.join(self.available_splits)}"
            own = next((each for each in self.splits if each not in SPLITS), None)
            hint += f"; write {self.name}@{own}" if own else ""
            raise DataError(f"task {self.name!r} has no {split!r} split", hint)

    def open_guarded(self, split: str, root: Path, transform: Transform | None = None) -> Guarded:
        """Open a published split; whatever is wrong with it, now or when it is read, is a :class:`DataError`."""
        return open_guarded(self.open, self.name, len(self.classes), split, root, transform)

    def split(self, split: str, root: Path, transform: Transform | None = None) -> Split:
        """Open ``split`` below ``root``; ``all`` joins all images. Raises :class:`DataError` where data or split is missing."""
        self.check_split(split)
        if split == ALL:
            return self._opened(split, self._joined(root, transform))
        cut = "val" not in self.splits and split in ("train", "val")
        whole = self.open_guarded("train" if cut else split, root, transform)
        samples = cut_validation(whole, split) if cut and len(whole) else whole
        if len(samples) == 0:
            raise DataError(f"the {split!r} split of {self.name!r} holds no images", "add some, or name another split")
        return self._opened(split, samples)

    def _opened(self, split: str, samples: Samples) -> Split:
        samples = limited(samples, self.limit, every_class=split == "train") if self.limit else samples
        if len(samples) < self.min_images:
            problem = f"{self.name} needs {count(self.min_images, 'image')} at least, and its {split!r} split has {len(samples)}"
            raise DataError(problem, "add some, raise --limit, or name one kind and severity: corrupt:NAME:fog:3")
        return Split(self.name, split, self.classes, self.metric, samples)

    def _joined(self, root: Path, transform: Transform | None) -> Joined:
        opened: dict[str, Samples] = {}
        for split in self.splits:
            with suppress(EmptySplitError):
                opened[split] = self.open_guarded(split, root, transform)
        return Joined(opened)


def _is_there(path: Path) -> bool:
    try:
        return any(path.iterdir()) if path.is_dir() else path.exists()
    except OSError:  # no permission to look
        return False


def parts(layout: str) -> list[str]:
    """List the paths that a layout needs: ``{a,b}`` stands for both, and a path ends where a name may be any."""
    inner = re.search(r"\{([^{}]*)\}", layout)
    if inner:
        choices = [layout[: inner.start()] + choice + layout[inner.end() :] for choice in inner[1].split(",")]
        return list(dict.fromkeys(path for choice in choices for path in parts(choice)))
    return [re.split("/?[^/]*[*]", layout)[0]]
