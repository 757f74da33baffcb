"""SUN397 with its first official partition, as published (``<data>/SUN397``) or in the papers' folders.

The archive of the images has no splits: ``Training_01.txt`` and ``Testing_01.txt`` come in a second one, ``Partitions.zip``,
and lie in ``SUN397/`` or ``SUN397/Partitions/``. The papers' code reads ``<data>/sun397/{train,val}/CLASS``, the same two lists
as folders (``val`` holds the test images) with underscores for slashes (``a_apse_indoor``).
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import names, spaced, zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import ASKED, missing, open_folders, open_list_file, open_torchvision
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

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


def _open(split: str, root: Path, transform: Transform | None = None) -> Samples:
    cut = root / "sun397"
    if (cut / "train").is_dir() and (cut / "val").is_dir():
        folders = [name.replace("/", "_") for name in names("SUN397")]
        below = cut / ("val" if split == "test" else "train")
        return open_folders("SUN397", below, folders, transform, hint=f"fetch it again from {SOURCE}")
    images = root / "SUN397"
    if not images.is_dir():
        open_torchvision(
            "SUN397", "SUN397", root, None, SOURCE, gigabytes=GIGABYTES
        )  # it downloads, or says what to do

    def place(line: str) -> tuple[str, Path]:
        return line.strip("/").rpartition("/")[0], images / line.strip("/")

    return open_list_file(
        "SUN397", _list_file(split, root), names("SUN397"), place, transform,
        hint=f"fetch it again from {PARTITIONS}", hint_images=f"fetch them again from {SOURCE}",
    )  # fmt: skip


def _list_file(split: str, root: Path) -> Path:
    """The official list of ``split``, downloaded with the other partitions (18 MB) where it is missing."""
    images = root / "SUN397"
    for folder in (images, images / "Partitions"):
        if (folder / LISTS[split]).is_file():
            return folder / LISTS[split]
    if ASKED.get() is False:
        raise missing("SUN397", root, LAYOUTS, PARTITIONS, f"there is no {LISTS[split]}")
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        with contextlib.redirect_stdout(sys.stderr):
            download_and_extract_archive(PARTITIONS, str(images / "Partitions"), md5=PARTITIONS_MD5)
    except (OSError, RuntimeError, ValueError) as error:
        reason = f"there is no {LISTS[split]}, and it could not be downloaded: {' '.join(str(error).split())}"
        raise missing("SUN397", root, LAYOUTS, PARTITIONS, reason) from error
    if not (images / "Partitions" / LISTS[split]).is_file():
        raise missing("SUN397", root, LAYOUTS, PARTITIONS, f"Partitions.zip holds no {LISTS[split]}")
    return images / "Partitions" / LISTS[split]


@hookimpl
def register_datasets() -> list[Dataset]:
    """SUN397: scenes, named by their folders without the letter."""
    return [
        Dataset(
            "SUN397", spaced([name[2:] for name in names("SUN397")]), _open, TEMPLATES["SUN397"], family="SUN397",
            source=SOURCE, counts={"train": 19850, "test": 19850}, layouts=LAYOUTS, gigabytes=GIGABYTES, downloads=True,
            zeroshot=zeroshot_accuracies("SUN397"),
        )
    ]  # fmt: skip
