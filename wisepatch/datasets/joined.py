"""Join the splits of a task, to evaluate all its images."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from wisepatch.datasets.samples import (
    Annotations,
    Samples,
    annotations_of,
    fingerprint,
    image_ids,
    images_of,
    labels_of,
    own_files,
    set_epoch,
)


@dataclass(frozen=True)
class Joined:
    """Hold the images of several splits, one split after the other."""

    parts: Mapping[str, Samples]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map(len, self.parts.values())))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        part = bisect_right(self._ends, index)
        return list(self.parts.values())[part][index - ([0, *self._ends][part])]

    @property
    def labels(self) -> list[int] | None:
        """Return all labels, where every part knows its own without decoding."""
        labels = [labels_of(part) for part in self.parts.values()]
        return None if any(each is None for each in labels) else [label for each in labels for label in each or ()]

    @property
    def annotations(self) -> Annotations:
        """Return the annotations that every part has."""
        every = [annotations_of(part) for part in self.parts.values()]

        def join(name: str) -> list[Any] | None:
            values = [getattr(each, name) for each in every]
            return None if any(value is None for value in values) else [item for value in values for item in value]

        starts = [0, *self._ends]
        rows = [
            [[start + index for index in row] for row in each.sequences or ()]
            for start, each in zip(starts, every, strict=False)
        ]
        sequences = [row for part in rows for row in part] if join("sequences") is not None else None
        same_names = len({each.group_names for each in every}) == 1
        groups = join("groups") if same_names else None
        names = every[0].group_names if groups is not None else ()
        return Annotations(
            groups, names, join("accepted"), sequences, join("written"), join("corruption"), join("clusters")
        )

    def images(self) -> tuple[object, ...] | None:
        """Return a value that tells these images from others; ``None`` where a part has none."""
        inner = [images_of(part) for part in self.parts.values()]
        return None if None in inner else tuple(inner)

    def fingerprint(self) -> str:
        """Return a text that tells these images from others."""
        return str({name: fingerprint(part) for name, part in self.parts.items()})

    def image_ids(self) -> list[str]:
        """Name each image as its split does, after the name of the split where two would be called the same."""
        ids = {name: image_ids(part) for name, part in self.parts.items()}
        plain = [each for part in ids.values() for each in part]
        if len(set(plain)) == len(plain):
            return plain
        return [f"{name}/{each}" for name, part in ids.items() for each in part]

    def own_files(self) -> list[str]:
        """Return the files of those parts whose images are a user's own."""
        return [file for part in self.parts.values() for file in own_files(part)]

    def set_epoch(self, epoch: int) -> None:
        """Tell all parts which epoch it is."""
        for part in self.parts.values():
            set_epoch(part, epoch)
