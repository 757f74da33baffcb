"""What a task is: images, labels, class names and prompts. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from wisepatch.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Transform = Callable[[Any], Any]

SPLITS = ("train", "val", "test")
VAL_FRACTION = 0.1
VAL_MOST = 5000


class Samples(Protocol):
    """A map-style dataset: ``len()`` and ``[index] -> (image, label)``, the image transformed if a transform was given."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image and its class index."""
        ...


@dataclass(frozen=True)
class Split:
    """An opened split: a map-style dataset that knows its size, its class names and its metric."""

    task: str
    name: str
    classes: tuple[str, ...]
    metric: str
    samples: Samples

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def fingerprint(self) -> str:
        """Return what tells this split from others and from other versions of itself."""
        return f"{self.task} {self.name} {fingerprint(self.samples)}"

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return ``(image, label)``; an image that cannot be read is a :class:`DataError` that names it."""
        try:
            return self.samples[index]
        except DataError:
            raise
        except (OSError, SyntaxError) as error:  # Pillow raises both for broken files
            raise DataError(
                f"{self.task} ({self.name}): image {index} cannot be read: {error}",
                "replace or remove the file, then run the command again",
            ) from error


def fingerprint(samples: Samples) -> str:
    """What tells two versions of the same split apart, without reading an image: its own word for it, or kind and size."""
    own = getattr(samples, "fingerprint", None)
    return own() if own is not None else f"{type(samples).__qualname__} {len(samples)}"


@dataclass(frozen=True)
class Dataset:
    """A task that can be named: cheap to make and to list; nothing is read until :meth:`split`.

    ``open(split, root, transform)`` returns the map-style dataset of one published split; ``root`` is the data folder.
    ``splits`` are the published ones. A missing ``val`` is cut from ``train``: a tenth, at most 5,000 images, seed 0, as in
    the code of WiSE-FT and PAINT, so that ``train``, ``val`` and ``test`` are always disjoint.
    """

    name: str
    classes: tuple[str, ...]
    open: Callable[..., Samples]
    templates: tuple[str, ...] = ("a photo of a {}.",)
    splits: tuple[str, ...] = ("train", "test")
    metric: str = "top1"
    family: str = "other"
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check what a plugin author can get wrong. Raises :class:`UsageError`."""
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "templates", tuple(self.templates))
        if not self.templates:
            raise UsageError(
                f"dataset {self.name!r} has no prompt templates", "give a tuple such as ('a photo of a {}.',)"
            )
        for template in self.templates:
            if "{}" not in template and "{article}" not in template:
                raise UsageError(f"prompt template {template!r} of {self.name!r} has no {{}} for the class name")
        unknown = set(self.splits) - set(SPLITS)
        if unknown or not self.splits:
            raise UsageError(f"dataset {self.name!r} names the splits {self.splits}", f"splits are {', '.join(SPLITS)}")
        if not self.classes:
            raise UsageError(f"dataset {self.name!r} has no classes")

    @property
    def offered(self) -> tuple[str, ...]:
        """The splits that can be opened, the cut validation split among them."""
        return tuple(s for s in SPLITS if s in self.splits or (s == "val" and "train" in self.splits))

    def split(self, split: str, root: Path, transform: Transform | None = None) -> Split:
        """Open ``split`` (``train``, ``val`` or ``test``) below ``root``.

        Raises :class:`DataError` where the data is missing or the task has no such split.
        """
        if split not in self.offered:
            raise DataError(
                f"task {self.name!r} has no {split!r} split",
                f"it offers {', '.join(self.offered)}",
            )
        cut = "val" not in self.splits and split in ("train", "val")
        samples = self.open("train" if cut else split, root, transform)
        if cut:
            samples = cut_validation(samples, split)
        if len(samples) == 0:
            raise DataError(
                f"the {split!r} split of {self.name!r} holds no images", "add images, or name another split"
            )
        return Split(self.name, split, self.classes, self.metric, samples)


@dataclass(frozen=True)
class Subset:
    """Some of the images of another map-style dataset."""

    samples: Samples
    indices: Sequence[int]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def fingerprint(self) -> str:
        """Return what tells this choice of images from others."""
        return f"{list(self.indices)} of {fingerprint(self.samples)}"

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image and label at ``indices[index]``."""
        return self.samples[self.indices[index]]


def cut_validation(samples: Samples, split: str) -> Subset:
    """The ``train`` or ``val`` part of a training split that has no validation split of its own.

    A tenth, at most 5,000 images, by the permutation that ``torch.utils.data.random_split`` draws with seed 0
    (for MNIST's 60,000 images the first of ``train`` is image 36044).
    """
    import torch

    size = len(samples)
    held_out = min(max(int(size * VAL_FRACTION), 1), VAL_MOST)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0)).tolist()
    return Subset(samples, order[: size - held_out] if split == "train" else order[size - held_out :])
