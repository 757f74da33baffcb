"""Describe tasks: images, labels, class names and prompts. Knows no model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from wisepatch.errors import DataError, UsageError, warn_renamed

Transform = Callable[[Any], Any]

SPLITS = ("train", "val", "test")
VAL_FRACTION = 0.1
MAX_VAL_IMAGES = 5000


class Samples(Protocol):
    """Be a map-style dataset: ``len()`` and ``[index] -> (image, class index)``, the image transformed if a transform is given.

    Optional are ``labels`` or ``targets`` (see :func:`labels_of`), ``annotations``, ``fingerprint()``, ``image_ids()``, and
    ``set_epoch(epoch)`` where images are drawn anew each epoch.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, int]: ...


@dataclass(frozen=True)
class Annotations:
    """Describe the images of a split beyond one label each, for metrics that need it.

    ``groups`` gives each image an index into ``group_names`` (the regions of FMoW). ``accepted`` gives each image all labels
    that are right. ``sequences`` are rows of image indices, an anchor frame first and then its neighbours (pm0, pm10).
    ``written`` gives each image the class whose name is written on it, -1 where it is none of the task's (typographic attacks).
    """

    groups: Sequence[int] | None = None
    group_names: tuple[str, ...] = ()
    accepted: Sequence[Collection[int]] | None = None
    sequences: Sequence[Sequence[int]] | None = None
    written: Sequence[int] | None = None

    def of(self, indices: Sequence[int]) -> Annotations:
        """Pick the annotations of some images; a sequence of which an image is missing is left out."""

        def pick(values: Sequence[Any] | None) -> list[Any] | None:
            return None if values is None else [values[index] for index in indices]

        position = {index: new for new, index in enumerate(indices)}
        whole = [[position[i] for i in row] for row in self.sequences or () if position.keys() >= set(row)]
        sequences = None if self.sequences is None else whole
        return Annotations(pick(self.groups), self.group_names, pick(self.accepted), sequences, pick(self.written))


