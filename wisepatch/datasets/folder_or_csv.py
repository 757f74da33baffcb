"""Make tasks of folders of images and of CSVs that name images: a :class:`Dataset` without a line of code.

A folder holds ``train/``, ``val/`` and ``test/`` with one folder a class in each, or the class folders alone. A CSV has the
columns ``path,label`` and perhaps ``split`` and ``group``; paths are relative to the CSV. Where no test split is given, a fifth
of the images is held out, and where no validation split is given, a tenth of the rest: each by its own name (or group) alone.
"""

from __future__ import annotations

import logging
import os
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.csv_listing import list_csv
from wisepatch.datasets.folder_listing import Files, list_folder
from wisepatch.datasets.images import COMMON_SUFFIXES, check_header, read_rgb
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.reading import Reading
from wisepatch.datasets.samples import Annotations, Split, Transform, own_files
from wisepatch.datasets.splits import (
    CUT,
    FIRST_CUT,
    SECOND_CUT,
    SPLITS,
    TEST_SHARE,
    VAL_SHARE,
    draws,
    first_cut,
    is_number,
    ordered_labels,
    split_of,
)
from wisepatch.errors import DataError, EmptySplitError
from wisepatch.files import in_utf8
from wisepatch.progress import harmless

AS_IT_IS = Reading()
DECODERS = 4  # threads; Pillow decodes outside Python's lock
MOST_DECODED_BYTES = 200 << 20  # before a training, which takes some seconds
FIRST_NAMES = 3  # that a note gives
REPLACE_IT = "replace it or take it out, then run again"
SKIP_IT = "; --on-bad-image skip leaves out what cannot be read"


@dataclass(frozen=True)
class FileSamples:
    """Read image files, or the boxes in them (left, upper, right, lower, in pixels), as RGB when they are asked for.

    A user's own images are read ``as_seen``: turned upright, transparent parts white. Published ones stay as they are stored.
    """

    files: Sequence[tuple[Path | str, int]]
    transform: Transform | None = None
    annotations: Annotations | None = None
    boxes: Sequence[tuple[int, int, int, int]] | None = None
    as_seen: bool = False
    managed: bool = False  # colours converted to sRGB

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> list[int]:
        """Return the labels of all files."""
        return [label for _, label in self.files]

    def images(self) -> tuple[object, ...]:
        """Return a value that tells these images, transformed, from others, whatever their labels."""
        return (id(self.transform), self.as_seen, self.managed, *self.image_ids())

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
        text = str([(name, label, stat.st_size, stat.st_mtime_ns) for name, label, stat in rows])
        return f"{'as seen, ' * self.as_seen}{'managed, ' * self.managed}{text}"

    def own_files(self) -> list[str]:
        """Return the paths of all files, where they are a user's own."""
        return [str(path) for path, _ in self.files] if self.as_seen else []

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image and its label; a file that is no image is a :class:`DataError` that names it."""
        path, label = self.files[index]
        try:
            image = read_rgb(path, as_seen=self.as_seen, managed=self.managed)
            image = image if self.boxes is None else image.crop(self.boxes[index])
        except ValueError as error:
            hint = REPLACE_IT + (SKIP_IT if self.as_seen else "")
            raise DataError(f"image {path} cannot be read: {error}", hint) from error
        try:
            return (self.transform(image) if self.transform else image), label
        except ValueError as error:
            raise DataError(f"image {path} cannot be read: {error}", REPLACE_IT) from error


def folder_dataset(path: Path, cut: int = CUT, reading: Reading = AS_IT_IS) -> Dataset:
    """Describe the folder ``path`` as a task named after it. Lists files; opens only those whose suffix says nothing.

    Raises :class:`DataError` for a folder without class folders, an empty class folder, two classes of one name, or a class that
    only one split has.
    """
    path = path.resolve()
    listing = list_folder(path)
    notes = []
    if listing.root != path:
        notes.append(f"{in_utf8(path.name)}: the classes are taken from {listing.root}")
    if listing.outside:
        notes.append(
            f"{in_utf8(path.name)}: {listing.outside} links lead to places outside of {path}; they are followed"
        )
    return _dataset(path, listing.root, listing.files, cut, notes, {}, listing.left_out, reading)


def csv_dataset(path: Path, cut: int = CUT, reading: Reading = AS_IT_IS) -> Dataset:
    """Describe the CSV ``path`` (``path,label[,split][,group]``) as a task named after it. Opens no image.

    Raises :class:`DataError` as :func:`~wisepatch.datasets.csv_listing.list_csv` does, and for classes as of a folder.
    """
    path = path.resolve()
    listing = list_csv(path, reading.columns)
    notes = []
    if listing.repeated:
        notes.append(f"{in_utf8(path.name)}: {count(listing.repeated, 'repeated row')}, taken once")
    if listing.outside:
        of_outside = f"{in_utf8(path.name)}: {count(len(listing.outside), 'image')} outside of {path.parent}"
        notes.append(f"{of_outside}: {shortened(listing.outside)}")
    return _dataset(path, path.parent, listing.files, cut, notes, listing.groups, {}, reading)


def cut_again(dataset: Dataset, cut: int) -> Dataset:
    """Return the task of a folder or CSV as an earlier version of wisepatch cut it, and ordered its classes."""
    path = Path(dataset.source)
    reading = dataset.open.keywords["reading"] if isinstance(dataset.open, partial) else AS_IT_IS
    return csv_dataset(path, cut, reading) if path.is_file() else folder_dataset(path, cut, reading)


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
        raise DataError(problem, "a task needs at least two classes")
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
            notes += [f"{in_utf8(path.name)}: {line}" for line in filled]
        notes += [note for split in SPLITS if (note := _without(path, split, files[split], every))]
    if groups or reading.group:
        notes += [f"{in_utf8(path.name)}: {line}" for line in _of_groups(files, group_of, reading.group)]
    index = {label: i for i, label in enumerate(every)}
    numbered = {
        split: tuple((image, index[label]) for image, label in files[split]) for split in SPLITS if split in files
    }
    return Dataset(
        name=in_utf8(path.stem if path.is_file() else path.name),
        classes=tuple(label.replace("_", " ") for label in every),
        open=partial(_open, path=str(path), files=numbered, reading=reading),
        templates=TEMPLATES["simple"],
        splits=tuple(numbered),
        family="folder",
        source=str(path),
        labels=tuple(every),
        notes=tuple(notes),
        left_out={reason: tuple(listed) for reason, listed in left_out.items()},
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


def _without(path: Path, split: str, listed: Sequence[tuple[str, str]], every: Sequence[str]) -> str:
    """Return a note of the classes that a split has no images of, or nothing."""
    have = {label for _, label in listed}
    absent = [label for label in every if label not in have]
    if not absent:
        return ""
    return f"{in_utf8(path.name)}: no images of {len(absent)} of {len(every)} classes in {split}: {shortened(absent)}"


def shortened(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    first = ", ".join(map(printable, names[:FIRST_NAMES]))
    return first + (f", and {len(names) - FIRST_NAMES} more" if len(names) > FIRST_NAMES else "")


def printable(name: str) -> str:
    """Return a name, quoted where a terminal cannot show it."""
    return name if name.isprintable() else ascii(name)


def to_tell(dataset: Dataset) -> list[str]:
    """Return what a user should know of a task: its notes, how much was left out of it, and class names that are numbers."""
    told = list(dataset.notes)
    if dataset.left_out:
        reasons = "; ".join(f"{len(names)}: {reason}" for reason, names in dataset.left_out.items())
        check = f"`wisepatch datasets check {shlex.quote(dataset.source)}` names them"
        told.append(f"{dataset.name}: {sum(map(len, dataset.left_out.values()))} left out ({reasons}); {check}")
    if dataset.labels and all(map(is_number, dataset.classes)):
        prompt = f'"a photo of a {dataset.classes[0]}."'
        names = f"give their names in a file with --classnames, in this order: {shortened(dataset.classes)}"
        told.append(f"{dataset.name}: the classes are numbers, and a model is asked for {prompt}; {names}")
    return told


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


def unreadable(split: Split) -> list[str]:
    """Return the files of a user's own that are broken or no images, with the reason.

    All are decoded where they are at most :data:`MOST_DECODED_BYTES` together, of more the header alone is read.
    """
    files = own_files(split)
    whole = sum(Path(file).stat().st_size for file in files if Path(file).exists()) <= MOST_DECODED_BYTES
    with ThreadPoolExecutor(DECODERS) as pool:
        problems = list(pool.map(_problem if whole else _problem_of_header, files))
    return [f"{file} ({problem})" for file, problem in zip(files, problems, strict=True) if problem]


def check_readable(split: Split) -> None:
    """Raise :class:`DataError` that names the images of a user's own that :func:`unreadable` finds in a split."""
    if bad := unreadable(split):
        number = count(len(bad), "image")
        raise DataError(f"{split.task} ({split.name}): {number} cannot be read: {shortened(bad)}", REPLACE_IT + SKIP_IT)


