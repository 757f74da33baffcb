"""CLEVR, counting objects, in the archive of its publisher (``<data>/clevr/CLEVR_v1.0``).

The annotations of the test images are not public: ``test`` is the published validation split. PAINT patches a model on the
images of ``CLEVR45689`` and looks on those of ``CLEVR3710`` whether it has learnt to count.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.readers import open_listed, open_torchvision, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.errors import DataError

SOURCE = "https://cs.stanford.edu/people/jcjohns/clevr/"
GIGABYTES = 19
LAYOUT = (
    "clevr/CLEVR_v1.0/{images/train/*.png,images/val/*.png,scenes/CLEVR_train_scenes.json,scenes/CLEVR_val_scenes.json}"
)
ARCHIVES = (Archive("CLEVR_v1.0.zip", ("clevr",), ("CLEVR_v1.0/scenes",)),)
ALL = (3, 4, 5, 6, 7, 8, 9, 10)
TASKS = {
    "CLEVR": (ALL, ("CLEVRCounts",), {"train": 70000, "test": 15000}),
    "CLEVR45689": ((4, 5, 6, 8, 9), ("CLEVRA",), {}),
    "CLEVR3710": ((3, 7, 10), ("CLEVRB",), {}),
}


def _open(counts: tuple[int, ...], split: str, root: Path, transform: Transform | None) -> Samples:
    own_split = "val" if split == "test" else split
    scenes: Any = open_torchvision("CLEVRClassification", own_split, root, gigabytes=GIGABYTES)
    files = list(zip(scenes._image_files, scenes._labels, strict=True))
    for path, count in files:
        if count not in ALL:
            raise DataError(f"{path} is said to show {count} objects, and scenes hold 3 to 10")
    files = [(path, counts.index(count)) for path, count in files if count in counts]
    return open_listed(files, transform)


def datasets() -> list[Dataset]:
    """List CLEVR, and the two halves of its counts between which PAINT looks for transfer."""
    return [
        published(
            name, tuple(map(str, counts)), partial(_open, counts), templates=TEMPLATES["CLEVR"], family="CLEVR",
            source=SOURCE, aliases=aliases, counts=images, layouts=(LAYOUT,), licence="CC BY 4.0", gigabytes=GIGABYTES,
            archives=ARCHIVES,
            downloads=True, zeroshot={},  # open_clip's are of other prompts ("a picture of three objects")
        )
        for name, (counts, aliases, images) in TASKS.items()
    ]  # fmt: skip
