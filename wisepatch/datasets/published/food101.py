"""Food-101, in the archive of its publisher (``<data>/food-101``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import names, spaced, zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import open_listed, open_torchvision
from wisepatch.errors import DataError
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

SOURCE = "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"
GIGABYTES = 5


def _open(split: str, root: Path, transform: Transform | None = None) -> Samples:
    found: Any = open_torchvision("Food101", "Food101", root, None, SOURCE, gigabytes=GIGABYTES, split=split)
    again = f"fetch it again from {SOURCE}"
    if tuple(found.classes) != names("Food101"):
        raise DataError(
            f"Food101: {root / 'food-101' / 'meta' / split}.json does not name the published classes", again
        )
    files = list(zip(found._image_files, found._labels, strict=True))
    return open_listed("Food101", files, transform, hint=again)


@hookimpl
def register_datasets() -> list[Dataset]:
    """Food101: 101 dishes."""
    return [
        Dataset(
            "Food101", spaced(names("Food101")), _open, TEMPLATES["Food101"], family="Food101", source=SOURCE,
            counts={"train": 75750, "test": 25250}, gigabytes=GIGABYTES, downloads=True,
            layouts=("food-101/{images/*/*.jpg,meta/train.json,meta/test.json}",),
            zeroshot=zeroshot_accuracies("Food101"),
        )
    ]  # fmt: skip
