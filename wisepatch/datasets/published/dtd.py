"""Describable Textures, first partition, as published (``<data>/dtd/dtd`` or ``<data>/dtd``) or in the papers' folders.

The publisher names 1,880 images each to train, to validate and to test. The papers' code reads ``<data>/dtd/train`` and
``<data>/dtd/val``, where ``train`` holds the publisher's first two parts and ``val`` the test images. Where these two folders
lie, they are taken: ``test`` is the folder ``val``, and ``val`` is cut from the folder ``train`` as for every task without
a validation split. A folder ``<data>/dtd/test`` beside them says that all three are what their names say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wisepatch.datasets.base import Dataset, cut_validation
from wisepatch.datasets.names import names, zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import open_folders, open_list_file, open_torchvision
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"
AGAIN = f"fetch it again from {SOURCE}"
LAYOUTS = (
    "dtd/{train/*/*.jpg,val/*/*.jpg}",
    "dtd/dtd/{images/*/*.jpg,labels/*.txt}",
    "dtd/{images/*/*.jpg,labels/*.txt}",
)


def _open(split: str, root: Path, transform: Transform | None = None) -> Samples:
    folder = root / "dtd"
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        return _from_folders(split, folder, transform)
    published = [path for path in (folder / "dtd", folder) if (path / "labels").is_dir()]
    if not published:
        open_torchvision("DTD", "DTD", root, None, SOURCE, split=split)  # it downloads, or says what to do
        published = [folder / "dtd"]
    return _from_lists(split, published[0], transform)


def _from_folders(split: str, folder: Path, transform: Transform | None) -> Samples:
    if (folder / "test").is_dir():
        return open_folders("DTD", folder / split, names("DTD"), transform, hint=AGAIN)
    if split == "test":
        return open_folders("DTD", folder / "val", names("DTD"), transform, hint=AGAIN)
    return cut_validation(open_folders("DTD", folder / "train", names("DTD"), transform, hint=AGAIN), split)


def _from_lists(split: str, folder: Path, transform: Transform | None) -> Samples:
    listed = folder / "labels" / f"{split}1.txt"

    def place(line: str) -> tuple[str, Path]:
        return line.split("/")[0], folder / "images" / line

    return open_list_file("DTD", listed, names("DTD"), place, transform, hint=AGAIN, hint_images=AGAIN)


@hookimpl
def register_datasets() -> list[Dataset]:
    """DTD: 47 textures."""
    return [
        Dataset(
            "DTD", names("DTD"), _open, TEMPLATES["DTD"], splits=("train", "val", "test"), family="DTD", source=SOURCE,
            counts={"test": 1880}, layouts=LAYOUTS, gigabytes=0.6, downloads=True,
            zeroshot=zeroshot_accuracies("DTD"),
        )
    ]  # fmt: skip
