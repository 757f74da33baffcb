"""ImageNet (Russakovsky et al. 2015) and its few-shot sets, in the folders that torchvision and the papers' code make of it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from wisepatch.datasets.base import Dataset, cut_validation
from wisepatch.datasets.folder import FileSamples
from wisepatch.datasets.names import names, zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import missing, open_folders
from wisepatch.errors import DataError
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

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


def open_imagenet(task: str, split: str, root: Path, transform: Transform | None = None) -> FileSamples:
    """The images of ImageNet's ``train``, or of its 50,000 validation images as ``test``, in the order of class and name.

    Raises :class:`DataError` for data that is missing, and for test images that are not sorted into class folders.
    """
    folder = next((root / name for name in FOLDERS[split] if (root / name).is_dir()), None)
    if folder is None:
        what = "training" if split == "train" else "test"
        raise missing(task, root, FILES[split], SOURCE, f"there is no folder of {what} images")
    with os.scandir(folder) as entries:  # ends at the first image: the publisher's archive of test images is flat
        flat = any(entry.name.endswith(".JPEG") for entry in entries)
    if flat:
        raise DataError(f"{task}: the images in {folder} are not in class folders", SORTED)
    hint = f"its folders are named as ImageNet's classes: n01440764, ...; fetch it from {SOURCE}"
    return open_folders(task, folder, names("ImageNet folders"), transform, hint=hint)


def open_shots(shots: int, split: str, root: Path, transform: Transform | None = None) -> Samples:
    """``shots`` training images of each class as ``train``; ``val`` and ``test`` are ImageNet's own.

    The images are drawn from what is left of ``train`` when ``val`` is cut from it, so that the two stay disjoint. Each class
    has its own generator, seed (0, class), and the first images of its permutation are taken: fewer shots are among more.
    The code of WiSE-FT draws anew in every run. Raises :class:`DataError` for a class that has too few images.
    """
    import numpy as np

    task = f"ImageNet{shots}"
    samples = open_imagenet(task, "test" if split == "test" else "train", root, transform)
    if split == "test":
        return samples
    kept = cut_validation(samples, split).indices
    if split == "val":
        return FileSamples([samples.files[i] for i in kept], transform)
    members: list[list[int]] = [[] for _ in names("ImageNet")]
    for index in sorted(kept):
        members[samples.files[index][1]].append(index)
    chosen = []
    for label, mine in enumerate(members):
        if len(mine) < shots:
            raise DataError(
                f"{task}: class {names('ImageNet folders')[label]} has {len(mine)} images to draw {shots} from",
                f"complete ImageNet's training images from {SOURCE}",
            )
        order = np.random.default_rng([0, label]).permutation(len(mine))
        chosen += [mine[i] for i in order[:shots]]
    return FileSamples([samples.files[i] for i in chosen], transform)


def open_val_classes(
    task: str, label_map: Sequence[Sequence[int]], split: str, root: Path, transform: Transform | None = None
) -> FileSamples:
    """ImageNet's test images of the classes in ``merges``; the label is the place of theirs in it."""
    label = {index: place for place, merged in enumerate(label_map) for index in merged}
    samples = open_imagenet(task, split, root, transform)
    files = [(path, label[index]) for path, index in samples.files if index in label]
    if not files:
        raise missing(task, root, FILES["test"], SOURCE, "it has none of this task's classes")
    return FileSamples(files, transform)


def val_classes(name: str, classes: Sequence[str], label_map: Sequence[Sequence[int]]) -> Dataset:
    """ImageNet's test images of the classes that a shift has: what the code of WiSE-FT compares it with."""
    merged = tuple(tuple(indices) for indices in label_map)
    return Dataset(
        name, tuple(classes), partial(open_val_classes, name, merged), TEMPLATES["ImageNet"], splits=("test",),
        family="ImageNet", source=SOURCE, head_classes=names("ImageNet"), label_map=merged, layouts=FILES["test"],
        counts={"test": 50 * sum(map(len, label_map))}, gigabytes=TEST_GIGABYTES,
    )  # fmt: skip


@hookimpl
def register_datasets() -> list[Dataset]:
    """ImageNet with open_clip's class names, and ImageNet1 to ImageNet600 with so many training images a class."""
    whole = Dataset(
        "ImageNet", names("ImageNet"), partial(open_imagenet, "ImageNet"), TEMPLATES["ImageNet"], family="ImageNet",
        source=SOURCE, counts=COUNTS, layouts=LAYOUTS, gigabytes=TRAIN_GIGABYTES + TEST_GIGABYTES,
        zeroshot=zeroshot_accuracies("ImageNet"),
    )  # fmt: skip
    return [whole] + [
        Dataset(
            f"ImageNet{shots}", whole.classes, partial(open_shots, shots), whole.templates, family="ImageNet",
            splits=("train", "val", "test"), counts={"train": 1000 * shots, "val": 5000, "test": COUNTS["test"]},
            source=SOURCE, layouts=LAYOUTS, gigabytes=whole.gigabytes, zeroshot=whole.zeroshot,
        )
        for shots in SHOTS
    ]  # fmt: skip
