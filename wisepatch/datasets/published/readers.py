"""Read and describe published datasets: folders of images, publishers' lists, torchvision's readers, downloads.

The errors of readers say what is wrong with the files; :func:`explained` adds the task's name and the next step.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.archives import Archive, BrokenArchiveError, unpack_all, waiting
from wisepatch.datasets.published.class_folders import read_folders
from wisepatch.datasets.samples import Annotations, Samples, Transform
from wisepatch.errors import DataError, MissingDataError

UNASKED_GIGABYTES = 3  # what is larger is downloaded by `wisepatch datasets download` alone
ASKED: ContextVar[bool | None] = ContextVar("ASKED", default=None)  # None: small sets by the way; False: nothing


def published(
    name: str,
    classes: Sequence[str],
    open: Callable[..., Samples],  # noqa: A002
    archives: Sequence[Archive] = (),
    **fields: Any,
) -> Dataset:
    """Describe a published dataset; prompts, family and zero-shot accuracies go by its name where ``fields`` has no others.

    Its ``archives`` are unpacked where they lie below the data folder.
    """
    accuracies = names("zero-shot, as open_clip publishes it").get(name, {})  # its docs/openclip_results.csv
    by_name = {"templates": TEMPLATES.get(name, ()), "family": name, "zeroshot": accuracies}
    return explained(Dataset(name, tuple(classes), open, **by_name | fields), archives)


def explained(dataset: Dataset, archives: Sequence[Archive] = ()) -> Dataset:
    """Add the name of the dataset, and where its files are to be had and to be put, to the errors of its reader."""
    return replace(dataset, open=Published(dataset, tuple(archives)))


@dataclass(frozen=True)
class Published:
    """Open a split of a published dataset: unpack what lies there, and say what is missing, where it is to be had and to be put."""

    dataset: Dataset
    archives: tuple[Archive, ...]

    def __call__(self, split: str, root: Path, transform: Transform | None = None) -> Samples:
        """Return the images of a split. Raises :class:`MissingDataError`, and :class:`DataError` for what is broken."""
        dataset = self.dataset
        try:
            if self.archives and dataset.find(root) is None:
                try:
                    unpack_all(self.archives, split, root, dataset.name)
                except BrokenArchiveError:
                    if not (dataset.downloads and _may_fetch(dataset.gigabytes or 0)):  # which would bring it anew
                        raise
            samples: Samples = dataset.open(split, root, transform)
            return samples
        except MissingDataError as error:
            raise self._missing(root, error) from error
        except DataError as error:
            again = (
                f"`wisepatch datasets download {dataset.name}` fetches it"
                if isinstance(error, BrokenArchiveError)
                else ""
            )
            hint = error.hint or (again if dataset.downloads else "") or f"fetch it again from {dataset.source}"
            raise DataError(f"{dataset.name}: {error.message}", hint) from error

    def is_packed(self, root: Path) -> bool:
        """Tell whether archives lie below ``root`` that are still to be unpacked."""
        return any(waiting(self.archives, root, self.dataset.name))

    def _missing(self, root: Path, error: MissingDataError) -> MissingDataError:
        dataset = self.dataset
        complete = missing(dataset.name, root, dataset.layouts[:3], dataset.source, error.message)
        hint = error.hint or complete.hint
        if dataset.downloads and error.__cause__ is None:  # a download that failed is not advised again
            hint = f"`wisepatch datasets download {dataset.name}` fetches it ({dataset.gigabytes:g} GB), or {hint}"
        packed = " or ".join(archive.name for archive in self.archives)
        return MissingDataError(complete.message, f"{hint}; {packed} may lie there packed" if packed else hint)


def missing(task: str, root: Path, layouts: Sequence[str], source: str, reason: str = "") -> MissingDataError:
    """Make the error for data that is not there, or not whole: what is missing, where to get it, and where it goes."""
    return MissingDataError(
        f"{task} is not below {root}{f': {reason}' if reason else ''}",
        f"fetch it from {source} and put it below {root} as {' or as '.join(layouts)}",
    )


def gone(task: str, hub: str, copies: str, root: Path, layouts: Sequence[str]) -> str:
    """Make the hint for data whose publisher's address is dead: the copy on the Hugging Face Hub, and where others go."""
    return (
        f"its publisher's address is gone. A copy is `--task hf:{hub} --template {task}` (plugins/wisepatch-huggingface);"
        f" others, such as {copies}, go below {root} as {' or as '.join(layouts)}"
    )


def first_folder(root: Path, folders: Sequence[str], reason: str = "") -> Path:
    """Return the first of ``folders`` that is below ``root``. Raises :class:`MissingDataError` where none is."""
    for folder in folders:
        if (root / folder).is_dir():
            return root / folder
    raise MissingDataError(reason)


