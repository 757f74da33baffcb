"""List a folder of images: the splits, the class folders, their images, and whatever is left out, with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from wisepatch.datasets.decoding import reason_not_read
from wisepatch.datasets.splits import SPLIT_WORDS, natural_key
from wisepatch.errors import DataError
from wisepatch.files import in_utf8, is_utf8

Files = dict[str, list[tuple[str, str]]]  # split -> (image, label as written)

# What systems and programs leave behind: no data, and not worth a word.
LITTER = frozenset({
    ".ds_store", ".ipynb_checkpoints", ".trashes", ".git", ".gitignore", ".gitkeep", "__macosx", "__pycache__", "@eadir",
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "system volume information",
})  # fmt: skip


@dataclass
class LeftOut:
    """Collect the names of files and folders that are left out, by reason."""

    root: Path
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: str) -> None:
        """Leave out ``path``, for ``reason``."""
        self.names.setdefault(reason, []).append(os.path.relpath(path, self.root))


@dataclass(frozen=True)
class Listing:
    """Hold what lies in a folder. ``root`` is where its splits or classes are: below a folder wrapped around them.

    ``within`` is where the classes of each split are, where another folder is wrapped around those.
    """

    root: Path
    files: Files
    left_out: dict[str, list[str]]
    outside: int  # folders and files that are links to places outside
    within: list[Path] = field(default_factory=list)


@dataclass
class _Scan:
    root: Path
    left_out: LeftOut
    outside: int = 0

    def entries(self, folder: str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
        """Return the folders in ``folder`` in natural order, and its files, without litter; links are followed."""
        folders, files = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_litter(entry.name):
                    continue
                if entry.is_symlink():
                    is_folder, is_file = os.path.isdir(entry.path), os.path.isfile(entry.path)  # noqa: PTH112, PTH113 -- no errors
                    self.outside += (is_folder or is_file) and not Path(entry.path).resolve().is_relative_to(self.root)
                else:
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                if entry.name.startswith(".") and (is_folder or is_file):
                    self.left_out.add("hidden: its name begins with a dot", entry.path)
                elif is_folder:
                    folders.append(entry)
                elif is_file:
                    files.append(entry)
                else:
                    self.left_out.add("a link to nothing, or no file", entry.path)
        return sorted(folders, key=_order), sorted(files, key=attrgetter("name"))

    def images(self, folder: str, above: Sequence[str]) -> Iterator[str]:
        """Yield the paths of all images below ``folder``; a folder that links lead to again is listed once."""
        seen = {_identity(each) for each in above}
        waiting = [folder]
        while waiting:
            current = waiting.pop()
            if _identity(current) in seen:
                self.left_out.add("a link to a folder that is listed already", current)
                continue
            seen.add(_identity(current))
            folders, files = self.entries(current)
            waiting += [each.path for each in reversed(folders)]
            for entry in files:
                reason = reason_not_read(entry.name, entry.path)
                if reason is None:
                    yield entry.path
                else:
                    self.left_out.add(reason, entry.path)

    def leave_out(self, reason: str, folder: str) -> None:
        """Leave out all images below ``folder``."""
        for path in self.images(folder, (str(self.root),)):
            self.left_out.add(reason, path)

    def class_files(self, folder: Path) -> list[tuple[str, str]]:
        """Return the images below the class folders in ``folder``, with their labels, in order."""
        classes, loose = self.entries(str(folder))
        if not classes:
            hint = "put the images of each class into a folder named after it, or list them in a CSV with path,label"
            raise DataError(f"{folder} holds no class folders", hint)
        for entry in loose:
            self.left_out.add("beside the class folders", entry.path)
        files = []
        for entry in classes:
            label = in_utf8(entry.name)
            if not is_utf8(entry.name):
                raise DataError(f"the name of the class folder {folder}{os.sep}{label} is not in UTF-8", "rename it")
            images = [(path, label) for path in self.images(entry.path, (str(self.root), str(folder)))]
            if not images:
                hint = "add some, or remove it" + _but(self.left_out, entry.path)
                raise DataError(f"class folder {entry.path} holds no images", hint)
            files += images
        return files


def list_folder(path: Path) -> Listing:
    """List the folder ``path``: ``train/``, ``val/``, ``test/`` (or what else people call them) with class folders, or these alone.

    A lone folder wrapped around them is looked through, also one in each split. Only files whose suffix does not say what they are
    get opened. Raises :class:`DataError` for a folder without class folders, an empty class folder, and two folders for one split.
    """
    left_out = LeftOut(path)
    scan = _Scan(path, left_out)
    root = _unwrapped(path, left_out)
    splits = _split_folders(scan, root)
    if not splits:
        return Listing(root, {"train": scan.class_files(root)}, left_out.names, scan.outside)
    folders, loose = scan.entries(str(root))
    for entry in loose:
        left_out.add("beside the splits", entry.path)
    taken = {folder.name for folder in splits.values()}
    for entry in folders:
        if entry.name not in taken and not _word(entry.name):
            scan.leave_out("in a folder beside the splits, and none of them", entry.path)
    wrapped = all(_unwrapped(folder, LeftOut(path)) != folder for folder in splits.values())
    if wrapped:
        splits = {split: _unwrapped(folder, left_out) for split, folder in splits.items()}
    files = {split: scan.class_files(folder) for split, folder in splits.items()}
    return Listing(root, files, left_out.names, scan.outside, [*splits.values()] if wrapped else [])


def images_below(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the images below a folder, at any depth and in natural order, and by reason the files that are left out."""
    left_out = LeftOut(folder)
    return list(_Scan(folder.resolve(), left_out).images(str(folder), ())), left_out.names


