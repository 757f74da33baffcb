"""Make tasks of folders of images and of CSVs that name images: a :class:`Dataset` without a line of code.

A folder holds ``train/``, ``val/`` and ``test/`` with one folder a class in each, or the class folders alone. A CSV has the
columns ``path,label`` and perhaps ``split`` and ``group``; paths are relative to the CSV. Where no test split is given, a fifth
of the images is held out, and where no validation split is given, a tenth of the rest: each by its own name (or group) alone.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.csv_listing import list_csv
from wisepatch.datasets.decoding import COMMON_SUFFIXES
from wisepatch.datasets.folder_listing import Files, list_folder
from wisepatch.datasets.image_files import FileSamples, readable
from wisepatch.datasets.notes import shortened
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.reading import AS_IT_IS, Reading, reading_of
from wisepatch.datasets.samples import Annotations, Transform
from wisepatch.datasets.splits import (
    CUT,
    FIRST_CUT,
    SECOND_CUT,
    SPLIT_WORDS,
    SPLITS,
    TEST_SHARE,
    VAL_SHARE,
    draws,
    first_cut,
    natural_key,
    ordered_labels,
    split_of,
)
from wisepatch.errors import DataError, EmptySplitError
from wisepatch.files import in_utf8


def folder_dataset(path: Path, cut: int = CUT, reading: Reading = AS_IT_IS) -> Dataset:
    """Describe the folder ``path`` as a task named after it. Lists files; opens only those whose suffix says nothing.

    Raises :class:`DataError` for a folder without class folders, an empty class folder, two classes of one name, or a class that
    only one split has.
    """
    path = path.resolve()
    listing = list_folder(path)
    notes = []
    if listing.within or listing.root != path:
        notes.append(f"the classes are taken from {shortened(list(map(str, listing.within or [listing.root])))}")
    if {*listing.files} == {"train"}:
        notes += _of_splits(label for _, label in listing.files["train"])
        notes += _of_folders_within(listing.root, listing.files["train"])
    if listing.outside:
        lead = count(listing.outside, "link leads to a place", "links lead to places")
        notes.append(f"{lead} outside of {path}; what lies there is read too")
    return _dataset(path, listing.root, listing.files, cut, notes, {}, listing.left_out, reading)


def csv_dataset(path: Path, cut: int = CUT, reading: Reading = AS_IT_IS) -> Dataset:
    """Describe the CSV ``path`` (``path,label[,split][,group]``) as a task named after it. Opens no image.

    Raises :class:`DataError` as :func:`~wisepatch.datasets.csv_listing.list_csv` does, and for classes as of a folder.
    """
    path = path.resolve()
    listing = list_csv(path, reading.columns)
    notes = []
    if listing.repeated:
        notes.append(f"{count(listing.repeated, 'repeated row')}, taken once")
    if listing.outside:
        number = count(len(listing.outside), "image")
        notes.append(f"{number} outside of {path.parent}: {shortened(listing.outside)}")
    return _dataset(path, path.parent, listing.files, cut, notes, listing.groups, {}, reading)


def cut_again(dataset: Dataset, cut: int) -> Dataset:
    """Return the task of a folder or CSV as an earlier version of wisepatch cut it, and ordered its classes."""
    path = Path(dataset.source)
    return (csv_dataset if path.is_file() else folder_dataset)(path, cut, reading_of(dataset))


def _dataset(
    path: Path,
    root: Path,
    files: Files,
    cut: int,
    notes: list[str],
    groups: Mapping[str, str],
    left_out: Mapping[str, Sequence[str]],
    reading: Reading,
) -> Dataset:
    names = {split: {label for _, label in listed} for split, listed in files.items()}
    every = ordered_labels(set().union(*names.values()), cut)
    if len(every) < 2:
        problem = f"{path} has one class, {every[0]!r}" if every else f"{path} lists no images"
        hint = "put the images of each class into a folder named after it, or list them in a CSV with path,label"
        raise DataError(problem, f"a task needs at least two: {hint}")
    _check_names_differ(path, every)
    given = [split for split in SPLITS if split in files]
    for split in given:
        if unknown := names[split] - names[given[0]]:
            problem = f"{path}: class {min(unknown)!r} is in {split} and not in {given[0]}"
            raise DataError(problem, "every class needs images in every split, or at least in train")

    def group_of(image: str) -> str:
        return groups.get(image) or (reading.group and reading.group_of(_name_below(image, root)))

    if "train" in files:
        if cut == FIRST_CUT:
            files = _first_cut(root, files)
        else:
            files, filled = _cut(root, files, group_of, fill=cut > SECOND_CUT)
            notes += filled
        notes += _of_classes(files, every)
    named: dict[str, str] = {}
    if groups or reading.group:
        notes += _of_groups(files, group_of, reading.group)
        named = {image: group_of(image) for listed in files.values() for image, _ in listed}
    index = {label: i for i, label in enumerate(every)}
    numbered = {
        split: tuple((image, index[label]) for image, label in files[split]) for split in SPLITS if split in files
    }
    return Dataset(
        name=in_utf8(path.stem if path.is_file() else path.name),
        classes=tuple(label.replace("_", " ") for label in every),
        open=partial(_open, path=str(path), files=numbered, reading=reading, groups=named),
        templates=TEMPLATES["simple"],
        splits=tuple(numbered),
        family="folder",
        source=str(path),
        labels=tuple(every),
        notes=tuple(f"{in_utf8(path.name)}: {note}" for note in notes),
        left_out={reason: tuple(sorted(listed)) for reason, listed in left_out.items()},
    )


def _cut(root: Path, files: Files, group_of: Callable[[str], str], *, fill: bool) -> tuple[Files, list[str]]:
    """Hold out the splits that are missing; an image goes by its path below ``root``, or by its group.

    With ``fill``, a split into which none falls gets the image (or group) that comes closest to it. When images are added, that
    one may go back to train, and none that was in train leaves it, unless a split had to stay empty. Returns the splits, and a
    line for each that was filled.
    """
    missing = [split for split in SPLITS if split not in files]
    if not missing:
        return files, []
    parts: Files = {"train": [], **{split: [] for split in missing}}
    filled = []

    def key(file: tuple[str, str]) -> str:
        return group_of(file[0]) or _name_below(file[0], root)

    for file in files["train"]:
        parts[split_of(key(file), missing)].append(file)
    for split in reversed(missing if fill else ()):  # test first
        keys = {key(file) for file in parts["train"]} if not parts[split] else set()
        if len(keys) > 1:
            closest = min(keys, key=lambda each: draws(each)[split])
            parts[split] = [file for file in parts["train"] if key(file) == closest]
            parts["train"] = [file for file in parts["train"] if key(file) != closest]
            number = count(len(parts[split]), "image was", "images were")
            filled.append(
                f"none of {len(files['train'])} images falls into {split} by its name, so that {number} taken for it"
            )
    return {**files, **parts}, filled


def _name_below(path: str, root: Path) -> str:
    """Return the path below ``root``, whose letters are taken off where nothing has to be worked out."""
    if path.startswith(f"{root}") and ".." not in path and "/." not in path:
        return path[len(f"{root}".rstrip(os.sep)) + 1 :].replace(os.sep, "/")
    return os.path.relpath(path, root).replace(os.sep, "/")


def _of_groups(files: Files, group_of: Callable[[str], str], expression: str) -> list[str]:
    """Return a line where an expression finds no group in the names of some images, and one where splits share groups."""
    splits_of: dict[str, list[str]] = {}
    for split, listed in files.items():
        for image, _ in listed:
            splits_of.setdefault(group_of(image), []).append(split)
    alone = splits_of.pop("", [])
    crossing = sorted(group for group, splits in splits_of.items() if len(set(splits)) > 1)
    lines = []
    if expression and alone:
        lines.append(
            f"the group {expression} is not in the name of {count(len(alone), 'image')}, each a group of its own"
        )
    if crossing:
        lines.append(f"{count(len(crossing), 'group is', 'groups are')} in more than one split: {shortened(crossing)}")
    return lines


def _first_cut(root: Path, files: Files) -> Files:
    files = {
        split: [each for each in listed if Path(each[0]).suffix.lower() in COMMON_SUFFIXES]
        for split, listed in files.items()
    }
    for split, fraction in (("test", TEST_SHARE), ("val", VAL_SHARE)):
        if split not in files:
            files["train"], files[split] = first_cut(root, files["train"], fraction)
    return files


def _of_splits(labels: Iterable[str]) -> Iterable[str]:
    """Yield a note where the folders that are taken for classes may be splits: ``seg_train`` and ``seg_test``."""
    words = {label: re.split("[^a-z]+", label.lower()) for label in dict.fromkeys(labels)}
    split_of_label = {label: SPLIT_WORDS[w] for label, of_label in words.items() for w in of_label if w in SPLIT_WORDS}
    if {"train"} < {*split_of_label.values()}:
        names, splits = (shortened(list(each)) for each in (split_of_label, split_of_label.values()))
        yield f"{names} are taken for classes; if they are splits, call them {splits}"


def _of_folders_within(root: Path, files: Iterable[tuple[str, str]]) -> Iterable[str]:
    """Yield a note where the folders that are taken for classes hold no images, and the same folders each: ``2024/cat``."""
    within: dict[str, set[str]] = {}
    for image, label in files:
        _, folder, *deeper = _name_below(image, root).split("/")
        if not deeper:
            return
        within.setdefault(label, set()).add(folder)
    common = sorted(set.intersection(*within.values()), key=natural_key)
    if len(within) > 1 and len(common) > 1:
        taken, inner = shortened(list(within)), shortened(common)
        splits = {SPLIT_WORDS.get(name.lower()) for name in common} - {None}
        advice = "put the classes into them" if len(splits) > 1 else "name the images in a CSV with path,label"
        kind = "splits" if len(splits) > 1 else "classes"
        yield f"{taken} are taken for classes, and each holds {inner}; if those are the {kind}, {advice}"


def _of_classes(files: Files, every: Sequence[str]) -> Iterable[str]:
    """Yield a note for each split that has no images of some classes."""
    for split in SPLITS:
        have = {label for _, label in files[split]}
        if absent := [label for label in every if label not in have]:
            yield f"no images of {len(absent)} of {len(every)} classes in {split}: {shortened(absent)}"


def _check_names_differ(path: Path, labels: Iterable[str]) -> None:
    """Raise :class:`DataError` that names two labels of which a prompt would make one class: ``a_b`` and ``A b``."""
    label_of: dict[str, str] = {}
    for label in labels:
        name = " ".join(unicodedata.normalize("NFC", label).replace("_", " ").split()).casefold()
        other = label_of.setdefault(name, label)
        if other != label:
            problem = f"{path}: the classes {other!r} and {label!r} have one name"
            hint = "rename one of them; if they are one class, give all its images the same label (or the same folder)"
            raise DataError(f"{problem}: case, spaces and underscores tell none apart", hint)


def _open(
    split: str,
    root: Path,
    transform: Transform | None = None,
    *,
    path: str,
    files: Mapping[str, Sequence[tuple[str, int]]],
    reading: Reading,
    groups: Mapping[str, str],
) -> FileSamples:
    if not files[split]:
        number = sum(map(len, files.values()))
        problem = f"{path}: too few images to hold out a {split} split: of {number}, none falls into it by its name"
        on_test = "choose alpha on test data with --select-on test"
        otherwise = on_test if split == "val" else f"evaluate all as {Path(path).name}@all"
        raise EmptySplitError(problem, f"add images, put some into a folder {split}, or {otherwise}")
    listed = files[split]
    if reading.bad:
        listed = [listed[place] for place in readable(f"{path} ({split})", [image for image, _ in listed])]
    clusters = [groups[image] or image for image, _ in listed] if groups else None  # an image without a group is one
    return FileSamples(listed, transform, Annotations(clusters=clusters), as_seen=True, managed=bool(reading.colours))