def open_folders(
    task: str, folder: Path, folders: Sequence[str], transform: Transform | None, *, hint: str = ""
) -> FileSamples:
    """Open class folders as :func:`read_folders` does, with errors that name ``task`` and end in ``hint``."""
    try:
        return read_folders(folder, folders, transform)
    except DataError as error:
        raise type(error)(f"{task}: {error.message}", hint or error.hint) from error


def open_listed(
    files: Sequence[tuple[Path | str, int]], transform: Transform | None, annotations: Annotations | None = None
) -> FileSamples:
    """Open the images that a publisher's list names, in its order. Raises :class:`DataError` that names the first missing one."""
    check_present([path for path, _ in files])
    return FileSamples(files, transform, annotations)


def check_present(paths: Sequence[Path | str], hint: str = "", noun: str = "images") -> None:
    """Raise :class:`DataError` with the number of files that are missing, and the first of them."""
    absent = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113 -- a hundred thousand
    if absent:
        raise DataError(f"{len(absent)} of {len(paths)} {noun} are missing, the first is {absent[0]}", hint)


def open_list_file(
    listed: Path,
    images: Path,
    folders: Sequence[str],
    transform: Transform | None,
    place: Callable[[str], str] = lambda word: word.strip("/"),
) -> FileSamples:
    """Open the images that a publisher's list names, a word each; ``place`` gives the path of one below ``images``.

    The label is the place of the path's folder in ``folders``. Raises :class:`DataError` where the list is missing, no text, or
    names something that is in none of ``folders``, and where images are missing.
    """
    label = {name: index for index, name in enumerate(folders)}
    files: list[tuple[Path | str, int]] = []
    for word in read_words(listed):
        path = place(word)
        folder = path.rpartition("/")[0]
        if folder not in label:
            raise DataError(f"{listed} names {word}, which is in none of its classes")
        files.append((images / path, label[folder]))
    return open_listed(files, transform)


def read_words(path: Path) -> list[str]:
    """Read the words of a text file. Raises :class:`DataError` where it is missing or no text."""
    try:
        return path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise MissingDataError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def open_torchvision(
    class_name: str, split: str, root: Path, transform: Transform | None = None, *, gigabytes: float = 0
) -> Samples:
    """Open ``torchvision.datasets.<class_name>`` below ``root``; what is missing is fetched as :func:`fetch` allows."""
    import inspect

    import torchvision.datasets

    make = getattr(torchvision.datasets, class_name)
    arguments = {"split": split, "train": split == "train"}  # torchvision's sets take one of them, or none
    known = inspect.signature(make).parameters
    make = partial(make, str(root), transform=partial(_to_rgb, transform))
    make = partial(make, **{name: value for name, value in arguments.items() if name in known})
    try:
        samples: Samples = make()
    except (OSError, RuntimeError):  # torchvision's words for "not there, or not whole"
        samples = fetch(partial(make, download=True), "its files are missing", gigabytes=gigabytes)
    except (ValueError, LookupError, TypeError) as error:  # a list or an annotation that is not what was published
        raise DataError(f"its files below {root} are not what was published: {error!r}") from error
    return samples


def fetch(download: Callable[[], Any], reason: str, *, hint: str = "", gigabytes: float = 0) -> Any:
    """Call ``download`` and return its value; what torchvision prints goes to stderr.

    More than 3 GB are fetched where that is :func:`asked` for, and not by the way. Raises :class:`MissingDataError` with ``reason``
    ("... is missing") where nothing is fetched, and where that fails.
    """
    from zipfile import BadZipFile

    if not _may_fetch(gigabytes):
        raise MissingDataError(reason, hint)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            return download()
    except (OSError, RuntimeError, ValueError, BadZipFile) as error:  # no network; a corrupt archive is any of them
        why = " ".join(str(error).split())
        raise MissingDataError(f"{reason} and could not be downloaded: {why}", hint) from error


def _may_fetch(gigabytes: float) -> bool:
    return bool(ASKED.get()) or (ASKED.get() is None and gigabytes <= UNASKED_GIGABYTES)


@contextlib.contextmanager
def asked(wanted: bool = True) -> Iterator[None]:
    """Ask for downloads of any size within this context, or with ``False`` for none at all."""
    token = ASKED.set(wanted)
    try:
        yield
    finally:
        ASKED.reset(token)


def _to_rgb(transform: Transform | None, image: Any) -> Any:
    """Convert a PIL image to RGB, then transform it: greyscale sets reach the model as every other."""
    if image.mode != "RGB":  # convert() copies an image that is RGB already
        image = image.convert("RGB")
    return transform(image) if transform else image
