"""What all families of published datasets share: folders of images, torchvision's readers and its failures."""

from __future__ import annotations

import contextlib
import os
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.folder import SUFFIXES, FileSamples
from wisepatch.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wisepatch.datasets.base import Samples, Transform

UNASKED_GIGABYTES = 3  # what is larger is downloaded by `wisepatch datasets download` alone
ASKED: ContextVar[bool | None] = ContextVar("ASKED", default=None)  # None: small sets by the way; False: nothing


def missing(task: str, root: Path, layouts: Sequence[str], source: str, reason: str = "") -> DataError:
    """The error for data that is not there, or not whole: what is missing, where to get it, into which folder it goes."""
    return DataError(
        f"{task} is not below {root}{f': {reason}' if reason else ''}",
        f"fetch it from {source} and put it below {root} as {' or as '.join(layouts)}",
    )


def open_folders(
    task: str, folder: Path, folders: Sequence[str], transform: Transform | None, *, hint: str = ""
) -> FileSamples:
    """The images below class folders, in order of their names; the label is the place of the folder's name in ``folders``.

    A folder may be nested (``a/apse/indoor``). Raises :class:`DataError` for a folder that is none of the classes' and for no
    images at all; classes without a folder are allowed (``wisepatch datasets check`` counts them).
    """
    label = {name: index for index, name in enumerate(folders)}
    files: list[tuple[Path | str, int]] = []
    for parent, inner, found in os.walk(folder, followlinks=True):
        inner.sort()
        images = sorted(name for name in found if os.path.splitext(name)[1].lower() in SUFFIXES)  # noqa: PTH122 -- a million
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
    task: str, files: Sequence[tuple[Path | str, int]], transform: Transform | None, *, hint: str = ""
) -> FileSamples:
    """The images that a publisher's list names, in its order. Raises :class:`DataError` that names the first missing one."""
    absent = [path for path, _ in files if not os.path.isfile(path)]  # noqa: PTH113 -- a hundred thousand
    if absent:
        raise DataError(f"{task}: {len(absent)} of {len(files)} images are missing, the first is {absent[0]}", hint)
    return FileSamples(files, transform)


def open_list_file(
    task: str,
    listed: Path,
    folders: Sequence[str],
    place: Callable[[str], tuple[str, Path]],
    transform: Transform | None,
    *,
    hint: str,
    hint_images: str,
) -> FileSamples:
    """The images that a publisher's list names, a word each; ``place`` gives the class folder and the path of one.

    Raises :class:`DataError` where the list is missing, no text, or names something that is in none of ``folders``, with
    ``hint``, and with ``hint_images`` where images are missing.
    """
    label = {name: index for index, name in enumerate(folders)}
    try:
        lines = listed.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise DataError(f"{task}: {listed} {reason}", hint) from error
    files = []
    for line in lines:
        folder, path = place(line)
        if folder not in label:
            raise DataError(f"{task}: {listed} names {line}, which is in none of its classes", hint)
        files.append((path, label[folder]))
    return open_listed(task, files, transform, hint=hint_images)


def open_torchvision(
    class_name: str,
    task: str,
    root: Path,
    transform: Transform | None,
    source: str,
    *,
    gigabytes: float = 0,
    **arguments: Any,
) -> Samples:
    """Open ``torchvision.datasets.<class_name>`` below ``root``, downloading it as torchvision does.

    What is larger than 3 GB is downloaded where that is :func:`asked` for, and not by the way.
    Raises :class:`DataError` that says what to fetch, from where and into which folder.
    """
    import torchvision.datasets

    make = getattr(torchvision.datasets, class_name)
    arguments["transform"] = RgbTransform(transform)
    try:
        return _open(make, root, arguments)
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
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints; stdout is for results
            return _open(make, root, arguments | {"download": True})
    except (OSError, RuntimeError, ValueError) as error:  # URLError is an OSError, a corrupt archive a RuntimeError
        reason = " ".join(str(error).split())
        raise DataError(f"{task} is not below {root} and could not be downloaded: {reason}", by_hand) from error


def _open(make: Any, root: Path, arguments: dict[str, Any]) -> Samples:
    samples: Samples = make(str(root), **arguments)
    return samples


@contextlib.contextmanager
def asked(wanted: bool = True) -> Iterator[None]:
    """Downloads of any size are asked for within this context, or with ``False`` none at all."""
    token = ASKED.set(wanted)
    try:
        yield
    finally:
        ASKED.reset(token)


class RgbTransform:
    """Convert to RGB, then transform: greyscale sets reach the model as every other. A class, so that workers can be spawned."""

    def __init__(self, transform: Transform | None) -> None:
        """Keep the transform that follows; ``None`` gives the RGB image."""
        self.transform = transform

    def __call__(self, image: Any) -> Any:
        """Convert and transform one PIL image."""
        if image.mode != "RGB":  # convert() copies an image that is RGB already
            image = image.convert("RGB")
        return self.transform(image) if self.transform else image
