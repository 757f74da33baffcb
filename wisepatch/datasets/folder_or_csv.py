"""Make tasks of folders of images and of CSVs that name images: a :class:`Dataset` without a line of code.

A folder holds ``train/``, ``val/`` and ``test/`` with one folder a class in each, or the class folders alone. A CSV has the
columns ``path,label`` and perhaps ``split``; paths are relative to the CSV. Where no test split is given, a fifth of the
images of every class is held out, and where no validation split is given, a tenth of the rest, by a hash of the path.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.images import read_rgb
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.samples import Annotations, Transform
from wisepatch.datasets.splits import SPLITS, hold_out_files, ordered_labels
from wisepatch.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
TEST_FRACTION, VAL_FRACTION = 0.2, 0.1
NEAR_SPLITS = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
REPLACE_IT = "replace it or take it out, then run again"

Files = dict[str, list[tuple[Path, str]]]  # split -> (image, label as written)


@dataclass(frozen=True)
class FileSamples:
    """Read image files, or the boxes in them (left, upper, right, lower, in pixels), as RGB when they are asked for."""

    files: Sequence[tuple[Path | str, int]]
    transform: Transform | None = None
    annotations: Annotations | None = None
    boxes: Sequence[tuple[int, int, int, int]] | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> list[int]:
        """Return the labels of all files."""
        return [label for _, label in self.files]

    def images(self) -> tuple[object, ...]:
        """Return a value that tells these images, transformed, from others, whatever their labels."""
        return (id(self.transform), *self.image_ids())

    def image_ids(self) -> list[str]:
        """Return the paths of all files as they were given, with the boxes where there are any."""
        if self.boxes is None:
            return [str(path) for path, _ in self.files]
        return [f"{path}#{','.join(map(str, box))}" for (path, _), box in zip(self.files, self.boxes, strict=True)]

    def fingerprint(self) -> str:
        """Return names, labels, sizes and times of change of all images."""
        try:
            stats = [Path(path).stat() for path, _ in self.files]
        except OSError as error:
            raise DataError(f"image {error.filename} cannot be read: {error.strerror}", REPLACE_IT) from error
        rows = zip(self.image_ids(), self.labels, stats, strict=True)
        return str([(name, label, stat.st_size, stat.st_mtime_ns) for name, label, stat in rows])

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image and its label; a file that is no image is a :class:`DataError` that names it."""
        path, label = self.files[index]
        try:
            image = read_rgb(path)
            image = image if self.boxes is None else image.crop(self.boxes[index])
            return (self.transform(image) if self.transform else image), label
        except ValueError as error:
            raise DataError(f"image {path} cannot be read: {error}", REPLACE_IT) from error


def folder_dataset(path: Path) -> Dataset:
    """Describe the folder ``path`` as a task named after it. Lists files; opens none.

    Raises :class:`DataError` for a folder without class folders, an empty class folder, two classes of one name, or a class that
    only one split has.
    """
    path = path.resolve()
    folders: dict[str, Path] = {}
    for entry in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        other = folders.setdefault(entry.name.lower(), entry)
        if other != entry and entry.name.lower() in SPLITS:
            raise DataError(f"{path} has two folders for one split: {other.name} and {entry.name}", "merge the two")
    files = {split: _class_files(folders[split]) for split in SPLITS if split in folders}
    misnamed = min(folders.keys() & NEAR_SPLITS.keys(), default=None)
    if files and misnamed:
        raise DataError(f"{folders[misnamed]} is neither a split nor a class", f"rename it to {NEAR_SPLITS[misnamed]}")
    return _dataset(path, files or {"train": _class_files(path)})


