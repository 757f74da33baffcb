"""Any folder of images, and any CSV that names images: a :class:`Dataset` without a line of code.

A folder holds ``train/``, ``val/`` and ``test/`` with one folder a class in each, or the class folders alone. A CSV has the
columns ``path,label`` and perhaps ``split``; paths are relative to the CSV. Where no test split is given, a fifth of the
images of every class is held out, and where no validation split is given, a tenth of the rest, by a hash of the path.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import SPLITS, Dataset
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wisepatch.datasets.base import Annotations, Samples, Transform

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
TEST_FRACTION, VAL_FRACTION = 0.2, 0.1
NEAR_SPLITS = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}

Files = dict[str, list[tuple[Path, str]]]  # split -> (image, label as written)


class Drafted:
    """A transform that is content with JPEGs decoded small: by a half, a quarter or an eighth, not below ``shortest`` pixels."""

    def __init__(self, transform: Transform, shortest: int) -> None:
        """Keep the transform."""
        self.transform, self.shortest = transform, shortest

    def __call__(self, image: Any) -> Any:
        """Transform."""
        return self.transform(image)


def drafted(transform: Transform | None) -> int:
    """The pixels below which JPEGs are not decoded small; 0 for a transform that wants all of them."""
    return transform.shortest if isinstance(transform, Drafted) else 0


@dataclass(frozen=True)
class FileSamples:
    """Image files and their labels, opened as RGB when asked for."""

    files: Sequence[tuple[Path | str, int]]
    transform: Transform | None = None
    annotations: Annotations | None = None

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    @property
    def labels(self) -> list[int]:
        """The labels of all files."""
        return [label for _, label in self.files]

    def images(self) -> tuple[object, ...]:
        """Return what tells these images, as they are given, from others, whatever their labels."""
        return (id(self.transform), *(str(path) for path, _ in self.files))

    def fingerprint(self) -> str:
        """Return paths, labels, sizes and times of change of all files."""
        try:
            stats = [(str(path), label, Path(path).stat()) for path, label in self.files]
        except OSError as error:
            raise DataError(
                f"image {error.filename} cannot be read: {error.strerror}", "replace it or take it out, then run again"
            ) from error
        found = str([(path, label, stat.st_size, stat.st_mtime_ns) for path, label, stat in stats])
        return f"{found} drafted {drafted(self.transform)}" if drafted(self.transform) else found

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image and its label; a file that is no image is a :class:`DataError` that names it."""
        from PIL import Image

        path, label = self.files[index]
        try:
            with Image.open(path) as opened:
                if shortest := drafted(self.transform):
                    opened.draft("RGB", (shortest, shortest))  # of JPEGs alone, and not below this size
                image = _rgb(opened)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            reason = (
                "it is missing"
                if isinstance(error, FileNotFoundError)
                else str(error).replace(str(path), Path(path).name)
            )
            raise DataError(
                f"image {path} cannot be read: {reason}", "replace it or take it out, then run again"
            ) from error
        return (self.transform(image) if self.transform else image), label


def _rgb(image: Any) -> Any:
    """Any image as 8-bit RGB; 16-bit ones are scaled, others with more than 8 bits a channel are refused."""
    if image.mode.startswith("I;16"):
        return _eight_bits(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise OSError(f"its pixels are of mode {image.mode!r}, whose range is unknown; save it with 8 or 16 bits")
    if image.mode == "RGB":  # convert() would copy it
        image.load()
        return image
    return image.convert("RGB")


def _eight_bits(image: Any) -> Any:
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))


def folder_dataset(path: Path) -> Dataset:
    """Describe the folder ``path`` as a task named after it. Lists files; opens none.

    Raises :class:`DataError` for a folder without class folders, an empty class folder, or a class that only one split has.
    """
    path = path.resolve()
    folders = {entry.name.lower(): entry for entry in path.iterdir() if entry.is_dir()}
    misnamed = set(folders) & set(NEAR_SPLITS)
    if misnamed and set(folders) & set(SPLITS):
        wrong = folders[min(misnamed)]
        raise DataError(f"{wrong} is neither a split nor a class", f"rename it to {NEAR_SPLITS[wrong.name.lower()]}")
    present = [split for split in SPLITS if split in folders]
    files: Files = {}
    if present:
        for split in present:
            files[split] = _class_files(folders[split])
    else:
        files["train"] = _class_files(path)
    return _dataset(path, files)


