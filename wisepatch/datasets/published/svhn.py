"""Street View House Numbers, cropped digits, in the .mat files of its publisher (``<data>/train_32x32.mat``, ...)."""

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

SOURCE = "http://ufldl.stanford.edu/housenumbers/"


def _open(split: str, root: Path, transform: Transform | None = None) -> Samples:
    folder = root / "svhn" if (root / "svhn").is_dir() else root  # the papers' code keeps it one folder down
    return open_torchvision("SVHN", "SVHN", folder, transform, SOURCE, split=split)


@hookimpl
def register_datasets() -> list[Dataset]:
    """SVHN."""
    return [
        Dataset(
            "SVHN", tuple("0123456789"), _open, TEMPLATES["SVHN"], family="SVHN", source=SOURCE,
            counts={"train": 73257, "test": 26032},
            layouts=("svhn/{train_32x32.mat,test_32x32.mat}", "{train_32x32.mat,test_32x32.mat}"), gigabytes=0.25,
            downloads=True, zeroshot=zeroshot_accuracies("SVHN"),
        )
    ]  # fmt: skip
