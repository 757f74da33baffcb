"""Distribution shifts of ImageNet: other images of its classes, to test on alone (WiSE-FT, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.class_folders import read_folders
from wisepatch.datasets.published.imagenet import shift
from wisepatch.datasets.published.readers import first_folder
from wisepatch.datasets.samples import Transform
from wisepatch.errors import MissingDataError

FRAME_PIXELS = 2  # wide is the red frame of ObjectNet's images
SOURCES = {
    "ImageNetV2": "https://huggingface.co/datasets/vaishaal/ImageNetV2",
    "ImageNetSketch": "https://github.com/HaohanWang/ImageNet-Sketch",
    "ImageNetR": "https://github.com/hendrycks/imagenet-r",
    "ImageNetA": "https://github.com/hendrycks/natural-adv-examples",
    "ObjectNet": "https://objectnet.dev",
}
LAYOUTS = {
    "ImageNetV2": ("ImageNetV2-matched-frequency/*/*.jpeg", "imagenetv2-matched-frequency-format-val/*/*.jpeg"),
    "ImageNetSketch": ("sketch/*/*.JPEG", "imagenet-sketch/*/*.JPEG"),
    "ImageNetR": ("imagenet-r/*/*.jpg",),
    "ImageNetA": ("imagenet-a/*/*.jpg",),
    "ObjectNet": ("objectnet-1.0/images/*/*.png",),
}
COUNTS = {"ImageNetV2": 10_000, "ImageNetSketch": 50_889, "ImageNetR": 30_000, "ImageNetA": 7500}
ARCHIVES = {
    "ImageNetV2": Archive("imagenetv2-matched-frequency.tar.gz", gives=("imagenetv2-matched-frequency-format-val/0",)),
    "ImageNetSketch": Archive("ImageNet-Sketch.zip", gives=("sketch/n01440764",)),
    "ImageNetR": Archive("imagenet-r.tar", gives=("imagenet-r/n01443537",)),
    "ImageNetA": Archive("imagenet-a.tar", gives=("imagenet-a/n01498041",)),
    "ObjectNet": Archive("objectnet-1.0.zip", gives=("objectnet-1.0/images",)),
}
GIGABYTES = {"ImageNetV2": 1.3, "ImageNetSketch": 7.6, "ImageNetR": 2.2, "ImageNetA": 0.7}


def _without_frame(transform: Transform | None, image: Any) -> Any:
    """Cut off the frame of ObjectNet's images, then transform."""
    width, height = image.size
    image = image.crop((FRAME_PIXELS, FRAME_PIXELS, width - FRAME_PIXELS, height - FRAME_PIXELS))
    return transform(image) if transform else image


def _folder(task: str, root: Path) -> Path:
    return first_folder(root, [layout.split("/*")[0] for layout in LAYOUTS[task]])


def _open(task: str, folders: Sequence[str], split: str, root: Path, transform: Transform | None) -> FileSamples:
    return read_folders(_folder(task, root), folders, transform)


def _open_objectnet(
    task: str, folders: Sequence[str], split: str, root: Path, transform: Transform | None
) -> FileSamples:
    """Open the images of 113 of its 313 folders: those whose classes ImageNet has."""
    images = _folder(task, root)
    files = [(path, label) for label, folder in enumerate(folders) for path in sorted((images / folder).glob("*.png"))]
    if not files:
        raise MissingDataError("it has none of the classes that ImageNet has")
    return FileSamples(files, partial(_without_frame, transform))


def datasets() -> list[Dataset]:
    """List ImageNetV2, ImageNetSketch, ImageNetR, ImageNetA and ObjectNet, and ImageNet's images of the last three's classes.

    ImageNetR and ImageNetA have 200 of ImageNet's classes. ObjectNet has 113, in the order of their folders' names; some stand
    for several of ImageNet's.
    """
    classes, wnids = names("ImageNet"), names("ImageNet folders")
    tasks: list[tuple[str, Sequence[str], Sequence[str], Sequence[Sequence[int]]]] = [
        ("ImageNetV2", classes, [str(index) for index in range(1000)], ()),
        ("ImageNetSketch", classes, wnids, ()),
    ]
    for name in ("ImageNetR", "ImageNetA"):
        indices = names(f"{name} indices")
        tasks.append((name, [classes[i] for i in indices], [wnids[i] for i in indices], [(i,) for i in indices]))
    folders, objects = zip(*sorted(names("ObjectNet").items()), strict=True)
    object_names = [entry["name"].lower() for entry in objects]
    tasks.append(("ObjectNet", object_names, folders, [entry["imagenet"] for entry in objects]))
    return [
        dataset
        for name, classes, folders, label_map in tasks
        for dataset in shift(
            name, classes, partial(_open_objectnet if name == "ObjectNet" else _open, name, folders), label_map,
            source=SOURCES[name], layouts=LAYOUTS[name], archives=(ARCHIVES[name],), gigabytes=GIGABYTES.get(name),
            counts={"test": COUNTS[name]} if name in COUNTS else {},
        )
    ]  # fmt: skip
