"""Food-101, in the archive of its publisher (``<data>/food-101``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset, Samples, Transform
from wisepatch.datasets.names import names, spaced
from wisepatch.datasets.published.readers import open_listed, open_torchvision, published
from wisepatch.errors import DataError

SOURCE = "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"
GIGABYTES = 5


def _open(split: str, root: Path, transform: Transform | None) -> Samples:
    food: Any = open_torchvision("Food101", split, root, gigabytes=GIGABYTES)
    if tuple(food.classes) != names("Food101"):
        listing = root / "food-101" / "meta" / f"{split}.json"
        raise DataError(f"{listing} does not name the published classes")
    return open_listed(list(zip(food._image_files, food._labels, strict=True)), transform)


def datasets() -> list[Dataset]:
    """List Food101: 101 dishes."""
    return [
        published(
            "Food101", spaced(names("Food101")), _open, source=SOURCE, counts={"train": 75750, "test": 25250},
            layouts=("food-101/{images/*/*.jpg,meta/train.json,meta/test.json}",), gigabytes=GIGABYTES, downloads=True,
        )
    ]  # fmt: skip
