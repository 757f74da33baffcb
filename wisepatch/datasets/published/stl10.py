"""STL-10, in the archive of its publisher (``<data>/stl10_binary``)."""

from __future__ import annotations

from functools import partial

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.published.readers import open_torchvision, published

SOURCE = "https://cs.stanford.edu/~acoates/stl10/"
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def datasets() -> list[Dataset]:
    """List STL10."""
    return [
        published(
            "STL10", CLASSES, partial(open_torchvision, "STL10"), source=SOURCE,
            counts={"train": 5000, "test": 8000}, gigabytes=2.6, downloads=True,
            layouts=("stl10_binary/{train_X.bin,train_y.bin,test_X.bin,test_y.bin,class_names.txt}",),
        )
    ]  # fmt: skip