def csv_dataset(path: Path) -> Dataset:
    """Describe the CSV ``path`` (``path,label[,split]``) as a task named after it. Opens no image.

    Raises :class:`DataError` for a file that is no CSV in UTF-8, missing columns, an unknown split, an image that is named twice,
    or files that do not exist (the first is named).
    """
    path = path.resolve()
    files: Files = {}
    for where, row in csv_rows(path):
        image, label = (row["path"] or "").strip(), (row["label"] or "").strip()
        split = (row.get("split") or "train").strip().lower()
        if not image or not label:
            raise DataError(f"{where}: an empty path or label", "fill it in, or remove the line")
        if split not in SPLITS:
            raise DataError(f"{where}: split {split!r}", f"splits are {', '.join(SPLITS)}")
        files.setdefault(split, []).append((path.parent / os.path.expanduser(image), label))  # noqa: PTH111 -- raises nothing
    images = [image for listed in files.values() for image, _ in listed]
    counts = Counter(os.path.normpath(image) for image in images)  # x/../x/0.png is x/0.png
    twice = next((image for image, count in counts.items() if count > 1), None)
    if twice:
        raise DataError(f"{path} names {twice} twice", "keep one line for each image, so that no split holds another's")
    absent = [image for image in images if not os.path.isfile(image)]  # noqa: PTH113 -- no OSError for a name too long
    if absent:
        problem = f"{path} names {len(absent)} files that do not exist, the first {absent[0]}"
        raise DataError(problem, "paths are read relative to the folder of the CSV")
    return _dataset(path, files)


def csv_rows(path: Path, needed: Sequence[str] = ("path", "label")) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield the place of each row of a CSV, in words, and its values by the names of the columns in lower case."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        try:
            header = rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
            missing = sorted(set(needed) - set(header))
            if missing:
                problem = f"{path} has no column {' and no column '.join(missing)}"
                hint = f"its first line must begin {','.join(needed)}"
                raise DataError(f"{problem}; its first line has: {', '.join(header) or 'nothing'}", hint)
            for row in rows:
                yield f"{path}, line {rows.line_num}", row
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not a text file in UTF-8: {error.reason}", "save it as CSV in UTF-8") from error
        except csv.Error as error:
            hint = "a quotation mark that is not closed makes one field of many lines"
            raise DataError(f"{path}, line {rows.reader.line_num}: {error}", hint) from error


def _class_files(folder: Path) -> list[tuple[Path, str]]:
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        hint = "put the images of each class into a folder named after it, or list them in a CSV with path,label"
        raise DataError(f"{folder} holds no class folders", hint)
    files = []
    for each in classes:
        images = sorted(p for p in each.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not images:
            hint = f"add some ({', '.join(sorted(SUFFIXES))}) or remove it"
            raise DataError(f"class folder {each} holds no images", hint)
        files += [(image, each.name) for image in images]
    return files


def _dataset(path: Path, files: Files) -> Dataset:
    names = {split: {label for _, label in listed} for split, listed in files.items()}
    every = ordered_labels(set().union(*names.values()))
    if len(every) < 2:
        problem = f"{path} has one class, {every[0]!r}" if every else f"{path} lists no images"
        raise DataError(problem, "a task needs at least two classes")
    _check_names_differ(path, every)
    for split, fraction in (("test", TEST_FRACTION), ("val", VAL_FRACTION)):
        if split not in files and "train" in files:
            root = path if path.is_dir() else path.parent
            files["train"], files[split] = hold_out_files(root, files["train"], fraction, split)
    splits = tuple(split for split in SPLITS if split in files)
    for split in names:
        if unknown := names[split] - names[splits[0]]:
            problem = f"{path}: class {min(unknown)!r} is in {split} and not in {splits[0]}"
            raise DataError(problem, "every class needs images in every split, or at least in train")
    labels = ordered_labels(names[splits[0]])
    index = {label: i for i, label in enumerate(labels)}
    numbered = {split: tuple((image, index[label]) for image, label in files[split]) for split in splits}
    return Dataset(
        name=path.stem if path.is_file() else path.name,
        classes=tuple(label.replace("_", " ") for label in labels),
        open=partial(_open, numbered),
        templates=TEMPLATES["simple"],
        splits=splits,
        family="folder",
        source=str(path),
    )


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
    files: Mapping[str, Sequence[tuple[Path, int]]], split: str, root: Path, transform: Transform | None = None
) -> FileSamples:
    return FileSamples(files[split], transform)
