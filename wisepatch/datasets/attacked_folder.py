"""Folders of attacked images in the published convention, ``label=dog_text=cat.png``: names of files, and tasks from them.

The authors of PAINT name their photos so. wisepatch writes the same names, made unique and reversible (signs that would be read
wrongly, or cannot stand in a file name, become ``%`` and two hexadecimal digits), and an ``index.csv`` with the label and the text
of each image; folders without one are read by the names of their files. In these names ``_`` stands for a space, so the labels
``hot_dog`` and ``hot dog`` are one class, also in an index: a folder made from names is the same task as one with an index.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from wisepatch.datasets.base import Annotations, Dataset, Samples, Transform
from wisepatch.datasets.folder import SUFFIXES, FileSamples
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.typography import ATTACK_METRICS, plain
from wisepatch.errors import DataError, UsageError

Attacked = tuple[Path, str, str]  # image, label, text

INDEX = "index.csv"
UNFINISHED = ".unfinished"  # in a folder that is being written
COLUMNS = ("path", "label", "text", "image", "task", "split", "seed")
NEEDED_COLUMNS = COLUMNS[:3]  # of an index that was not written by wisepatch
ESCAPED_SIGNS = re.compile(r'[%/\\=:*?"<>|\x00-\x1f\x7f]')
MAX_NAME_BYTES = 90  # of a label or text in a file name; 255 is what file systems take in all
FILE_NAME = re.compile(r"label=(?P<label>.+)_text=(?P<text>.+?)(?:_id=\d+)?", re.DOTALL)
MAX_LISTED = 3  # files that a message names


def file_name(label: str, text: str, number: int, taken: set[str]) -> str:
    """Name image ``number``: ``label=..._text=....png``, with ``_id=`` and the number where that is in ``taken``; adds to it."""
    stem = f"label={_escaped(label)}_text={_escaped(text)}"
    if _same(stem) in taken:
        stem += f"_id={number}"
    taken.add(_same(stem))
    return f"{stem}.png"


def _same(stem: str) -> str:
    """Return one form for names that some file systems do not tell apart, by case or by how accents are written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())


def _escaped(name: str) -> str:
    escaped = ESCAPED_SIGNS.sub(lambda sign: f"%{ord(sign[0]):02X}", name)
    if len(escaped.encode()) <= MAX_NAME_BYTES:
        return escaped
    return re.sub(r"%.?$", "", escaped.encode()[:MAX_NAME_BYTES].decode(errors="ignore"))  # no half of an escape


def parse_name(stem: str) -> tuple[str, str] | None:
    """Read label and text from a file name without suffix; ``None`` where it does not follow the convention."""
    match = FILE_NAME.fullmatch(stem)
    return (unquote(match["label"]), unquote(match["text"])) if match else None


def is_attacked_folder(folder: Path) -> bool:
    """Tell whether a folder looks like one of attacked images: an index with the right columns, or an image ``label=...``."""
    if (folder / INDEX).is_file():
        with (folder / INDEX).open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            if set(NEEDED_COLUMNS) <= set(lines.readline().strip().replace('"', "").split(",")):
                return True
    return any(path.name.startswith("label=") for path in _images(folder))


