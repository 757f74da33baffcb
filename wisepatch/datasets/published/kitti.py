"""KITTI (Geiger et al. 2012): how far away is the nearest vehicle? Labels and splits as in VTAB and the code of PAINT."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.readers import check_present, fetch, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.datasets.splits import SPLITS
from wisepatch.errors import DataError, MissingDataError

SOURCE = "https://www.cvlibs.net/datasets/kitti/eval_object.php?obj_benchmark=2d"
ARCHIVES = "https://s3.eu-central-1.amazonaws.com/avg-kitti/"
GIGABYTES = 12.6
CLASSES = (
    "a photo i took of a car on my left or right side.",
    "a photo i took with a car nearby.",
    "a photo i took with a car in the distance.",
    "a photo i took with no car.",
)
VEHICLES = frozenset({"Car", "Van", "Truck"})
BEYOND = (8.0, 20.0, 999.0)  # metres; nearer than none of them is class 0, no vehicle is as far as can be
FOLDERS = ("Kitti/raw", "kitti/raw")  # torchvision's and the papers'
IMAGES, LABELS = "training/image_2", "training/label_2"
DEVKITS = ("devkit_object.zip", "mapping/train_rand.txt", "devkit_object/mapping/train_rand.txt")
PLACES = {"data_object_image_2.zip": (IMAGES,), "data_object_label_2.zip": (LABELS,), "devkit_object.zip": DEVKITS}


def distance_class(metres: float) -> int:
    """Return the class of the nearest vehicle's distance; infinity is no vehicle. A distance of 8 or 20 m is the nearer class."""
    return sum(metres > limit for limit in BEYOND)


def split_by_video(videos: Sequence[str]) -> dict[str, list[int]]:
    """Return the images of each split, by the video that each comes from: no video is in two of them (VTAB, as TFDS has it).

    A tenth of the videos is drawn for ``test``, then as many for ``val``, at least one each, with seed 123.
    """
    import numpy as np

    every = sorted(set(videos))
    size = max(1, len(every) // 10)
    random = np.random.RandomState(123)  # the legacy generator, whose draws never change
    test = set(random.choice(every, size, replace=False).tolist())
    val = set(random.choice(sorted(set(every) - test), size, replace=False).tolist())
    split_of = dict.fromkeys(every, "train") | dict.fromkeys(test, "test") | dict.fromkeys(val, "val")
    return {split: [i for i, video in enumerate(videos) if split_of[video] == split] for split in SPLITS}


def _open(split: str, root: Path, transform: Transform | None) -> Samples:
    raw = _whole(root)
    ids = [f"{number:06d}" for number in split_by_video(_videos(raw))[split]]
    images, labels = (
        [raw / below / f"{i}{suffix}" for i in ids] for below, suffix in ((IMAGES, ".png"), (LABELS, ".txt"))
    )
    for paths, archive in ((images, "data_object_image_2.zip"), (labels, "data_object_label_2.zip")):
        check_present(paths, f"unpack {archive} ({SOURCE}) again in {raw}", "files")
    classes = [distance_class(_nearest(path)) for path in labels]
    return FileSamples(list(zip(images, classes, strict=True)), transform)


def _whole(root: Path) -> Path:
    """Return the folder ``raw`` with images, labels and devkit; missing ones are fetched where that was asked for."""
    raw = min((root / below for below in FOLDERS), key=lambda folder: len(_absent(folder)))
    absent = _absent(raw)
    hint = f"fetch {', '.join(absent)} from {SOURCE} and unpack there"
    for archive in absent:
        from torchvision.datasets.utils import download_and_extract_archive

        download = partial(download_and_extract_archive, ARCHIVES + archive, str(raw), filename=archive)
        reason = f"{raw} has no {PLACES[archive][0]}: {archive} is missing"
        fetch(download, reason, hint=hint, gigabytes=GIGABYTES)
    if still := _absent(raw):
        raise MissingDataError(f"{', '.join(still)} was fetched into {raw} and does not hold what it should", hint)
    return raw


def _absent(raw: Path) -> list[str]:
    return [archive for archive, places in PLACES.items() if not any((raw / place).exists() for place in places)]


def _videos(raw: Path) -> list[str]:
    """Return the video of each image, from the devkit: the i-th number of ``train_rand.txt`` is a line of ``train_mapping.txt``."""
    devkit = next(raw / place for place in DEVKITS if (raw / place).exists())
    devkit = devkit if devkit.suffix == ".zip" else devkit.parent
    hint = f"fetch devkit_object.zip from {SOURCE} again and put it into {raw}"
    try:
        mapping = zipfile.Path(devkit, "mapping/") if devkit.suffix == ".zip" else devkit
        order, lines = ((mapping / f"train_{kind}.txt").read_text(encoding="utf-8") for kind in ("rand", "mapping"))
        videos = dict(enumerate((line.split()[1] for line in lines.splitlines() if line.strip()), 1))
        video_of = [videos[int(number)] for number in order.split(",")]
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise DataError(f"the mapping of images to videos in {devkit} cannot be read: {error}", hint) from error
    if len(set(video_of)) < 3:
        raise DataError(f"{devkit} names fewer than three videos, too few for three splits", hint)
    return video_of


def _nearest(path: Path) -> float:
    """Return the distance (z, in metres) of the nearest vehicle in a label file, infinity where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"label file {path} cannot be read: {error}") from error
    nearest = math.inf
    for number, fields in enumerate(map(str.split, lines), 1):
        if not fields:
            continue
        try:
            distance = float(fields[13])
        except (IndexError, ValueError):
            distance = math.nan
        if not math.isfinite(distance):
            hint = f"the 14th of a line's 15 fields is the distance; fetch data_object_label_2.zip from {SOURCE} again"
            raise DataError(f"label file {path}, line {number}, is not one of KITTI's: {' '.join(fields)[:60]!r}", hint)
        if fields[0] in VEHICLES:
            nearest = min(nearest, distance)
    return nearest


def datasets() -> list[Dataset]:
    """List KITTI, with the sentences of CLIP's authors as class names."""
    layouts = tuple(f"{folder}/{{{IMAGES}/*.png,{LABELS}/*.txt,{devkit}}}" for devkit in DEVKITS for folder in FOLDERS)
    return [
        published(
            "KITTI", CLASSES, _open, splits=SPLITS, family="traffic", source=SOURCE, licence="CC BY-NC-SA 3.0",
            counts={"train": 6347, "val": 423, "test": 711}, layouts=layouts, gigabytes=GIGABYTES, downloads=True,
            archives=[Archive(name, FOLDERS, places) for name, places in PLACES.items()],
        )
    ]  # fmt: skip
