"""ImageNet (Russakovsky et al. 2015) and its few-shot sets, in the folders that torchvision and the papers' code make of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.folder_or_csv import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import MissingDataError, explained, first_folder, published, read_folders
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.datasets.splits import SPLITS, cut_validation
from wisepatch.errors import DataError

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
SORTED = (
    "sort the 50,000 images into one folder a class (n01440764, ...): torchvision.datasets.ImageNet does so, given"
    " ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz"
)


def open_imagenet(split: str, root: Path, transform: Transform | None) -> FileSamples:
    """Open the images of ImageNet's ``train``, or of its 50,000 validation images as ``test``, in the order of class and name.

    Raises :class:`DataError` for data that is missing, and for test images that are not sorted into class folders.
    """
    reason = f"there is no folder of {'training' if split == 'train' else 'test'} images"
    folder = first_folder(root, FOLDERS[split], reason)
    with os.scandir(folder) as entries:  # ends at the first image: the publisher's archive of test images is flat
        flat = any(entry.name.endswith(".JPEG") for entry in entries)
    if flat:
        raise DataError(f"the images in {folder} are not in class folders", SORTED)
    return read_folders(folder, names("ImageNet folders"), transform)


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
            problem = f"class {names('ImageNet folders')[label]} has {len(mine)} images to draw {shots} from"
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
    shared = {
        "templates": TEMPLATES["ImageNet"], "splits": ("test",), "family": "ImageNet",
        "label_map": tuple(map(tuple, label_map)), "head_classes": names("ImageNet") if label_map else (),
    }  # fmt: skip
    shifted = published(name, classes, open, **shared, **fields)
    if not label_map:
        return [shifted]
    val_name = f"{name}ValClasses"
    val_classes = published(
        val_name, classes, partial(open_val_classes, label_map), **shared, source=SOURCE, layouts=FILES["test"],
        counts={"test": 50 * sum(map(len, label_map))}, gigabytes=TEST_GIGABYTES,
    )  # fmt: skip
    return [shifted, val_classes]


def datasets() -> list[Dataset]:
    """List ImageNet with open_clip's class names, and ImageNet1 to ImageNet600 with so many training images a class."""
    whole = published(
        "ImageNet", names("ImageNet"), open_imagenet, source=SOURCE, counts=COUNTS, layouts=LAYOUTS,
        gigabytes=TRAIN_GIGABYTES + TEST_GIGABYTES,
    )  # fmt: skip
    few_shot = [
        explained(replace(
            whole, name=f"ImageNet{shots}", open=partial(open_shots, shots), splits=SPLITS,
            counts={"train": 1000 * shots, "val": 5000, "test": COUNTS["test"]},
        ))
        for shots in SHOTS
    ]  # fmt: skip
    return [whole, *few_shot]
