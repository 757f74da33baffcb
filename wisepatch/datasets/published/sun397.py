"""SUN397 with its first official partition, as published (``<data>/SUN397``) or in the papers' folders.

The lists of the splits come in an archive of their own. The papers' folders are the same two lists (``val`` holds the test images)
with underscores for slashes in their names (``a_apse_indoor``).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import names, spaced
from wisepatch.datasets.published.readers import (
    MissingDataError,
    fetch,
    open_list_file,
    open_torchvision,
    published,
    read_folders,
)
from wisepatch.datasets.samples import Samples, Transform

SOURCE = "https://vision.princeton.edu/projects/2010/SUN/"
PARTITIONS = f"{SOURCE}download/Partitions.zip"
PARTITIONS_MD5 = "29a205c0a0129d21f36cbecfefe81881"
GIGABYTES = 39
LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}
LAYOUTS = (
    "sun397/{train/*/*.jpg,val/*/*.jpg}",
    "SUN397/{a/*/*.jpg,Training_01.txt,Testing_01.txt}",
    "SUN397/{a/*/*.jpg,Partitions/Training_01.txt,Partitions/Testing_01.txt}",
)


def _open(split: str, root: Path, transform: Transform | None) -> Samples:
    cut, images = root / "sun397", root / "SUN397"
    if (cut / "train").is_dir() and (cut / "val").is_dir():
        folders = [name.replace("/", "_") for name in names("SUN397")]
        return read_folders(cut / ("val" if split == "test" else "train"), folders, transform)
    if not images.is_dir():
        open_torchvision("SUN397", split, root, gigabytes=GIGABYTES)  # it downloads, or says what to do
    return open_list_file(_list_file(LISTS[split], images), images, names("SUN397"), transform)


def _list_file(name: str, images: Path) -> Path:
    """Return the official list of a split, downloaded with the other partitions (18 MB) where it is missing."""
    partitions = images / "Partitions"
    paths = (images / name, partitions / name)
    if not any(path.is_file() for path in paths):
        from torchvision.datasets.utils import download_and_extract_archive

        download = partial(download_and_extract_archive, PARTITIONS, str(partitions), md5=PARTITIONS_MD5)
        fetch(download, f"{name} is missing", hint=f"fetch it from {PARTITIONS} and unpack it in {images}")
    if not any(path.is_file() for path in paths):
        raise MissingDataError(f"Partitions.zip holds no {name}")
    return next(path for path in paths if path.is_file())


def datasets() -> list[Dataset]:
    """List SUN397: scenes, named by their folders without the letter."""
    return [
        published(
            "SUN397", spaced([name[2:] for name in names("SUN397")]), _open, source=SOURCE,
            counts={"train": 19850, "test": 19850}, layouts=LAYOUTS, gigabytes=GIGABYTES, downloads=True,
        )
    ]  # fmt: skip
