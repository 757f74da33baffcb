"""Find images that come twice where it matters: in two splits, under two labels, or in two tasks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.samples import Split, labels_of, own_files
from wisepatch.errors import DataError

PIECE = 4096  # bytes at both ends of a file that are compared before all of it is read
MOST_COMPARED = 10_000  # files of one size, of two tasks


class Place(NamedTuple):
    """Say where an image is: in which split, as which file, under which label."""

    split: str
    name: str
    label: int


def same_files(dataset: Dataset, root: Path) -> list[list[Place]]:
    """Return the groups of equal files in several splits or under several labels, of a task of a user's own files.

    Only files of one size are opened, and only those read whole whose ends are the same.
    """
    if dataset.family != "folder":
        return []
    places: list[Place] = []
    for split in dataset.available_splits:
        with suppress(DataError):  # that nothing can be opened is said elsewhere
            places += places_of(dataset.split(split, root))
    for key in (_size, _ends):
        places = [place for group in _grouped(places, key) for place in group]
    return [group for group in _grouped(places, _digest) if _matters(group)]


def share_files(one: Iterable[str], other: Iterable[str]) -> bool:
    """Tell whether two tasks of a user's own have an image in common: the same file, through links too, or a copy.

    Files of one size whose ends are the same count as copies; of those of one size the first ``MOST_COMPARED`` are read. Ids of
    images that are no paths of files tell nothing.
    """
    places = [
        Place(task, file, 0)
        for task, files in (("one", one), ("other", other))
        for file in files
        if os.path.isabs(file)  # noqa: PTH117
    ]

    def common(places: Sequence[Place], key: Any) -> list[Place]:
        groups = (group for group in _grouped(places, key) if len({place.split for place in group}) > 1)
        return [place for group in groups for place in group]

    return bool(common(common(places, _size)[:MOST_COMPARED], _ends))


def places_of(split: Split) -> list[Place]:
    """Return the places of all images of a split of a user's own files."""
    labels = labels_of(split.samples) or ()
    return [Place(split.name, name, label) for name, label in zip(own_files(split), labels, strict=True)]


def same_pixels(digests: Mapping[Place, str]) -> list[list[Place]]:
    """Return the groups of images of equal pixels in several splits or under several labels."""
    return [group for group in _grouped(sorted(digests), digests.__getitem__) if _matters(group)]


def pixel_digest(image: Any) -> str:
    """Return a text that images share only if they have the same size and pixels."""
    return sha256(f"{image.size} {image.mode}".encode() + image.tobytes()).hexdigest()


def told(dataset: Dataset, groups: Sequence[Sequence[Place]], what: str = "bytes") -> list[str]:
    """Return a line with the number of groups that are in several splits, and one with that under several labels."""
    crossing = [group for group in groups if len({place.split for place in group}) > 1]
    ambiguous = [group for group in groups if len({place.label for place in group}) > 1]
    lines = []
    if crossing:
        lines.append(
            f"{dataset.name}: {_count(crossing, what)} in more than one split, so that what is measured was trained on"
        )
    if ambiguous:
        lines.append(f"{dataset.name}: {_count(ambiguous, what)} under more than one label")
    return lines


def described(dataset: Dataset, group: Iterable[Place]) -> str:
    """Name the images of a group, with their splits and classes."""
    return "the same: " + ", ".join(f"{place.name} ({place.split}, {dataset.classes[place.label]})" for place in group)


def _count(groups: Sequence[object], what: str) -> str:
    return f"{count(len(groups), 'image')} with the same {what}"


def _matters(group: Sequence[Place]) -> bool:
    return len({place.split for place in group}) > 1 or len({place.label for place in group}) > 1


def _grouped(places: Iterable[Place], key: Any) -> list[list[Place]]:
    """Return the groups of two and more places with an equal key; files that cannot be read are in none."""
    groups: dict[Hashable, list[Place]] = defaultdict(list)
    for place in places:
        try:
            groups[key(place)].append(place)
        except OSError:
            continue
    return [group for group in groups.values() if len(group) > 1]


def _size(place: Place) -> int:
    return os.path.getsize(place.name)  # noqa: PTH202 -- of a million


def _ends(place: Place) -> tuple[int, bytes, bytes]:
    with open(place.name, "rb") as file:  # noqa: PTH123 -- of a million
        start = file.read(PIECE)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - PIECE, 0))
        return size, start, file.read()


def _digest(place: Place) -> str:
    with open(place.name, "rb") as file:  # noqa: PTH123 -- of a million
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
