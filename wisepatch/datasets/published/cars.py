"""Stanford Cars, in the folders of its publisher (``<data>/stanford_cars``), which must be put there by hand.

The publisher's page is gone, so that torchvision cannot download the images any more; the issue in ``SOURCE`` names copies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset, Samples, Transform
from wisepatch.datasets.names import names
from wisepatch.datasets.published.readers import MissingDataError, open_listed, open_torchvision, published
from wisepatch.errors import DataError

SOURCE = "https://github.com/pytorch/vision/issues/7545"
NEEDED = {
    "train": ("cars_train", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"),
    "test": ("cars_test", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat"),
}
LAYOUT = "stanford_cars/{cars_train/*.jpg,cars_test/*.jpg,cars_test_annos_withlabels.mat,devkit/*.mat}"


def _open(split: str, root: Path, transform: Transform | None) -> Samples:
    from scipy.io.matlab import MatReadError

    folder = root / "stanford_cars"
    absent = [path for path in NEEDED[split] if not (folder / path).exists()]
    if absent:
        raise MissingDataError(f"there is no stanford_cars/{absent[0]}")
    try:
        cars: Any = open_torchvision("StanfordCars", split, root)
    except MatReadError as error:
        raise DataError(f"its .mat files below {root} cannot be read: {error}") from error
    if tuple(cars.classes) != names("Cars"):
        raise DataError(f"{folder / 'devkit' / 'cars_meta.mat'} does not name the published classes")
    return open_listed([(path, int(label)) for path, label in cars._samples], transform)


def datasets() -> list[Dataset]:
    """List Cars: 196 models, with the names of the publisher."""
    return [
        published(
            "Cars", names("Cars"), _open, source=SOURCE, aliases=("StanfordCars",), counts={"train": 8144, "test": 8041},
            layouts=(LAYOUT,), gigabytes=2,
        )
    ]  # fmt: skip
