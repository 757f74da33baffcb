"""Read class folders of published datasets, alone or below folders of splits."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from wisepatch.datasets.decoding import COMMON_SUFFIXES
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.datasets.splits import SPLIT_WORDS, cut_validation
from wisepatch.errors import DataError, MissingDataError


def split_folders(
    places: Sequence[Path],
    folders: Sequence[str],
    classes: Sequence[str],
    split: str,
    transform: Transform | None,
    *,
    own_val: bool = False,
) -> Samples | None:
    """Open class folders below ``train/``, ``val/`` and ``test/`` in the first of ``places`` that has one, ``None`` where none has.

    Without ``test/`` the test images are in ``val/``, as in the papers' folders. A ``val/`` beside it belongs to ``train``,
    or with ``own_val`` is a split of its own, which is cut from ``train`` where there is none. Raises :class:`MissingDataError` for
    a folder that is missing.
    """
    place, have = next(((place, have) for place in places if (have := _splits_in(place))), (None, {}))
    if place is None:
        return None
    three = {"val", "test"} <= have.keys()

    def read(name: str) -> FileSamples:
        if name not in have:
            raise MissingDataError(f"there is no {place / name}")
        return read_folders(have[name], folders, transform, classes)

    if split == "test":
        return read("test" if "test" in have else "val")
    if three:
        return read(split) if own_val else FileSamples([*read("train").files, *read("val").files], transform)
    return cut_validation(read("train"), split) if own_val else read("train")


def _splits_in(place: Path) -> dict[str, Path]:
    """Return the folders of splits in ``place``, whatever they are called. Raises :class:`DataError` for two of one split."""
    have: dict[str, Path] = {}
    for child in sorted(place.iterdir()) if place.is_dir() else ():
        split = SPLIT_WORDS.get(child.name.lower())
        if split and child.is_dir():
            if split in have:
                problem = f"{place} has two folders of {split!r}: {have[split].name} and {child.name}"
                raise DataError(problem, "remove one, or join them")
            have[split] = child
    return have


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def read_folders(
    folder: Path, folders: Sequence[str], transform: Transform | None, classes: Sequence[str] = ()
) -> FileSamples:
    """Open the images below class folders, in order of their names; a label is the place of the folder's name in ``folders``.

    A folder may be nested (``a/apse/indoor``). With ``classes`` it may be named after its class too, and only letters and digits
    count. Raises :class:`DataError` for a folder that is none of the classes' and for no images; classes without a folder are
    allowed (``wisepatch datasets check`` counts them).
    """
    label = {name: index for index, name in enumerate(folders)}
    loose = {_letters(name): index for each in (classes, folders) for index, name in enumerate(each)} if classes else {}
    files: list[tuple[Path | str, int]] = []
    for parent, _, entries in os.walk(folder, followlinks=True):
        images = [name for name in entries if os.path.splitext(name)[1].lower() in COMMON_SUFFIXES]  # noqa: PTH122 -- a million
        if not images:
            continue
        below = Path(parent).relative_to(folder).as_posix()
        number = label.get(below, loose.get(_letters(below)))
        if number is None:
            hint = f"class folders are named {', '.join(folders[:3])}, ...; anything else goes elsewhere"
            raise DataError(f"{folder / below} is not the folder of one of its classes", hint)
        files += [(f"{parent}/{name}", number) for name in images]
    if not files:
        raise MissingDataError(f"there are no images below {folder}")
    return FileSamples(sorted(files, key=lambda file: (file[1], str(file[0]))), transform)
