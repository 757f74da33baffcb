"""ImageNet (Russakovsky et al. 2015) and its few-shot sets, in the folders that torchvision and the papers' code make of it.

Test images that lie in one folder, as in the publisher's archive, get their labels from the devkit or the table of Kaggle's copy.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.archives import Archive, unpack_all
from wisepatch.datasets.published.class_folders import read_folders
from wisepatch.datasets.published.readers import explained, first_folder, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.datasets.splits import SPLITS, cut_validation
from wisepatch.errors import DataError, MissingDataError

SOURCE = "https://image-net.org/download-images.php"
FOLDERS = {
    "train": ("imagenet/train", "ILSVRC/Data/CLS-LOC/train"),
    "test": ("imagenet/val_in_folder", "imagenet/val", "ILSVRC/Data/CLS-LOC/val"),
}
FILES = {split: tuple(f"{folder}/*/*.JPEG" for folder in folders) for split, folders in FOLDERS.items()}
LAYOUTS = tuple(f"{{{train},{test}}}" for train in FILES["train"] for test in FILES["test"])
COUNTS = {"train": 1_281_167, "test": 50_000}
SHOTS = (1, 2, 4, 8, 16, 25, 32, 50, 64, 128, 600)
TRAIN_GIGABYTES, TEST_GIGABYTES = 147.9, 6.7
DEVKIT, TRUTH = "ILSVRC2012_devkit_t12", "data/ILSVRC2012_validation_ground_truth.txt"
TABLE = "LOC_val_solution.csv"  # ImageId,PredictionString: ILSVRC2012_val_00048981,n03995372 85 1 499 272
UNSORTED = (
    f"put {DEVKIT}.tar.gz (from {SOURCE}) beside the folder, or Kaggle's {TABLE};"
    " or sort the images into one folder a class (n01440764, ...)"
)
ARCHIVES = (
    Archive("ILSVRC2012_img_train.tar", FOLDERS["train"], ("n01440764",), "train"),
    Archive(
        "ILSVRC2012_img_val.tar", ("imagenet/val", "imagenet/val_in_folder", "ILSVRC/Data/CLS-LOC/val"),
        ("n01440764", "ILSVRC2012_val_00000001.JPEG"), "test",
    ),
)  # fmt: skip
PACKED_LABELS = Archive(f"{DEVKIT}.tar.gz", ("imagenet", ""), (f"{DEVKIT}/data",))


def open_imagenet(split: str, root: Path, transform: Transform | None) -> FileSamples:
    """Open the images of ImageNet's ``train``, or of its 50,000 validation images as ``test``, in the order of class and name.

    Raises :class:`DataError` for data that is missing, and for test images that lie in one folder without their labels.
    """
    reason = f"there is no folder of {'training' if split == 'train' else 'test'} images"
    folder = first_folder(root, FOLDERS[split], reason)
    with os.scandir(folder) as entries:  # ends at the first image: the publisher's archive of test images is flat
        flat = any(entry.name.endswith(".JPEG") for entry in entries)
    if flat:
        return _open_flat(folder, root, transform)
    return read_folders(folder, names("ImageNet folders"), transform)


def _open_flat(folder: Path, root: Path, transform: Transform | None) -> FileSamples:
    """Open images in one folder, in the order of their classes' and their own names."""
    unpack_all([PACKED_LABELS], "test", root, "ImageNet")
    around = (folder, folder.parent, root / "imagenet", root, root / "ILSVRC")
    sources = [
        (place / name, read) for name, read in ((f"{DEVKIT}/{TRUTH}", _truth), (TABLE, _table)) for place in around
    ]
    found = next(((path, read) for path, read in sources if path.is_file()), None)
    if found is None:
        raise DataError(f"the images in {folder} are not in class folders, and their labels are not there", UNSORTED)
    path, read = found
    label = {wnid: index for index, wnid in enumerate(names("ImageNet folders"))}
    try:
        classes = {name: label[wnid] for name, wnid in read(path).items()}
        images = sorted(each.path for each in os.scandir(folder) if each.name.endswith(".JPEG"))
        files: list[tuple[Path | str, int]] = [(image, classes[Path(image).stem]) for image in images]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} does not give the labels of the images in {folder}: {error!r}", UNSORTED) from error
    return FileSamples(sorted(files, key=itemgetter(1, 0)), transform)


