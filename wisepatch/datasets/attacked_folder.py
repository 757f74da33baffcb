"""Folders of attacked images in the published convention, ``label=dog_text=cat.png``: names of files, and tasks from them.

The authors of PAINT name their photos so. wisepatch writes the same names, made unique and reversible (signs that would be read
wrongly, or cannot stand in a file name, become ``%`` and two hexadecimal digits), and an ``index.csv`` with the label and the text
of each image. In these names ``_`` stands for a space: ``hot_dog`` and ``hot dog`` are one class, also in an index.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.csv_listing import csv_rows
from wisepatch.datasets.decoding import SUFFIXES
from wisepatch.datasets.image_files import FileSamples, readable
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.reading import AS_IT_IS, Reading
from wisepatch.datasets.samples import Annotations, Samples, Transform
from wisepatch.datasets.typography import ATTACK_METRICS, plain
from wisepatch.errors import DataError, UsageError
from wisepatch.files import in_utf8

Attacked = tuple[Path, str, str]  # image, label, text

INDEX = "index.csv"
UNFINISHED = ".unfinished"  # in a folder that is being written
COLUMNS = ("path", "label", "text", "image", "task", "split", "seed")
NEEDED_COLUMNS = COLUMNS[:3]  # of an index that was not written by wisepatch
ESCAPED_SIGNS = re.compile(r'[%/\\=:*?"<>|\x00-\x1f\x7f]')
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")  # begin what a spreadsheet computes, or takes for the mark of a text
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


def as_text(name: str) -> str:
    """Return a name as it stands in an index: one that a spreadsheet would compute (``=1+1``) begins with an apostrophe."""
    return f"'{name}" if name.startswith(FORMULAS) else name


def _from_text(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULAS) else cell


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


def attacked_folder(folder: Path, classnames: Sequence[str] | None = None, reading: Reading = AS_IT_IS) -> Dataset:
    """Describe a folder of attacked images as a task; its classes are the union of labels and texts, or ``classnames``.

    Names that differ in case, spaces or ``_`` alone are one class. Raises :class:`DataError` for a folder without images or one
    that ``make`` has not finished, images whose names do not follow the convention or follow it in two ways, an index that does
    not fit (with its line), and :class:`UsageError` for class names without one of the labels.
    """
    folder = folder.resolve()
    if (folder / UNFINISHED).exists():
        raise DataError(f"{folder} was not written to its end", "run wisepatch typo-attack make again")
    images = list(_read_index(folder / INDEX) if (folder / INDEX).is_file() else _read_names(folder))
    if classnames is None:
        names = {_spaced(name): name for _, label, text in images for name in (text, label)}
        classnames = sorted(names.values(), key=str.casefold)
    class_of = {_spaced(name): index for index, name in enumerate(classnames)}
    if absent := sorted({label for _, label, _ in images if _spaced(label) not in class_of}):
        problem = f"{len(absent)} labels of {folder} are not among the class names: {_listed(absent)}"
        raise UsageError(problem, "add them to the file of class names")
    files = tuple((path, class_of[_spaced(label)]) for path, label, _ in images)
    written = tuple(class_of.get(_spaced(text), -1) for _, _, text in images)
    return Dataset(
        name=in_utf8(folder.name),
        classes=tuple(classnames),
        open=partial(_open, files=files, written=written, reading=reading),
        templates=TEMPLATES["simple"],
        splits=("test",),
        extra_metrics=ATTACK_METRICS,
        family="attacked",
        source=str(folder),
    )


def _open(
    split: str,
    root: Path,
    transform: Transform | None = None,
    *,
    files: Sequence[tuple[Path, int]],
    written: Sequence[int],
    reading: Reading,
) -> Samples:
    if reading.bad:
        kept = readable(f"{files[0][0].parent}", [path for path, _ in files])
        files, written = [files[place] for place in kept], [written[place] for place in kept]
    return FileSamples(files, transform, Annotations(written=written), as_seen=True, managed=bool(reading.colours))


def _read_names(folder: Path) -> Iterator[Attacked]:
    names = {path: parse_name(path.stem) for path in _images(folder)}
    if not names:
        raise DataError(f"{folder} holds no images", "name a folder of images called label=dog_text=cat.png")
    if strange := [path.name for path, name in names.items() if name is None]:
        problem = (
            f"{len(strange)} of {len(names)} images in {folder} are not called label=..._text=...: {_listed(strange)}"
        )
        raise DataError(problem, f"rename or remove them, or add an {INDEX} with path,label,text")
    if double := [path.name for path in names if path.stem.count("_text=") > 1 or path.stem.count("label=") > 1]:
        problem = f"in {folder} {count(len(double), 'name')} can be read in two ways: {_listed(double)}"
        raise DataError(problem, f"write %3D for the = within a name, or add an {INDEX} with path,label,text")
    for path, name in names.items():
        label, text = name or ("", "")
        yield path, label.replace("_", " "), text.replace("_", " ")


def _read_index(index: Path) -> list[Attacked]:
    images = []
    for where, row in csv_rows(index, NEEDED_COLUMNS):
        path, label, text = (_from_text(row[column] or "") for column in NEEDED_COLUMNS)
        if not (path.strip() and label.strip() and text.strip()):
            raise DataError(f"{where}: an empty path, label or text", "fill it in, or remove the line")
        if "\0" in path + label + text:
            raise DataError(f"{where}: a NUL character", "save it as CSV in UTF-8")
        images.append((index.parent / path, label, text))
    if not images:
        raise DataError(f"{index} names no images", "make the folder again")
    if missing := [path.name for path, _, _ in images if not os.path.isfile(path)]:  # noqa: PTH113 -- no OSError for a name too long
        problem = f"{index} names {count(len(missing), 'missing image')}: {_listed(missing)}"
        raise DataError(problem, "make the folder again")
    return images


def _spaced(name: str) -> str:
    return plain(name.replace("_", " "))


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
