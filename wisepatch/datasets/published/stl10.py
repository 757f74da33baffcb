"""STL-10, in the archive of its publisher (``<data>/stl10_binary``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import open_torchvision
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

SOURCE = "https://cs.stanford.edu/~acoates/stl10/"
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def _open(split: str, root: Path, transform: Transform | None = None) -> Samples:
    return open_torchvision("STL10", "STL10", root, transform, SOURCE, split=split)


@hookimpl
def register_datasets() -> list[Dataset]:
    """STL10."""
    return [
        Dataset(
            "STL10", CLASSES, _open, TEMPLATES["STL10"], family="STL10", source=SOURCE, counts={"train": 5000, "test": 8000},
            layouts=("stl10_binary/{train_X.bin,train_y.bin,test_X.bin,test_y.bin,class_names.txt}",), gigabytes=2.6,
            downloads=True, zeroshot=zeroshot_accuracies("STL10"),
        )
    ]  # fmt: skip
