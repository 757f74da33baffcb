"""Read and describe published datasets: folders of images, publishers' lists, torchvision's readers, downloads."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Annotations, Dataset, Samples, Transform
from wisepatch.datasets.folder import SUFFIXES, FileSamples
from wisepatch.datasets.names import zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.errors import DataError

UNASKED_GIGABYTES = 3  # what is larger is downloaded by `wisepatch datasets download` alone
ASKED: ContextVar[bool | None] = ContextVar("ASKED", default=None)  # None: small sets by the way; False: nothing


def published(name: str, classes: Sequence[str], open: Callable[..., Samples], **fields: Any) -> Dataset:  # noqa: A002
    """Describe a published dataset; prompts, family and zero-shot accuracies go by its name where ``fields`` has no others."""
    by_name = {"templates": TEMPLATES.get(name, ()), "family": name, "zeroshot": zeroshot_accuracies(name)}
    return Dataset(name, tuple(classes), open, **by_name | fields)


def missing(task: str, root: Path, layouts: Sequence[str], source: str, reason: str = "") -> DataError:
    """Make the error for data that is not there, or not whole: what is missing, where to get it, and where it goes."""
    return DataError(
        f"{task} is not below {root}{f': {reason}' if reason else ''}",
        f"fetch it from {source} and put it below {root} as {' or as '.join(layouts)}",
    )


def first_folder(
    task: str, root: Path, folders: Sequence[str], layouts: Sequence[str], source: str, reason: str = ""
) -> Path:
    """Return the first of ``folders`` that is below ``root``. Raises the :func:`missing` data's error where none is."""
    for folder in folders:
        if (root / folder).is_dir():
            return root / folder
    raise missing(task, root, layouts, source, reason)


def open_folders(
    task: str, folder: Path, folders: Sequence[str], transform: Transform | None, *, hint: str = ""
) -> FileSamples:
    """Open the images below class folders, in order of their names; a label is the place of the folder's name in ``folders``.

    A folder may be nested (``a/apse/indoor``). Raises :class:`DataError` for a folder that is none of the classes' and for no
    images at all; classes without a folder are allowed (``wisepatch datasets check`` counts them).
    """
    label = {name: index for index, name in enumerate(folders)}
    files: list[tuple[Path | str, int]] = []
    for parent, inner, names in os.walk(folder, followlinks=True):
        inner.sort()
        images = sorted(name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES)  # noqa: PTH122 -- a million
        if not images:
            continue
        below = Path(parent).relative_to(folder).as_posix()
        if below not in label:
            shown = f"its class folders are named {folders[0]}, {folders[1]}, ..."
            raise DataError(f"{task}: {folder / below} is not the folder of one of its classes; {shown}", hint)
        files += [(f"{parent}/{name}", label[below]) for name in images]
    if not files:
        raise DataError(f"{task}: there are no images below {folder}", hint)
    return FileSamples(sorted(files, key=lambda file: (file[1], str(file[0]))), transform)


def open_listed(
    task: str,
    files: Sequence[tuple[Path | str, int]],
    transform: Transform | None,
    *,
    hint: str = "",
    annotations: Annotations | None = None,
) -> FileSamples:
    """Open the images that a publisher's list names, in its order. Raises :class:`DataError` that names the first missing one."""
    check_present(task, [path for path, _ in files], hint)
    return FileSamples(files, transform, annotations)


def check_present(task: str, paths: Sequence[Path | str], hint: str, noun: str = "images") -> None:
    """Raise :class:`DataError` with the number of files that are missing, and the first of them."""
    absent = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113 -- a hundred thousand
    if absent:
        raise DataError(f"{task}: {len(absent)} of {len(paths)} {noun} are missing, the first is {absent[0]}", hint)


def open_list_file(
    task: str,
    listed: Path,
    images: Path,
    folders: Sequence[str],
    transform: Transform | None,
    *,
    hint: str,
    hint_images: str = "",
    place: Callable[[str], str] = lambda word: word.strip("/"),
) -> FileSamples:
    """Open the images that a publisher's list names, a word each; ``place`` gives the path of one below ``images``.

    The label is the place of the path's folder in ``folders``. Raises :class:`DataError` where the list is missing, no text, or
    names something that is in none of ``folders``, with ``hint``, and with ``hint_images`` where images are missing.
    """
    label = {name: index for index, name in enumerate(folders)}
    files: list[tuple[Path | str, int]] = []
    for word in read_words(task, listed, hint):
        path = place(word)
        folder = path.rpartition("/")[0]
        if folder not in label:
            raise DataError(f"{task}: {listed} names {word}, which is in none of its classes", hint)
        files.append((images / path, label[folder]))
    return open_listed(task, files, transform, hint=hint_images or hint)


def read_words(task: str, path: Path, hint: str) -> list[str]:
    """Read the words of a text file. Raises :class:`DataError` where it is missing or no text."""
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise DataError(f"{task}: {path} {reason}", hint) from error


def open_torchvision(
    class_name: str,
    task: str,
    source: str,
    split: str,
    root: Path,
    transform: Transform | None = None,
    *,
    gigabytes: float = 0,
) -> Samples:
    """Open ``torchvision.datasets.<class_name>`` below ``root``, downloading it as torchvision does.

    What is larger than 3 GB is downloaded where that is :func:`asked` for, and not by the way.
    Raises :class:`DataError` that says what to fetch, from where and into which folder.
    """
    import inspect

    import torchvision.datasets

    published_class = getattr(torchvision.datasets, class_name)
    arguments = {"split": split, "train": split == "train"}  # torchvision's sets take one of them, or none
    known = inspect.signature(published_class).parameters
    make: Callable[..., Samples] = partial(
        published_class,
        str(root),
        transform=partial(_to_rgb, transform),
        **{k: arguments[k] for k in arguments if k in known},
    )
    try:
        return make()
    except (OSError, RuntimeError):  # torchvision's words for "not there, or not whole"
        pass
    except (ValueError, LookupError, TypeError) as error:  # a list or an annotation that is not what was published
        raise DataError(
            f"{task}: its files below {root} are not what was published: {error!r}", f"fetch them again from {source}"
        ) from error
    by_hand = f"fetch it from {source} and put it below {root} as `wisepatch datasets show {task}` says"
    if ASKED.get() is False or (gigabytes > UNASKED_GIGABYTES and not ASKED.get()):
        size = f" ({gigabytes:g} GB)" if gigabytes else ""
        raise DataError(
            f"{task} is not below {root}, or not whole",
            f"`wisepatch datasets download {task}` fetches it{size}, or {by_hand}",
        )
    with downloading(DataError(f"{task} is not below {root} and could not be downloaded", by_hand)):
        return make(download=True)


@contextlib.contextmanager
def downloading(failure: DataError) -> Iterator[None]:
    """Send what torchvision prints to stderr; where its download fails, raise ``failure`` with the reason added."""
    from zipfile import BadZipFile

    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            yield
    except (
        OSError,
        RuntimeError,
        ValueError,
        BadZipFile,
    ) as error:  # URLError is an OSError, a corrupt archive any of them
        raise DataError(f"{failure.message}: {' '.join(str(error).split())}", failure.hint) from error


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