@dataclass(frozen=True)
class Split:
    """Hold an opened split: a map-style dataset that knows its size, its class names and its metric."""

    task: str
    name: str
    classes: tuple[str, ...]
    metric: str
    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def annotations(self) -> Annotations:
        """Return the annotations of the samples."""
        return annotations_of(self.samples)

    def fingerprint(self) -> str:
        """Return a text that tells this split from others and from other versions of itself."""
        text = f"{self.task} {self.name} {fingerprint(self.samples)}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()

    def image_ids(self) -> list[str]:
        """Name each image: its path as it was given where it is a file, else its index."""
        return image_ids(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return ``(image, label)``; an image that cannot be read is a :class:`DataError` that names it."""
        try:
            return self.samples[index]
        except DataError:
            raise
        except (OSError, SyntaxError) as error:  # Pillow raises both for broken files
            problem = f"{self.task} ({self.name}): image {index} cannot be read: {error}"
            raise DataError(problem, "replace or remove the file, then run the command again") from error


def fingerprint(samples: Samples) -> str:
    """Tell two versions of the same split apart without decoding an image: ``samples.fingerprint()``, or kind, size and pixels.

    Of samples with an array ``data``, as most of torchvision's, the bytes are hashed; of others the folder ``root`` is named.
    Labels that are known belong to it.
    """
    if hasattr(samples, "fingerprint"):
        return str(samples.fingerprint())
    text = f"{type(samples).__qualname__} {len(samples)} {getattr(samples, 'root', '')}"
    data: Any = getattr(samples, "data", None)
    data = data.numpy() if hasattr(data, "numpy") else data
    if hasattr(data, "tobytes") and hasattr(data, "dtype"):
        text += f" {hashlib.sha256(data.tobytes()).hexdigest()}"
    return f"{text} {labels_of(samples)}"


def image_ids(samples: Samples) -> list[str]:
    """Name each image: by ``samples.image_ids()`` where there is such a method, else by its index."""
    if hasattr(samples, "image_ids"):
        return list(samples.image_ids())
    return [str(index) for index in range(len(samples))]


def images_of(samples: Samples) -> tuple[object, ...] | None:
    """Return a value that is equal for samples with the same images in the same order, whatever their labels, or ``None``."""
    inner: Any = samples.samples if isinstance(samples, Split) else samples
    images: tuple[object, ...] | None = inner.images() if callable(getattr(inner, "images", None)) else None
    return images


def annotations_of(samples: Samples) -> Annotations:
    """Return the annotations that samples carry; empty ones where they carry none."""
    annotations: Annotations | None = getattr(samples, "annotations", None)
    if annotations is None and hasattr(samples, "context"):
        warn_renamed("the attribute `context` of samples", "annotations")
        annotations = samples.context
    return annotations if annotations is not None else Annotations()


def set_epoch(samples: Samples, epoch: int) -> None:
    """Tell samples that are drawn anew each epoch which epoch it is, also through subsets and splits; others ignore it."""
    if hasattr(samples, "set_epoch"):
        samples.set_epoch(epoch)
    elif isinstance(samples, Split | Subset):
        set_epoch(samples.samples, epoch)


def labels_of(samples: Samples) -> Sequence[int] | None:
    """Return all labels where samples know them without decoding an image (``labels`` or ``targets``), else ``None``."""
    for name in ("labels", "targets", "_labels"):  # the last is torchvision's, in most of its sets
        labels = getattr(samples, name, None)
        if labels is not None and len(labels) == len(samples):
            return [int(label) for label in labels]
    pairs = getattr(samples, "_samples", None)  # torchvision's GTSRB: (path, label)
    return [int(label) for _, label in pairs] if isinstance(pairs, list) and len(pairs) == len(samples) else None


@dataclass(frozen=True)
class Dataset:
    """Describe a task: cheap to make and to list; nothing is read until :meth:`split`.

    ``open(split, root, transform)`` returns the map-style dataset of one published split; ``root`` is the data folder.
    ``splits`` are the published ones. A missing ``val`` is cut from ``train``: a tenth, at most 5,000 images, seed 0, as in
    the code of WiSE-FT and PAINT, so that ``train``, ``val`` and ``test`` are always disjoint.

    ``metric`` is what alpha is chosen by, ``extra_metrics`` are reported besides. A task whose classes are some of
    another task's (ImageNet-A), or stand for several of them (ObjectNet), names that task's classes in ``head_classes`` and,
    for each of its own, their indices in ``label_map``: the head is the other task's, a class has the largest of their logits,
    and one without any is never predicted. ``counts`` are the images of each published split, ``layouts`` the places below
    the data folder where the data may lie (``{a,b}``: both; ``*``: any name), ``zeroshot`` published accuracies
    by model, ``gigabytes`` the size of the download, ``downloads`` says that :meth:`split` can do it.
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
            object.__setattr__(self, name, tuple(given))
            if not getattr(self, name):
                raise UsageError(f"dataset {self.name!r} has no {words}")
        for name in ("splits", "extra_metrics", "aliases", "head_classes", "layouts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "label_map", tuple(tuple(row) for row in self.label_map))
        for template in self.templates:
            if "{}" not in template and "{article}" not in template:
                raise UsageError(f"prompt template {template!r} of {self.name!r} has no {{}} for the class name")
        if not self.splits or not set(self.splits) <= set(SPLITS):
            raise UsageError(f"dataset {self.name!r} names the splits {self.splits}", f"splits are {', '.join(SPLITS)}")
        indices = {index for row in self.label_map for index in row}
        fits = len(self.label_map) == len(self.classes) and indices <= set(range(len(self.head_classes)))
        if (self.label_map or self.head_classes) and not (self.head_classes and fits):
            problem = f"the label_map of dataset {self.name!r} does not fit its classes and head_classes"
            raise UsageError(problem, "give for each class the indices of the head's classes that it stands for")

    @property
    def head_names(self) -> tuple[str, ...]:
        """Return the class names that the head is made of, in its order."""
        return self.head_classes or self.classes

    @property
    def available_splits(self) -> tuple[str, ...]:
        """Return the splits that can be opened, the cut validation split among them."""
        return tuple(s for s in SPLITS if s in self.splits or (s == "val" and "train" in self.splits))

    def expected(self, split: str) -> int | None:
        """Return the number of images that ``split`` should have, where the publisher's figures are known."""
        if split in self.counts:
            cut = split == "train" and "val" not in self.splits
            return self.counts[split] - (held_out(self.counts[split]) if cut else 0)
        return held_out(self.counts["train"]) if split == "val" and "train" in self.counts else None

    def find(self, root: Path) -> str | None:
        """Return the first of ``layouts`` of which every part is below ``root`` and no folder is empty; reads names alone."""

        def there(part: str) -> bool:
            path = root / part
            return any(path.iterdir()) if path.is_dir() else path.exists()

        return next((layout for layout in self.layouts if all(map(there, parts(layout)))), None)

    def check_split(self, split: str) -> None:
        """Raise :class:`DataError` for a split that the task does not offer."""
        if split not in self.available_splits:
            hint = f"it offers {', '.join(self.available_splits)}"
            raise DataError(f"task {self.name!r} has no {split!r} split", hint)

    def split(self, split: str, root: Path, transform: Transform | None = None) -> Split:
        """Open ``split`` below ``root``. Raises :class:`DataError` where the data is missing or the task has no such split."""
        self.check_split(split)
        cut = "val" not in self.splits and split in ("train", "val")
        samples = self.open("train" if cut else split, root, transform)
        samples = cut_validation(samples, split) if cut else samples
        if len(samples) == 0:
            raise DataError(f"the {split!r} split of {self.name!r} holds no images", "add some, or name another split")
        return Split(self.name, split, self.classes, self.metric, samples)


@dataclass(frozen=True)
class Subset:
    """Select some of the images of another map-style dataset."""

    samples: Samples
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def annotations(self) -> Annotations:
        """Return the annotations of these images."""
        return annotations_of(self.samples).of(self.indices)

    @property
    def labels(self) -> Sequence[int] | None:
        """Return the labels of these images, where they are known without decoding."""
        labels = labels_of(self.samples)
        return None if labels is None else [labels[i] for i in self.indices]

    def images(self) -> tuple[object, ...] | None:
        """Return a value that tells these images from others, whatever their labels; ``None`` where there is none."""
        inner = images_of(self.samples)
        return inner and (tuple(self.indices), inner)

    def fingerprint(self) -> str:
        """Return a text that tells this choice of images from others."""
        return f"{list(self.indices)} of {fingerprint(self.samples)}"

    def image_ids(self) -> list[str]:
        """Name each image as the whole set does."""
        ids = image_ids(self.samples)
        return [ids[index] for index in self.indices]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.samples[self.indices[index]]


def cut_validation(samples: Samples, split: str) -> Subset:
    """Cut the ``train`` or ``val`` part from a training split that has no validation split of its own.

    A tenth, at most 5,000 images, by the permutation that ``torch.utils.data.random_split`` draws with seed 0
    (for MNIST's 60,000 images the first of ``train`` is image 36044).
    """
    import torch

    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    stays = len(order) - held_out(len(order))
    return Subset(samples, order[:stays] if split == "train" else order[stays:])


def held_out(size: int) -> int:
    """Return the number of images that are held out of ``size`` training images to validate."""
    return min(max(int(size * VAL_FRACTION), 1), MAX_VAL_IMAGES)


def parts(layout: str) -> list[str]:
    """List the paths that a layout needs: ``{a,b}`` stands for both, and a path ends where a name may be any."""
    inner = re.search(r"\{([^{}]*)\}", layout)
    if inner:
        choices = [layout[: inner.start()] + choice + layout[inner.end() :] for choice in inner[1].split(",")]
        return list(dict.fromkeys(path for choice in choices for path in parts(choice)))
    return [re.split("/?[^/]*[*]", layout)[0]]