def is_litter(name: str) -> bool:
    """Tell whether a system or a program left this behind: ``.DS_Store``, ``Thumbs.db``, ``._photo.jpg``."""
    return name.startswith("._") or name.lower() in LITTER


def _split_folders(scan: _Scan, root: Path) -> dict[str, Path]:
    """Return the folder of each split. One without class folders holds unlabelled images, and is left out beside another.

    Raises :class:`DataError` for two folders of one split, and for splits of which none has class folders.
    """
    folders: dict[str, Path] = {}
    unlabelled = []
    names = [entry.name for entry in _look_into(root)[0]]
    for name in filter(_word, names):
        if not _look_into(root / name)[0]:
            unlabelled.append(root / name)
            continue
        other = folders.setdefault(SPLIT_WORDS[name.lower()], root / name)
        if other.name != name:
            raise DataError(f"{root} has two folders for one split: {other.name} and {name}", "merge the two")
    if len(unlabelled) == len(names) > 1:  # a train among other vehicles is a class
        hint = (
            f"put the images of each class into a folder of its own, such as {unlabelled[0]}{os.sep}cat; or write a CSV"
        )
        raise DataError(f"{root} holds {' and '.join(names)}, in which there are no class folders", hint)
    for folder in unlabelled if folders else ():
        scan.leave_out("unlabelled (for predict)", str(folder))
    return folders


def _unwrapped(path: Path, left_out: LeftOut) -> Path:
    """Return the folder that holds splits or classes: ``path``, or the one that is alone in it and in turn holds folders."""
    while True:
        folders, files = _look_into(path)
        if len(folders) != 1 or folders[0].is_symlink() or _word(folders[0].name):
            return path
        within, beside = _look_into(Path(folders[0].path))
        holds_all = len(within) > 1 or any(_word(each.name) for each in within)
        if not holds_all and (beside or not within):
            return path
        for entry in files:
            left_out.add("beside the folder that holds all", entry.path)
        path = Path(folders[0].path)


def _look_into(folder: Path) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """Return folders and files in ``folder`` as the listing sees them."""
    return _Scan(folder, LeftOut(folder)).entries(str(folder))


def _but(left_out: LeftOut, folder: str) -> str:
    """Return what was found in ``folder`` instead of images."""
    below = os.path.relpath(folder, left_out.root) + os.sep
    reasons = {reason: [name for name in names if name.startswith(below)] for reason, names in left_out.names.items()}
    found = [f"{len(names)} left out: {reason}" for reason, names in reasons.items() if names]
    return f" ({'; '.join(found)})" if found else ""


def _word(name: str) -> str | None:
    return SPLIT_WORDS.get(name.lower())


def _order(entry: os.DirEntry[str]) -> tuple[object, ...]:
    return natural_key(entry.name)


def _identity(folder: str) -> tuple[int, int]:
    stat = os.stat(folder)  # noqa: PTH116 -- of a million
    return stat.st_dev, stat.st_ino
