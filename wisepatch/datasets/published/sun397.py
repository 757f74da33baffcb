"""SUN397 with its first official partition, as published (``<data>/SUN397``), or as class folders in ``train/`` and ``test/``.

Its publishers' hosts are gone, with the archives of the images and of the lists of the splits. The copies that are about are class
folders, whose names have underscores or nothing for the slashes (``a_apse_indoor``), or tables of the Hugging Face Hub. In the
papers' folders ``val`` holds the test images.
"""

from __future__ import annotations

from pathlib import Path

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import names, spaced
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.class_folders import split_folders
from wisepatch.datasets.published.readers import gone, open_list_file, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.errors import MissingDataError

HUB, COPIES = "tanganke/sun397", "kaggle.com/datasets/lash45/sun397-50-50"
SOURCE = f"https://huggingface.co/datasets/{HUB}"
LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}
CLASSES = spaced([name[2:] for name in names("SUN397")])
LAYOUTS = (
    "SUN397/{train/*/*.jpg,test/*/*.jpg}",
    "sun397/{train/*/*.jpg,val/*/*.jpg}",
    "SUN397/{a/*/*.jpg,Training_01.txt,Testing_01.txt}",
    "SUN397/{a/*/*.jpg,Partitions/Training_01.txt,Partitions/Testing_01.txt}",
)
ARCHIVES = (
    Archive("SUN397.tar.gz", gives=("SUN397/a",)),
    Archive("Partitions.zip", ("SUN397/Partitions", "SUN397"), tuple(LISTS.values())),
)


def _open(split: str, root: Path, transform: Transform | None) -> Samples:
    folders = [name.replace("/", "_") for name in names("SUN397")]
    if samples := split_folders((root / "sun397", root / "SUN397"), folders, CLASSES, split, transform):
        return samples
    images, hint = root / "SUN397", gone("SUN397", HUB, COPIES, root, LAYOUTS[:3])
    if not images.is_dir():
        raise MissingDataError(f"there is no {images}", hint)
    paths = [folder / LISTS[split] for folder in (images, images / "Partitions")]
    listed = next((path for path in paths if path.is_file()), None)
    if listed is None:
        raise MissingDataError(f"there is no {paths[0]}, and no folder {images / split}", hint)
    return open_list_file(listed, images, names("SUN397"), transform)


def datasets() -> list[Dataset]:
    """List SUN397: scenes, named by their folders without the letter."""
    return [
        published(
            "SUN397", CLASSES, _open, ARCHIVES, source=SOURCE, counts={"train": 19850, "test": 19850}, layouts=LAYOUTS,
            gigabytes=39,
        )
    ]  # fmt: skip
