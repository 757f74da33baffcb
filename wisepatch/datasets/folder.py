"""Any folder of images, and any CSV that names images: a :class:`Dataset` without a line of code.

A folder holds ``train/``, ``val/`` and ``test/`` with one folder a class in each, or the class folders alone. A CSV has the
columns ``path,label`` and perhaps ``split``; paths are relative to the CSV. Where no test split is given, a fifth of the
images of every class is held out, by a hash of its path.
"""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import SPLITS, Dataset
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wisepatch.datasets.base import Samples, Transform

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
TEST_FRACTION = 0.2

Files = dict[str, list[tuple[Path, str]]]  # split -> (image, label as written)


@dataclass(frozen=True)
class FileSamples:
    """Image files and their labels, opened as RGB when asked for."""

    files: Sequence[tuple[Path, int]]
    transform: Transform | None = None

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image and its label; a file that is no image is a :class:`DataError` that names it."""
        from PIL import Image

        path, label = self.files[index]
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            reason = (
                "it is missing" if isinstance(error, FileNotFoundError) else str(error).replace(str(path), path.name)
            )
            raise DataError(
                f"image {path} cannot be read: {reason}", "replace it or take it out, then run again"
            ) from error
        return (self.transform(image) if self.transform else image), label


def folder_dataset(path: Path) -> Dataset:
    """Describe the folder ``path`` as a task named after it. Lists files; opens none.

    Raises :class:`DataError` for a folder without class folders, an empty class folder, or a class that only one split has.
    """
    path = path.resolve()
    present = [split for split in SPLITS if (path / split).is_dir()]
    files: Files = {}
    if present:
        for split in present:
            files[split] = _class_files(path / split)
    else:
        files["train"] = _class_files(path)
    return _dataset(path, files)


def csv_dataset(path: Path) -> Dataset:
    """Describe the CSV ``path`` (``path,label[,split]``) as a task named after it. Opens no image.

    Raises :class:`DataError` for missing columns, an unknown split, or files that do not exist (the first is named).
    """
    path = path.resolve()
    files: Files = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            missing = {"path", "label"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path} has no column {' and no column '.join(sorted(missing))}",
                    "its first line must read path,label or path,label,split",
                )
            for row in reader:
                split = (row.get("split") or "train").strip()
                if split not in SPLITS or not row["path"] or not row["label"]:
                    what = f"split {split!r}" if split not in SPLITS else "an empty path or label"
                    raise DataError(f"{path}, line {reader.line_num}: {what}", f"splits are {', '.join(SPLITS)}")
                files.setdefault(split, []).append((path.parent / row["path"].strip(), row["label"].strip()))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8: {error.reason}", "save it as CSV in UTF-8") from error
    absent = [image for listed in files.values() for image, _ in listed if not image.is_file()]
    if absent:
        raise DataError(
            f"{path} names {len(absent)} files that do not exist, the first {absent[0]}",
            "paths are read relative to the folder of the CSV",
        )
    return _dataset(path, files)


def renamed(dataset: Dataset, classnames: Sequence[str] | None, templates: Sequence[str] | None) -> Dataset:
    """Return ``dataset`` with other class names (as many, in the same order) and prompt templates."""
    if classnames is not None and len(classnames) != len(dataset.classes):
        raise UsageError(
            f"{len(classnames)} class names for {len(dataset.classes)} classes of {dataset.name!r}",
            f"one name a line, in this order: {', '.join(dataset.classes[:8])}{', ...' if len(dataset.classes) > 8 else ''}",
        )
    return replace(
        dataset,
        classes=tuple(classnames) if classnames is not None else dataset.classes,
        templates=tuple(templates) if templates else dataset.templates,
    )


def _class_files(folder: Path) -> list[tuple[Path, str]]:
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DataError(
            f"{folder} holds no class folders",
            "put the images of each class into a folder named after it, or list them in a CSV with path,label",
        )
    found = []
    for each in classes:
        images = sorted(p for p in each.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not images:
            raise DataError(
                f"class folder {each} holds no images", f"add some ({', '.join(sorted(SUFFIXES))}) or remove it"
            )
        found += [(image, each.name) for image in images]
    return found


def _dataset(path: Path, files: Files) -> Dataset:
    if not any(files.values()):
        raise DataError(f"{path} lists no images", "add some")
    if "test" not in files and "train" in files:
        files["train"], files["test"] = _hold_out(path if path.is_dir() else path.parent, files["train"])
    first = next(split for split in SPLITS if split in files)
    labels = _ordered({label for _, label in files[first]})
    for split, listed in files.items():
        strange = {label for _, label in listed} - set(labels)
        if strange:
            raise DataError(
                f"{path}: class {min(strange)!r} is in {split} and not in {first}",
                "every class needs images in every split, or at least in train",
            )
    if len(labels) < 2:
        raise DataError(f"{path} has one class, {labels[0]!r}", "a task needs at least two")
    index = {label: i for i, label in enumerate(labels)}
    numbered = {split: tuple((image, index[label]) for image, label in listed) for split, listed in files.items()}
    return Dataset(
        name=path.stem if path.is_file() else path.name,
        classes=tuple(label.replace("_", " ") for label in labels),
        open=partial(_open, numbered),
        templates=TEMPLATES["simple"],
        splits=tuple(split for split in SPLITS if split in numbered),
        family="folder",
        source=str(path),
    )


def _open(
    files: Mapping[str, Sequence[tuple[Path, int]]], split: str, root: Path, transform: Transform | None = None
) -> Samples:
    return FileSamples(files[split], transform)


def _hold_out(root: Path, listed: list[tuple[Path, str]]) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """Split off a fifth of every class, at least one image where there are two; the rest stays for training."""
    train, test = [], []
    for label in _ordered({label for _, label in listed}):
        mine = [item for item in listed if item[1] == label]
        # In the order of a hash of the path below the folder: an image that is added moves few others.
        mine.sort(key=lambda item: hashlib.sha256(os.path.relpath(item[0], root).encode()).digest())
        most = max(round(len(mine) * TEST_FRACTION), 1) if len(mine) > 1 else 0
        test += mine[:most]
        train += mine[most:]
    if not test:
        raise DataError(
            "too few images to hold out a test split: one a class", "add images, or name test images yourself"
        )
    return train, test


def _ordered(labels: Iterable[str]) -> list[str]:
    """Sort labels as numbers where all are, else as text (as class folders are by every image-folder reader)."""
    return sorted(labels, key=lambda label: (0, int(label), "") if label.isdecimal() else (1, 0, label))