def _truth(path: Path) -> dict[str, str]:
    """Read the folder name of each image from the devkit: line i of a list holds a number, whose row of meta.mat has the name."""
    from scipy.io import loadmat

    synsets = loadmat(path.parent / "meta.mat", squeeze_me=True)["synsets"]
    wnid = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    numbers = path.read_text(encoding="utf-8").split()
    return {f"ILSVRC2012_val_{place:08}": wnid[int(number)] for place, number in enumerate(numbers, 1)}


def _table(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}


def open_shots(shots: int, split: str, root: Path, transform: Transform | None) -> Samples:
    """Open ``shots`` training images of each class as ``train``; ``val`` and ``test`` are ImageNet's own.

    The images are drawn from the rest of ``train`` when ``val`` is cut from it, so that the two stay disjoint. Each class
    has its own generator, seed (0, class), and the first images of its permutation are taken: fewer shots are among more.
    The code of WiSE-FT draws anew in every run. Raises :class:`DataError` for a class that has too few images.
    """
    import numpy as np

    samples = open_imagenet("test" if split == "test" else "train", root, transform)
    if split == "test":
        return samples
    indices = cut_validation(samples, split).indices
    if split == "val":
        return FileSamples([samples.files[i] for i in indices], transform)
    kept = np.sort(indices)
    first_of_next = np.searchsorted(np.array(samples.labels)[kept], np.arange(1, len(names("ImageNet"))))
    drawn: list[int] = []
    for label, mine in enumerate(np.split(kept, first_of_next)):
        if len(mine) < shots:
            problem = f"class {names('ImageNet folders')[label]} has {count(len(mine), 'image')} to draw {shots} from"
            raise DataError(problem, f"complete ImageNet's training images from {SOURCE}")
        drawn += mine[np.random.default_rng([0, label]).permutation(len(mine))[:shots]].tolist()
    return FileSamples([samples.files[i] for i in drawn], transform)


def open_val_classes(
    label_map: Sequence[Sequence[int]], split: str, root: Path, transform: Transform | None
) -> FileSamples:
    """Open ImageNet's test images of the classes in ``label_map``; a label is the place of its row."""
    label = {index: place for place, row in enumerate(label_map) for index in row}
    samples = open_imagenet(split, root, transform)
    files = [(path, label[index]) for path, index in samples.files if index in label]
    if not files:
        raise MissingDataError("it has none of this task's classes")
    return FileSamples(files, transform)


def shift(
    name: str,
    classes: Sequence[str],
    open: Callable[..., Samples],  # noqa: A002
    label_map: Sequence[Sequence[int]] = (),
    **fields: Any,
) -> list[Dataset]:
    """Describe other test images of ImageNet's classes, or of those in ``label_map``, under ImageNet's head.

    With a ``label_map`` come ImageNet's own images of these classes: what the code of WiSE-FT compares the shift with.
    """
    shared: dict[str, Any] = {
        "templates": TEMPLATES["ImageNet"], "splits": ("test",), "family": "ImageNet",
        "label_map": tuple(map(tuple, label_map)), "head_classes": names("ImageNet") if label_map else (),
    }  # fmt: skip
    shifted = published(name, classes, open, **shared, **fields)
    if not label_map:
        return [shifted]
    val_name = f"{name}ValClasses"
    val_classes = published(
        val_name, classes, partial(open_val_classes, label_map), **shared, source=SOURCE, layouts=FILES["test"],
        counts={"test": 50 * sum(map(len, label_map))}, gigabytes=TEST_GIGABYTES, archives=ARCHIVES,
    )  # fmt: skip
    return [shifted, val_classes]


def datasets() -> list[Dataset]:
    """List ImageNet with open_clip's class names, and ImageNet1 to ImageNet600 with so many training images a class."""
    whole = published(
        "ImageNet", names("ImageNet"), open_imagenet, source=SOURCE, counts=COUNTS, layouts=LAYOUTS,
        gigabytes=TRAIN_GIGABYTES + TEST_GIGABYTES, archives=ARCHIVES,
    )  # fmt: skip
    few_shot = [
        explained(replace(
            whole, name=f"ImageNet{shots}", open=partial(open_shots, shots), splits=SPLITS,
            counts={"train": 1000 * shots, "val": 5000, "test": COUNTS["test"]},
        ), ARCHIVES)
        for shots in SHOTS
    ]  # fmt: skip
    return [whole, *few_shot]
