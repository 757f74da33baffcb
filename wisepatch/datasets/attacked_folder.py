"""Folders of attacked images in the published convention, ``label=dog_text=cat.png``: names of files, and tasks from them.

The authors of PAINT name their photos so. wisepatch writes the same names, made unique and reversible (what would be read
wrongly, or cannot stand in a file name, is written as ``%`` and two hexadecimal digits), and an ``index.csv`` that carries the
truth; folders without one are read by the names of their files.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from wisepatch.datasets.base import Annotations, Dataset
from wisepatch.datasets.folder import SUFFIXES, FileSamples
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wisepatch.datasets.base import Samples, Transform

INDEX = "index.csv"
UNFINISHED = ".unfinished"  # in a folder that is being written
COLUMNS = ("path", "label", "text", "image", "task", "split", "seed")
NEEDED = COLUMNS[:3]  # of an index that was not written by wisepatch
SPECIAL = re.compile(r'[%/\\=:*?"<>|\x00-\x1f\x7f]')
MOST_BYTES = 90  # of a label or text in a file name; 255 is what file systems take in all
NAME = re.compile(r"label=(?P<label>.+)_text=(?P<text>.+?)(?:_id=\d+)?", re.DOTALL)
SHOWN = 3  # files that a message names

Attacked = tuple[Path, str, str]  # image, label, text


def file_name(label: str, text: str, number: int, taken: set[str]) -> str:
    """The name of image ``number``: ``label=..._text=....png``, with ``_id=`` and the number where that is taken."""
    stem = f"label={_escaped(label)}_text={_escaped(text)}"
    if _same(stem) in taken:
        stem += f"_id={number}"
    taken.add(_same(stem))
    return f"{stem}.png"


def _same(stem: str) -> str:
    """What two names have in common that some file systems do not tell apart, by case or by how accents are written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())


def _escaped(name: str) -> str:
    escaped = SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", name)
    if len(escaped.encode()) <= MOST_BYTES:
        return escaped
    return re.sub(r"%.?$", "", escaped.encode()[:MOST_BYTES].decode(errors="ignore"))  # no half of an escape


def parse_name(stem: str) -> tuple[str, str] | None:
    """Label and text of a file name without suffix; ``None`` where it does not follow the convention."""
    found = NAME.fullmatch(stem)
    return (unquote(found["label"]), unquote(found["text"])) if found else None


def is_attacked_folder(folder: Path) -> bool:
    """Whether a folder looks like one of attacked images: an index with the right columns, or an image ``label=...``."""
    if (folder / INDEX).is_file():
        with (folder / INDEX).open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            if set(NEEDED) <= set(lines.readline().strip().replace('"', "").split(",")):
                return True
    return any(path.name.startswith("label=") for path in _images(folder))


def _images(folder: Path) -> list[Path]:
    """The images in a folder, in order; files that begin with a dot are those of a system."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file())


def attacked_folder(folder: Path, classnames: Sequence[str] | None = None) -> Dataset:
    """Describe a folder of attacked images as a task; its classes are the union of labels and texts, or ``classnames``.

    Raises :class:`DataError` for a folder without images or one that ``make`` has not finished, images whose names
    do not follow the convention or follow it in two ways, an index that does not fit, and :class:`UsageError` for class names
    without one of the labels.
    """
    folder = folder.resolve()
    if (folder / UNFINISHED).exists():
        raise DataError(f"{folder} was not written to its end", "run wisepatch typo-attack make again")
    images = _indexed(folder) if (folder / INDEX).is_file() else _named(folder)
    classes = _classes(folder, images, classnames)
    place = {_plain(name): index for index, name in enumerate(classes)}
    return Dataset(
        name=folder.name,
        classes=classes,
        open=partial(
            _open, tuple((str(p), place[_plain(label)], place.get(_plain(text), -1)) for p, label, text in images)
        ),
        templates=TEMPLATES["simple"],
        splits=("test",),
        extra_metrics=("attack_success", "neither"),
        family="attacked",
        source=str(folder),
    )


def _open(files: Sequence[tuple[str, int, int]], split: str, root: Path, transform: Transform | None = None) -> Samples:
    written = tuple(text for _, _, text in files)
    return FileSamples(tuple((path, label) for path, label, _ in files), transform, Annotations(written=written))


def _named(folder: Path) -> list[Attacked]:
    paths = _images(folder)
    if not paths:
        raise DataError(f"{folder} holds no images", "name a folder of images called label=dog_text=cat.png")
    strange = [path.name for path in paths if parse_name(path.stem) is None]
    if strange:
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
    found = {path: parse_name(path.stem) or ("", "") for path in paths}
    return [(path, label.replace("_", " "), text.replace("_", " ")) for path, (label, text) in found.items()]


def _indexed(folder: Path) -> list[Attacked]:
    index = folder / INDEX
    try:
        with index.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            absent = set(NEEDED) - set(reader.fieldnames or ())
            if absent:
                raise DataError(
                    f"{index} has no column {' and no column '.join(sorted(absent))}",
                    "its first line must begin path,label,text",
                )
            rows = []
            for row in reader:
                if not all((row[column] or "").strip() for column in NEEDED):
                    raise DataError(
                        f"{index}, line {reader.line_num}: an empty path, label or text",
                        "fill it in, or remove the line",
                    )
                rows.append((folder / row["path"], row["label"], row["text"]))
    except csv.Error as error:
        raise DataError(f"{index} cannot be read: {error}", "save it as CSV in UTF-8") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{index} is not a text file in UTF-8: {error.reason}", "save it as CSV in UTF-8") from error
    if not rows:
        raise DataError(f"{index} names no images", "make the folder again")
    missing = [path.name for path, _, _ in rows if not path.is_file()]
    if missing:
        raise DataError(
            f"{index} names {len(missing)} images that do not exist: {_listed(missing)}", "make the folder again"
        )
    return rows


def _classes(folder: Path, images: Sequence[Attacked], classnames: Sequence[str] | None) -> tuple[str, ...]:
    labels = [label for _, label, _ in images]
    if classnames is None:
        names = {_plain(name): name for _, label, text in images for name in (text, label)}
        return tuple(sorted(names.values(), key=str.casefold))
    known = {_plain(name) for name in classnames}
    absent = sorted({label for label in labels if _plain(label) not in known})
    if absent:
        raise UsageError(
            f"{len(absent)} labels of {folder} are not among the class names: {_listed(absent)}",
            "add them to the file of class names",
        )
    return tuple(classnames)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