def _images(folder: Path) -> list[Path]:
    """List the images in a folder, in order; files that begin with a dot are those of a system."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file())


def attacked_folder(folder: Path, classnames: Sequence[str] | None = None) -> Dataset:
    """Describe a folder of attacked images as a task; its classes are the union of labels and texts, or ``classnames``.

    Names that differ in case, spaces or ``_`` alone are one class.

    Raises :class:`DataError` for a folder without images or one that ``make`` has not finished, images whose names
    do not follow the convention or follow it in two ways, an index that does not fit (with its line), and :class:`UsageError`
    for class names without one of the labels.
    """
    folder = folder.resolve()
    if (folder / UNFINISHED).exists():
        raise DataError(f"{folder} was not written to its end", "run wisepatch typo-attack make again")
    images = _read_index(folder) if (folder / INDEX).is_file() else _read_names(folder)
    classes = _classes(folder, images, classnames)
    class_of = {_spaced(name): index for index, name in enumerate(classes)}
    files = tuple((str(path), class_of[_spaced(label)]) for path, label, _ in images)
    written = tuple(class_of.get(_spaced(text), -1) for _, _, text in images)
    return Dataset(
        name=folder.name,
        classes=classes,
        open=partial(_open, files, written),
        templates=TEMPLATES["simple"],
        splits=("test",),
        extra_metrics=ATTACK_METRICS,
        family="attacked",
        source=str(folder),
    )


def _open(
    files: Sequence[tuple[str, int]], written: Sequence[int], split: str, root: Path, transform: Transform | None = None
) -> Samples:
    return FileSamples(files, transform, Annotations(written=written))


def _read_names(folder: Path) -> list[Attacked]:
    paths = _images(folder)
    if not paths:
        raise DataError(f"{folder} holds no images", "name a folder of images called label=dog_text=cat.png")
    names = [(path, parse_name(path.stem)) for path in paths]
    images = [(path, name[0].replace("_", " "), name[1].replace("_", " ")) for path, name in names if name]
    if len(images) < len(paths):
        strange = [path.name for path, name in names if name is None]
        raise DataError(
            f"{len(strange)} of {len(paths)} images in {folder} are not called label=..._text=...: {_listed(strange)}",
            f"rename or remove them, or add an {INDEX} with path,label,text",
        )
    double = [path.name for path in paths if path.stem.count("_text=") > 1 or path.stem.count("label=") > 1]
    if double:
        raise DataError(
            f"the names of {len(double)} images in {folder} can be read in two ways: {_listed(double)}",
            f"write %3D for the = within a name, or add an {INDEX} with path,label,text",
        )
    return images


def _read_index(folder: Path) -> list[Attacked]:
    index = folder / INDEX
    images = []
    try:
        with index.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            absent = set(NEEDED_COLUMNS) - set(reader.fieldnames or ())
            if absent:
                raise DataError(
                    f"{index} has no column {' and no column '.join(sorted(absent))}",
                    "its first line must begin path,label,text",
                )
            for row in reader:
                path, label, text = (row[column] or "" for column in NEEDED_COLUMNS)
                line = f"{index}, line {reader.line_num}"
                if not (path.strip() and label.strip() and text.strip()):
                    raise DataError(f"{line}: an empty path, label or text", "fill it in, or remove the line")
                if "\0" in path + label + text:
                    raise DataError(f"{line}: a NUL character", "save it as CSV in UTF-8")
                images.append((folder / path, label, text))
    except csv.Error as error:
        raise DataError(
            f"{index}, line {reader.reader.line_num}, cannot be read: {error}", "save it as CSV in UTF-8"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{index} is not a text file in UTF-8: {error.reason}", "save it as CSV in UTF-8") from error
    if not images:
        raise DataError(f"{index} names no images", "make the folder again")
    # Not Path.is_file, which raises an error for a name that is too long.
    missing = [path.name for path, _, _ in images if not os.path.isfile(path)]  # noqa: PTH113
    if missing:
        raise DataError(
            f"{index} names {len(missing)} images that do not exist: {_listed(missing)}", "make the folder again"
        )
    return images


def _classes(folder: Path, images: Sequence[Attacked], classnames: Sequence[str] | None) -> tuple[str, ...]:
    if classnames is None:
        names = {_spaced(name): name for _, label, text in images for name in (text, label)}
        return tuple(sorted(names.values(), key=str.casefold))
    known = {_spaced(name) for name in classnames}
    absent = sorted({label for _, label, _ in images if _spaced(label) not in known})
    if absent:
        raise UsageError(
            f"{len(absent)} labels of {folder} are not among the class names: {_listed(absent)}",
            "add them to the file of class names",
        )
    return tuple(classnames)


def _spaced(name: str) -> str:
    return plain(name.replace("_", " "))


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
