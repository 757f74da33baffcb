"""Images and labels of a split: map-style datasets, and questions that are answered without decoding an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wisepatch.counting import count
from wisepatch.errors import warn_renamed

Transform = Callable[[Any], Any]


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
    ``corruption`` gives each image the number of a kind of corruption and a severity (:mod:`~wisepatch.datasets.corruptions`).
    ``written`` gives each image the class whose name is written on it, -1 where it is none of the task's (typographic attacks).
    ``clusters`` gives each image the name of those that it belongs together with (frames of one video): they are not independent.
    """

    groups: Sequence[int] | None = None
    group_names: tuple[str, ...] = ()
    accepted: Sequence[Collection[int]] | None = None
    sequences: Sequence[Sequence[int]] | None = None
    written: Sequence[int] | None = None
    corruption: Sequence[tuple[int, int]] | None = None
    clusters: Sequence[str] | None = None

    def of(self, indices: Sequence[int]) -> Annotations:
        """Pick the annotations of some images; a sequence of which an image is missing is left out."""

        def pick(values: Sequence[Any] | None) -> list[Any] | None:
            return None if values is None else [values[index] for index in indices]

        position = {index: new for new, index in enumerate(indices)}
        whole = [[position[i] for i in row] for row in self.sequences or () if position.keys() >= set(row)]
        sequences = None if self.sequences is None else whole
        return Annotations(
            pick(self.groups), self.group_names, pick(self.accepted), sequences, pick(self.written), pick(self.corruption),
            pick(self.clusters),
        )  # fmt: skip


@dataclass(frozen=True)
class Split:
    """Hold an opened split: a map-style dataset that knows its size, its class names and its metric."""

    task: str
    name: str
    classes: tuple[str, ...]
    metric: str
    samples: Samples

    def __repr__(self) -> str:
        """Return the task, the split and the number of images."""
        return f"Split({self.task!r}, {self.name!r}, {count(len(self), 'image')})"

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
        return self.samples[index]


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

    def own_files(self) -> list[str]:
        """Return the files of these images, where they are a user's own."""
        files = own_files(self.samples)
        return [files[index] for index in self.indices] if files else []

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.samples[self.indices[index]]


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


def own_files(samples: Samples | Split) -> list[str]:
    """Return the file of each image where they are a user's own, whatever is wrapped around them; none of published ones."""
    inner: Any = samples.samples if isinstance(samples, Split) else samples
    return list(inner.own_files()) if hasattr(inner, "own_files") else []


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
