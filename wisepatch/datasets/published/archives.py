"""Unpack the archives of publishers that lie in the data folder as they were downloaded; no network is needed."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wisepatch.datasets.notes import tell_once
from wisepatch.errors import DataError
from wisepatch.locks import LOCK, locked

LITTER = "__MACOSX"  # of zips that macOS made
ENCRYPTED = 1  # a bit of a file's flags in a zip
BROKEN = (
    gzip.BadGzipFile, EOFError, ValueError, NotImplementedError, zlib.error, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip


class BrokenArchiveError(DataError):
    """An archive that is not whole, such as what an interrupted download leaves."""


@dataclass(frozen=True)
class Archive:
    """Describe an archive: its file ``name`` (``*``: any part), and the folders that it may be unpacked in.

    It is unpacked already where one of ``gives`` is in one of these; without ``gives`` (a zip), where the last of its files is.
    ``split`` is the only one that needs it.
    """

    name: str
    into: tuple[str, ...] = ("",)
    gives: tuple[str, ...] = ()
    split: str = ""

    def is_unpacked(self, path: Path, root: Path) -> bool:
        """Tell whether what the archive ``path`` holds is there."""
        if self.gives:
            return any((root / folder / given).exists() for folder in self.into for given in self.gives)
        try:
            with zipfile.ZipFile(path) as zipped:  # the last in order is the last that is moved
                return (self.folder(path, root) / max(zipped.namelist(), default="")).exists()
        except (OSError, zipfile.BadZipFile):  # unpacking it says so
            return False

    def lying(self, root: Path, task: str) -> list[Path]:
        """Return the files of this name: in the folders they may be unpacked in, those around and in them, and the task's own."""
        inner = [Path(folder, given).parts[0] for folder in self.into for given in self.gives]
        around = [str(place) for folder in self.into for place in (Path(folder), *Path(folder).parents)]
        places = dict.fromkeys(root / place for place in (*around, *inner, task, task.lower()))
        forms = dict.fromkeys(
            (self.name, re.sub(r"\.(tgz|tar\.gz)$", ".tar", self.name))
        )  # some browsers take off the .gz
        found = (sorted(place.glob(form)) for place in places if place.is_dir() for form in forms)
        return next((paths for paths in found if paths), [])

    def folder(self, path: Path, root: Path) -> Path:
        """Return the one of its folders in which the archive ``path`` is unpacked: where it lies, or one that is there."""
        places = [root / folder for folder in self.into]
        return next((place for place in places if place == path.parent), next(filter(Path.is_dir, places), places[0]))


def waiting(archives: Sequence[Archive], root: Path, task: str) -> Iterator[tuple[Archive, Path]]:
    """Yield the archives that lie below ``root`` and are not unpacked, with their files."""
    for archive in archives:
        yield from ((archive, path) for path in archive.lying(root, task) if not archive.is_unpacked(path, root))


def unpack_all(archives: Sequence[Archive], split: str, root: Path, task: str) -> None:
    """Unpack the archives that ``split`` needs. Raises :class:`DataError` where that cannot be done."""
    for archive, path in waiting([each for each in archives if each.split in ("", split)], root, task):
        folder = archive.folder(path, root)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(
                folder / f".{path.name}{LOCK}", partial(tell_once, f"waiting for another process to unpack {path}")
            ):
                if not archive.is_unpacked(path, root):  # another process may have done it meanwhile
                    tell_once(f"unpacking {path} ({path.stat().st_size / 1e6:,.1f} MB) in {folder}")
                    _unpack(path, folder)
        except OSError as error:
            problem = f"{path} cannot be unpacked in {folder}: {error.strerror or error}"
            raise DataError(problem, "unpack it in a folder that can be written, and name that with --data") from error


def _unpack(path: Path, folder: Path) -> None:
    """Unpack beside the place where all goes at the end: what an interruption leaves is taken for no data."""
    part = folder / f".{path.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        _extract(path, part)
        _move(part, folder)
    except BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokenArchiveError(f"the archive {path} is not whole, or none of its kind: {reason}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _extract(path: Path, folder: Path) -> None:
    """Write the files of a zip or a tar into ``folder``; those of a tar within a tar into a folder of its name (ImageNet's)."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as zipped:
            members = [each for each in zipped.infolist() if not each.filename.startswith(LITTER)]
            if any(each.flag_bits & ENCRYPTED for each in members):
                hint = "unpack it by hand with the password that its publisher gives, in the same folder"
                raise DataError(f"{path} is locked by a password", hint)
            zipped.extractall(folder, members)
        return
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() and member.name.endswith(".tar") else None
            if file is None:
                tar.extract(member, folder, filter="data")
                continue
            with tarfile.open(fileobj=file) as inner:
                inner.extractall(folder / Path(member.name).stem, filter="data")


def _move(source: Path, target: Path) -> None:
    """Move all that is in ``source``; folders that are there are filled up."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir() and place.is_dir():
            _move(path, place)
        else:
            path.replace(place)
