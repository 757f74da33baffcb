"""Read CSVs that name images: whatever separates their columns, and under the names that people give those."""

from __future__ import annotations

import codecs
import csv
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from wisepatch.counting import count
from wisepatch.datasets.folder_listing import Files
from wisepatch.datasets.splits import SPLIT_WORDS
from wisepatch.errors import DataError
from wisepatch.files import as_file_name

COLUMNS = {
    "path": ("path", "file_name", "filename", "file", "filepath", "file_path", "image", "image_path", "img_path",
             "img", "image_id", "id"),
    "label": ("label", "class", "class_name", "category", "target", "labels"),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "group_id"),
}  # fmt: skip
SUFFIXES = (".csv", ".tsv")
BEYOND = "fields beyond the header"  # no name of a column
SEPARATORS = ",;\t|"
URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
MOST_LOOKED_AT = 20_000  # files, for one that is called almost as a missing one
MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass
class CsvListing:
    """Hold the images that a CSV names. ``groups`` has the group of each that has one; ``repeated`` counts rows said again."""

    files: Files = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    outside: list[str] = field(default_factory=list)


def list_csv(path: Path, columns: Mapping[str, str] | None = None) -> CsvListing:
    """List the images of the CSV ``path``. Opens none of them.

    ``columns`` names the column of the ``path``, ``label``, ``split`` or ``group`` where it is none of :data:`COLUMNS`.
    Raises :class:`DataError` for a file that is no CSV, missing columns, an unknown split, an image with two labels or in two
    splits, or files that do not exist (the first is named).
    """
    listing, seen = CsvListing(), dict[str, tuple[str, str]]()
    folder, absent = str(path.parent), list[str]()
    for where, row in _rows(path, columns or {}):
        image, label = row["path"].strip(), row["label"].strip()
        word = (row.get("split") or "train").strip().lower()
        file = _file_of(folder, where, image if label else "")
        split = SPLIT_WORDS.get(word)
        if split is None:
            raise DataError(f"{where}: unknown split {word!r}", f"splits are {', '.join(SPLIT_WORDS)}")
        spelt = _as_on_disk(folder, file)
        file = spelt or file
        name = os.path.normpath(file)  # x/../x/0.png is x/0.png
        if name in seen:
            if seen[name] != (split, label):
                hint = "keep one line for each image, so that no split holds another's"
                raise DataError(f"{path} names {file} twice, with two labels or in two splits", hint)
            listing.repeated += 1
            continue
        seen[name] = (split, label)
        if not spelt:
            absent.append(file)
        if not name.startswith(folder.rstrip(os.sep) + os.sep):
            listing.outside.append(image)
        listing.files.setdefault(split, []).append((file, label))
        if group := (row.get("group") or "").strip():
            listing.groups[listing.files[split][-1][0]] = group
    if absent:
        problem = f"{path} names {count(len(absent), 'missing file')}, the first {absent[0]}"
        raise DataError(problem, _hint_at_missing(path.parent, absent[0]))
    return listing


def csv_images(path: Path, columns: Mapping[str, str] | None = None) -> list[str]:
    """Return the images that the CSV ``path`` names, each once, also those that do not exist; it needs no labels.

    ``columns`` names the column of the ``path`` where it is none of :data:`COLUMNS`. Raises :class:`DataError` for a file that is
    no CSV, a missing column, and an empty path.
    """
    folder = str(path.parent)
    files = [_file_of(folder, where, row["path"]) for where, row in _rows(path, columns or {}, ("path",))]
    return list(dict.fromkeys(_as_on_disk(folder, file) or file for file in files))


def _file_of(folder: str, where: str, image: str) -> str:
    """Return the file that a row of a CSV in ``folder`` names. Raises :class:`DataError` for an empty path and for an address."""
    image = image.strip()
    if not image:
        raise DataError(f"{where}: an empty path or label", "fill it in, or remove the line")
    if URL.match(image):
        raise DataError(f"{where}: {image} is an address", "fetch the images, and name the files")
    return os.path.join(folder, os.path.expanduser(as_file_name(image)))  # noqa: PTH111, PTH118 -- raises nothing, of a million