def csv_dataset(path: Path) -> Dataset:
    """Describe the CSV ``path`` (``path,label[,split]``) as a task named after it. Opens no image.

    Raises :class:`DataError` for missing columns, an unknown split, or files that do not exist (the first is named).
    """
    import csv

    path = path.resolve()
    files: Files = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            missing = sorted({"path", "label"} - set(reader.fieldnames))
            if missing:
                found = ", ".join(reader.fieldnames) or "nothing"
                hint = "its first line must read path,label or path,label,split"
                raise DataError(
                    f"{path} has no column {' and no column '.join(missing)}; its first line has: {found}", hint
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                image, label = (row["path"] or "").strip(), (row["label"] or "").strip()
                split = (row.get("split") or "train").strip().lower()
                if not image or not label:
                    raise DataError(f"{where}: an empty path or label", "fill it in, or remove the line")
                if split not in SPLITS:
                    raise DataError(f"{where}: split {split!r}", f"splits are {', '.join(SPLITS)}")
                files.setdefault(split, []).append((path.parent / Path(image).expanduser(), label))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8: {error.reason}", "save it as CSV in UTF-8") from error
    everything = [image for listed in files.values() for image, _ in listed]
    twice = next((image for image, count in Counter(everything).items() if count > 1), None)
    if twice:
        raise DataError(f"{path} names {twice} twice", "keep one line for each image, so that no split holds another's")
    absent = [image for image in everything if not image.is_file()]
    if absent:
        raise DataError(
            f"{path} names {len(absent)} files that do not exist, the first {absent[0]}",
            "paths are read relative to the folder of the CSV",
        )
    return _dataset(path, files)


def renamed(dataset: Dataset, classnames: Sequence[str] | None, templates: Sequence[str] | None) -> Dataset:
    """Return ``dataset`` with other class names (as many, in the same order) and prompt templates."""
    names = dataset.head_names
    if classnames is not None and len(classnames) != len(names):
        raise UsageError(
            f"{len(classnames)} class names for {len(names)} classes of {dataset.name!r}",
            f"one name a line, in this order: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}",
        )
    if classnames is not None and dataset.label_map:
        dataset = replace(dataset, head_classes=tuple(classnames))
    elif classnames is not None:
        dataset = replace(dataset, classes=tuple(classnames))
    return replace(dataset, templates=tuple(templates)) if templates else dataset


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
    labels = _ordered({label for listed in files.values() for _, label in listed})
    if len(labels) < 2:
        raise DataError(f"{path} has one class, {labels[0]!r}", "a task needs at least two")
    for split, fraction in (("test", TEST_FRACTION), ("val", VAL_FRACTION)):
        if split not in files and "train" in files:
            root = path if path.is_dir() else path.parent
            files["train"], files[split] = _hold_out(root, files["train"], fraction, split)
    first = next(split for split in SPLITS if split in files)
    labels = _ordered({label for _, label in files[first]})
    for split, listed in files.items():
        strange = {label for _, label in listed} - set(labels)
        if strange:
            raise DataError(
                f"{path}: class {min(strange)!r} is in {split} and not in {first}",
                "every class needs images in every split, or at least in train",
            )
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


def _hold_out(
    root: Path, listed: list[tuple[Path, str]], fraction: float, split: str
) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """Split off a fraction of every class, at least one image where that leaves two; return what stays and what goes."""
    from hashlib import sha256

    stays, goes = [], []
    for label in _ordered({label for _, label in listed}):
        mine = [item for item in listed if item[1] == label]
        # In the order of a hash of the path below the folder: an image that is added moves few others.
        mine.sort(key=lambda item: sha256(os.path.relpath(item[0], root).encode()).digest())
        most = max(round(len(mine) * fraction), 1) if len(mine) > 2 else 0
        goes += mine[:most]
        stays += mine[most:]
    if not goes:
        raise DataError(
            f"{root}: too few images to hold out a {split} split, which takes three or more of a class",
            f"add images, or name {split} images yourself",
        )
    return stays, goes


def _ordered(labels: Iterable[str]) -> list[str]:
    """Sort labels as numbers where all are, else as text (as class folders are by every image-folder reader)."""
    return sorted(labels, key=lambda label: (0, int(label), "") if label.isdecimal() else (1, 0, label))
