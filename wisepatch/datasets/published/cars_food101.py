"""Stanford Cars (``<data>/stanford_cars``) and Food-101 (``<data>/food-101``): the files of their publishers, or class folders.

Cars must be put there by hand: the publisher's page is gone, and the issue in ``CARS_SOURCE`` names copies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import names, spaced
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.class_folders import split_folders
from wisepatch.datasets.published.readers import gone, open_listed, open_torchvision, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.errors import DataError, MissingDataError

CARS_SOURCE = "https://github.com/pytorch/vision/issues/7545"
CARS_FILES = {
    "train": ("cars_train", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"),
    "test": ("cars_test", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat"),
}
CARS_FOLDERS = ("stanford_cars", "Cars", "StanfordCars")
CARS_LAYOUTS = (
    "stanford_cars/{cars_train/*.jpg,cars_test/*.jpg,cars_test_annos_withlabels.mat,devkit/*.mat}",
    *(f"{folder}/{{train/*/*.jpg,test/*/*.jpg}}" for folder in CARS_FOLDERS),
)
CARS_ARCHIVES = (
    Archive("car_devkit.tgz", ("stanford_cars",), ("devkit/cars_meta.mat",)),
    Archive("cars_train.tgz", ("stanford_cars",), ("cars_train",), "train"),
    Archive("cars_test.tgz", ("stanford_cars",), ("cars_test",), "test"),
)
FOOD_FOLDERS = ("food-101", "Food101", "food101")
FOOD_LAYOUTS = (
    "food-101/{images/*/*.jpg,meta/train.json,meta/test.json}",
    *(f"{folder}/{{train/*/*.jpg,test/*/*.jpg}}" for folder in FOOD_FOLDERS),
)
FOOD_ARCHIVES = (Archive("food-101.tar.gz", gives=("food-101/meta",)),)
FOOD_SOURCE = "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"
FOOD_GIGABYTES = 5


def _open_cars(split: str, root: Path, transform: Transform | None) -> Samples:
    from scipy.io.matlab import MatReadError

    places = [root / folder for folder in CARS_FOLDERS]
    if samples := split_folders(places, names("Cars"), names("Cars"), split, transform):
        return samples
    folder = root / "stanford_cars"
    absent = [path for path in CARS_FILES[split] if not (folder / path).exists()]
    if absent:
        hint = gone("Cars", "tanganke/stanford_cars", f"those named in {CARS_SOURCE}", root, CARS_LAYOUTS[:2])
        raise MissingDataError(f"there is no stanford_cars/{absent[0]}", hint)
    try:
        cars: Any = open_torchvision("StanfordCars", split, root)
    except MatReadError as error:
        raise DataError(f"its .mat files below {root} cannot be read: {error}") from error
    _check_classes("Cars", cars, folder / "devkit" / "cars_meta.mat")
    return open_listed([(path, int(label)) for path, label in cars._samples], transform)


def _open_food(split: str, root: Path, transform: Transform | None) -> Samples:
    places = [root / folder for folder in FOOD_FOLDERS]
    if samples := split_folders(places, names("Food101"), names("Food101"), split, transform):
        return samples
    food: Any = open_torchvision("Food101", split, root, gigabytes=FOOD_GIGABYTES)
    _check_classes("Food101", food, root / "food-101" / "meta" / f"{split}.json")
    return open_listed(list(zip(food._image_files, food._labels, strict=True)), transform)


def _check_classes(task: str, samples: Any, path: Path) -> None:
    if tuple(samples.classes) != names(task):
        raise DataError(f"{path} does not name the published classes")


def datasets() -> list[Dataset]:
    """List Cars (196 models) and Food101 (101 dishes)."""
    return [
        published(
            "Cars", names("Cars"), _open_cars, source=CARS_SOURCE, aliases=("StanfordCars",), layouts=CARS_LAYOUTS,
            archives=CARS_ARCHIVES, counts={"train": 8144, "test": 8041}, gigabytes=2,
        ),
        published(
            "Food101", spaced(names("Food101")), _open_food, source=FOOD_SOURCE, counts={"train": 75750, "test": 25250},
            layouts=FOOD_LAYOUTS, archives=FOOD_ARCHIVES, gigabytes=FOOD_GIGABYTES, downloads=True,
        ),
    ]  # fmt: skip
