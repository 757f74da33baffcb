"""Join the training images of several tasks into one dataset, whose labels count on (PAINT section 5, joint patching)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.joined import Joined
from wisepatch.datasets.samples import (
    Samples,
    Transform,
    fingerprint,
    image_ids,
    labels_of,
    set_epoch,
)
from wisepatch.train_config import Balance

SEED_STREAM = 29  # the first number of every seed here, so that no other random numbers are the same


def joint_dataset(datasets: Sequence[Dataset], balance: Balance = "examples") -> Dataset:
    """Make the dataset of all images of some others, whose classes follow each other.

    ``balance`` of ``examples`` takes each image once an epoch, ``tasks`` as many of each task as the largest has: images of a
    smaller task come as often as they fit, and some once more, others in each epoch. Splits are cut as those of each task are.
    """
    return Dataset(
        "+".join(each.name for each in datasets),
        tuple(f"{each.name}: {name}" for each in datasets for name in each.head_names),
        JointOpener(tuple(datasets), balance),
        splits=("train", "val", "test"),
        family="several",
    )


@dataclass(frozen=True)
class JointOpener:
    """``open`` of several tasks at once: equal for equal tasks, and known to workers that are spawned."""

    datasets: tuple[Dataset, ...]
    balance: Balance = "examples"

    def __call__(self, split: str, root: Path, transform: Transform | None = None) -> Samples:
        """Open the split of every task. Raises the errors of each."""
        sizes = [len(each.head_names) for each in self.datasets]
        parts: dict[str, Samples] = {
            each.name: Counted(each.split(split, root, transform), first)
            for each, first in zip(self.datasets, [0, *accumulate(sizes)], strict=False)
        }
        joined = Joined(parts)
        return Balanced(joined, [len(part) for part in parts.values()]) if self.balance == "tasks" else joined


@dataclass(frozen=True)
class Counted:
    """Samples whose labels count from ``first``."""

    samples: Samples
    first: int

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.samples[index]
        return image, label + self.first

    @property
    def labels(self) -> list[int] | None:
        """Return all labels, where they are known without decoding."""
        labels = labels_of(getattr(self.samples, "samples", self.samples))
        return None if labels is None else [label + self.first for label in labels]

    def fingerprint(self) -> str:
        """Return a text that tells these images and labels from others."""
        return f"from {self.first}: {fingerprint(self.samples)}"

    def image_ids(self) -> list[str]:
        """Name each image as its task does."""
        return image_ids(self.samples)

    def set_epoch(self, epoch: int) -> None:
        """Tell the samples which epoch it is."""
        set_epoch(self.samples, epoch)


@dataclass
class Balanced:
    """Take as many images of each part of ``joined`` an epoch, the number of the largest; which ones come twice is drawn anew."""

    joined: Joined
    sizes: Sequence[int]
    indices: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with the first epoch."""
        self.set_epoch(0)

    def __len__(self) -> int:
        return max(self.sizes) * len(self.sizes)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.joined[self.indices[index]]

    @property
    def labels(self) -> list[int] | None:
        """Return the labels of the images of this epoch, where they are known without decoding."""
        labels = self.joined.labels
        return None if labels is None else [labels[index] for index in self.indices]

    def fingerprint(self) -> str:
        """Return a text that tells this choice of images from others, whatever the epoch."""
        return f"balanced {list(self.sizes)} of {self.joined.fingerprint()}"

    def image_ids(self) -> list[str]:
        """Name each image as its task does; some come more than once."""
        ids = self.joined.image_ids()
        return [ids[index] for index in self.indices]

    def set_epoch(self, epoch: int) -> None:
        """Draw which images of smaller parts come once more in this epoch; the same epoch gives the same."""
        import numpy as np

        most, indices = max(self.sizes), []
        for number, (size, first) in enumerate(zip(self.sizes, [0, *accumulate(self.sizes)], strict=False)):
            whole, rest = divmod(most, size)
            drawn = np.random.default_rng([SEED_STREAM, number, epoch]).permutation(size)[:rest]
            indices += [first + index for index in [*list(range(size)) * whole, *drawn.tolist()]]
        self.indices = indices
        self.joined.set_epoch(epoch)