def csv_rows(path: Path, needed: Sequence[str] = ("path", "label")) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield the place of each row of a CSV, in words, and its values by the names of the columns in lower case."""
    for where, row in _dict_rows(path):
        if row is None:  # the header
            missing = sorted(set(needed) - set(where))
            if missing:
                raise _no_column(path, missing, where, f"its first line must begin {','.join(needed)}")
            continue
        yield str(where), row


def _rows(
    path: Path, columns: Mapping[str, str], needed: Sequence[str] = ("label", "path")
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place of each row, and its ``path``, ``label``, ``split`` and ``group``, of which some are ``needed``."""
    names: dict[str, str] = {}
    for where, row in _dict_rows(path):
        if row is None:
            names = _columns(path, list(where), columns, needed)
        else:
            yield str(where), {each: row[name] or "" for each, name in names.items()}


def _columns(path: Path, header: list[str], asked: Mapping[str, str], needed: Sequence[str]) -> dict[str, str]:
    """Return which column of ``header`` holds what."""
    names = {}
    for each, known in COLUMNS.items():
        wanted = (asked[each].strip().lower(),) if each in asked else known
        name = next((name for name in wanted if name in header), None)
        if name and header.count(name) > 1:
            problem = f"{path} has {header.count(name)} columns called {name}; its first line has: {', '.join(header)}"
            raise DataError(problem, "give each its own name")
        if name:
            names[each] = name
        elif each in asked:
            raise _no_column(path, [asked[each]], header, "column names are those of the first line")
    if missing := [each for each in needed if each not in names]:
        options = " and ".join(f"--{each}-column" for each in sorted(missing, reverse=True))
        first = ",".join(sorted(needed, reverse=True))
        raise _no_column(path, missing, header, f"its first line must begin {first}, or name columns with {options}")
    return names


def _no_column(path: Path, missing: Sequence[str], header: object, hint: str) -> DataError:
    listed = ", ".join(header) if isinstance(header, list) else ""
    problem = f"{path} has no column {' and no column '.join(missing)}"
    return DataError(f"{problem}; its first line has: {listed or 'nothing'}", hint)


def _dict_rows(path: Path) -> Iterator[tuple[list[str], None] | tuple[str, dict[str, str | None]]]:
    """Yield the header and ``None``, then the place of each row and its values by column."""
    name = str(path)
    with path.open("rb") as start:
        encoding = MARKS.get(start.read(2), "utf-8-sig")
    with path.open(newline="", encoding=encoding) as file:
        try:
            separator = _separator(path, file.readline())
            file.seek(0)
            rows = csv.DictReader(file, delimiter=separator, restkey=BEYOND)
            rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
            yield list(rows.fieldnames), None
            for row in rows:
                where = f"{name}, line {rows.line_num}"
                if any(row.pop(BEYOND, ())):
                    hint = "put quotation marks around a text with a comma in it, or name all columns"
                    raise DataError(f"{where}: more fields than the first line has columns", hint)
                yield where, row
        except UnicodeError as error:
            reason = error.reason if isinstance(error, UnicodeDecodeError) else error
            raise DataError(f"{path} is not a text file in UTF-8: {reason}", "save it as CSV in UTF-8") from error
        except csv.Error as error:
            hint = "a quotation mark that is not closed makes one field of many lines"
            raise DataError(f"{path}, line {rows.reader.line_num}: {error}", hint) from error


def _separator(path: Path, header: str) -> str:
    """Return what separates columns: the sign of :data:`SEPARATORS` that the first line has most often."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(SEPARATORS, key=header.count)


def _as_on_disk(folder: str, file: str) -> str | None:
    """Return a file as the disk spells it: programs write an accent as one sign or two. ``None`` where there is none."""
    if os.path.isfile(file):  # noqa: PTH113 -- no OSError for a name too long
        return file
    spelt = (folder + unicodedata.normalize(form, file.removeprefix(folder)) for form in ("NFC", "NFD"))
    return next(filter(os.path.isfile, spelt), None)


def _hint_at_missing(folder: Path, file: str) -> str:
    """Return how to name a file that is missing, where one below ``folder`` is called almost so."""
    if os.path.isdir(file):  # noqa: PTH112 -- no OSError for a name too long
        return "it is a folder: name each image in it"
    wanted = f"/{_alike(os.path.relpath(file, folder))}"
    below = [found.relative_to(folder) for found in islice(folder.rglob("*"), MOST_LOOKED_AT)]
    near = [each for each in below if f"/{_alike(str(each))}".endswith((wanted, wanted + each.suffix.lower()))]
    if near:
        return f"names are taken letter by letter, with folder and suffix: {min(near)} is there"
    return "paths are read relative to the folder of the CSV"


def _alike(name: str) -> str:
    """Return one form for names that people take for the same: in any case, with either slash."""
    return name.replace("\\", "/").casefold()
