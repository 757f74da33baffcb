"""Describable Textures, first partition, as published (``<data>/dtd/dtd`` or ``<data>/dtd``) or in the papers' folders.

The publisher names 1,880 images each to train, to validate and to test. In the papers' folders, which are preferred, ``train``
holds the first two parts, from which ``val`` is cut, and ``val`` the test images; where there is a third folder ``test``, all
three are what their names say.
"""

from __future__ import annotations

from pathlib import Path

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import names
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.class_folders import split_folders
from wisepatch.datasets.published.readers import open_list_file, open_torchvision, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.datasets.splits import SPLITS

SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"
LAYOUTS = (
    "dtd/{train/*/*.jpg,val/*/*.jpg}",
    "dtd/dtd/{images/*/*.jpg,labels/*.txt}",
    "dtd/{images/*/*.jpg,labels/*.txt}",
    "dtd/{train/*/*.jpg,test/*/*.jpg}",
)


def _open(split: str, root: Path, transform: Transform | None) -> Samples:
    places, folder = (root / "dtd", root / "DTD"), root / "dtd"
    if samples := split_folders(places, names("DTD"), names("DTD"), split, transform, own_val=True):
        return samples
    if not (folder / "labels").is_dir() or (folder / "dtd" / "labels").is_dir():
        folder = folder / "dtd"
    if not (folder / "labels").is_dir():
        open_torchvision("DTD", split, root)  # it downloads, or says what to do
    return open_list_file(folder / "labels" / f"{split}1.txt", folder / "images", names("DTD"), transform)


def datasets() -> list[Dataset]:
    """List DTD: 47 textures."""
    return [
        published(
            "DTD", names("DTD"), _open, splits=SPLITS, source=SOURCE, counts={"test": 1880}, layouts=LAYOUTS, gigabytes=0.6,
            downloads=True, archives=(Archive("dtd-r1.0.1.tar.gz", ("dtd",), ("dtd/labels", "labels")),),
        )
    ]  # fmt: skip
