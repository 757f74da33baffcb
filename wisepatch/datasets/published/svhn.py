"""Street View House Numbers, cropped digits, in the .mat files of its publisher (``<data>/train_32x32.mat``, ...)."""

from __future__ import annotations

from pathlib import Path

from wisepatch.datasets.base import Dataset, Samples, Transform
from wisepatch.datasets.published.readers import open_torchvision, published

SOURCE = "http://ufldl.stanford.edu/housenumbers/"


def _open(split: str, root: Path, transform: Transform | None) -> Samples:
    folder = root / "svhn" if (root / "svhn").is_dir() else root  # the papers' code keeps it one folder down
    return open_torchvision("SVHN", split, folder, transform)


def datasets() -> list[Dataset]:
    """List SVHN."""
    return [
        published(
            "SVHN", "0123456789", _open, source=SOURCE, counts={"train": 73257, "test": 26032}, gigabytes=0.25, downloads=True,
            layouts=("svhn/{train_32x32.mat,test_32x32.mat}", "{train_32x32.mat,test_32x32.mat}"),
        )
    ]  # fmt: skip
