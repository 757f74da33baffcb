"""Stanford Cars, in the folders of its publisher (``<data>/stanford_cars``), which must be put there by hand.

The publisher's page is gone, so that torchvision cannot download the images any more; the issue in ``SOURCE`` names copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import names, zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import missing, open_listed, open_torchvision
from wisepatch.errors import DataError
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

SOURCE = "https://github.com/pytorch/vision/issues/7545"
NEEDED = {
    "train": ("cars_train", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"),
    "test": ("cars_test", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat"),
}
LAYOUT = "stanford_cars/{cars_train/*.jpg,cars_test/*.jpg,cars_test_annos_withlabels.mat,devkit/*.mat}"


def _open(split: str, root: Path, transform: Transform | None = None) -> Samples:
    absent = [path for path in NEEDED[split] if not (root / "stanford_cars" / path).exists()]
    if absent:
        raise missing("Cars", root, [LAYOUT], SOURCE, f"there is no stanford_cars/{absent[0]}")
    from scipy.io.matlab import MatReadError

    try:
        found: Any = open_torchvision("StanfordCars", "Cars", root, None, SOURCE, split=split)
    except MatReadError as error:
        raise DataError(
            f"Cars: its .mat files below {root} cannot be read: {error}", f"fetch them again, see {SOURCE}"
        ) from error
    if tuple(found.classes) != names("Cars"):
        raise DataError(
            f"Cars: {root / 'stanford_cars' / 'devkit' / 'cars_meta.mat'} does not name the published classes",
            f"fetch it again, see {SOURCE}",
        )
    files = [(path, int(label)) for path, label in found._samples]
    return open_listed("Cars", files, transform, hint=f"fetch them again, see {SOURCE}")


@hookimpl
def register_datasets() -> list[Dataset]:
    """Cars: 196 models, with the names of the publisher."""
    return [
        Dataset(
            "Cars", names("Cars"), _open, TEMPLATES["Cars"], family="Cars", source=SOURCE, aliases=("StanfordCars",),
            counts={"train": 8144, "test": 8041}, layouts=(LAYOUT,), gigabytes=2, zeroshot=zeroshot_accuracies("Cars"),
        )
    ]  # fmt: skip