def _open(
    split: str,
    root: Path,
    transform: Transform | None = None,
    *,
    path: str,
    files: Mapping[str, Sequence[tuple[str, int]]],
    reading: Reading,
) -> FileSamples:
    if not files[split]:
        number = sum(map(len, files.values()))
        problem = f"{path}: too few images to hold out a {split} split: of {number}, none falls into it by its name"
        otherwise = (
            "choose alpha on test data with --select-on test" if split == "val" else "evaluate all with --split all"
        )
        raise EmptySplitError(problem, f"add images, put some into a folder {split}, or {otherwise}")
    listed = _without_bad(path, split, files[split]) if reading.bad else files[split]
    return FileSamples(listed, transform, as_seen=True, managed=bool(reading.colours))


def _without_bad(path: str, split: str, listed: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the images that can be decoded, and warn of the number and the names of the others."""
    with ThreadPoolExecutor(DECODERS) as pool:
        problems = list(pool.map(_problem, [file for file, _ in listed]))
    bad = [file for (file, _), problem in zip(listed, problems, strict=True) if problem]
    if bad:
        tell_once(
            f"{path} ({split}): {len(bad)} of {len(listed)} images cannot be read and are skipped: {', '.join(map(printable, bad))}"
        )
    return [each for each, problem in zip(listed, problems, strict=True) if not problem]


@cache
def _problem(file: str) -> str:
    return _reason(partial(read_rgb, file, as_seen=True))


def _problem_of_header(file: str) -> str:
    return _reason(partial(check_header, file))


def _reason(read: Callable[[], object]) -> str:
    try:
        read()
    except ValueError as error:
        return str(error) or type(error).__name__
    return ""


@cache
def tell_once(note: str) -> None:
    """Warn of something, once in this process."""
    logging.getLogger(__name__).warning("note: %s", harmless(note))
