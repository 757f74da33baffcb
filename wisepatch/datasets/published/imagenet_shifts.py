"""Distribution shifts of ImageNet: other images of its classes, to test on alone (WiSE-FT, section 3)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.folder import FileSamples
from wisepatch.datasets.names import names, zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.imagenet import val_classes
from wisepatch.datasets.published.readers import missing, open_folders
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wisepatch.datasets.base import Transform

BORDER = 2  # pixels; ObjectNet's images have a red frame
SOURCES = {
    "ImageNetV2": "https://github.com/modestyachts/ImageNetV2",
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
GIGABYTES = {"ImageNetV2": 1.3, "ImageNetSketch": 7.6, "ImageNetR": 2.2, "ImageNetA": 0.7}


class Cropped:
    """Cut ObjectNet's frame off, then transform. A class, so that workers can be spawned."""

    def __init__(self, transform: Transform | None) -> None:
        """Keep the transform that follows; ``None`` gives the cropped image."""
        self.transform = transform

    def __call__(self, image: Any) -> Any:
        """Crop and transform one PIL image."""
        width, height = image.size
        image = image.crop((BORDER, BORDER, width - BORDER, height - BORDER))
        return self.transform(image) if self.transform else image


def _folder(task: str, root: Path) -> Path:
    """The folder of class folders. Raises :class:`DataError` where it is not there."""
    places = [root / layout.split("/*")[0] for layout in LAYOUTS[task]]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise missing(task, root, LAYOUTS[task], SOURCES[task])
    return found


def _open(task: str, folders: Sequence[str], split: str, root: Path, transform: Transform | None = None) -> FileSamples:
    hint = f"its folders are named {folders[0]}, {folders[1]}, ...; fetch it again from {SOURCES[task]}"
    return open_folders(task, _folder(task, root), folders, transform, hint=hint)


def _open_objectnet(folders: Sequence[str], split: str, root: Path, transform: Transform | None = None) -> FileSamples:
    """The images of 113 of its 313 folders: those whose classes ImageNet has."""
    images = _folder("ObjectNet", root)
    files = [(path, label) for label, folder in enumerate(folders) for path in sorted((images / folder).glob("*.png"))]
    if not files:
        reason = "it has none of the classes that ImageNet has"
        raise missing("ObjectNet", root, LAYOUTS["ObjectNet"], SOURCES["ObjectNet"], reason)
    return FileSamples(files, Cropped(transform))


def _whole(name: str, folders: Sequence[str]) -> Dataset:
    return Dataset(
        name, names("ImageNet"), partial(_open, name, folders), TEMPLATES["ImageNet"], splits=("test",),
        family="ImageNet", source=SOURCES[name], counts={"test": COUNTS[name]}, layouts=LAYOUTS[name],
        gigabytes=GIGABYTES[name], zeroshot=zeroshot_accuracies(name),
    )  # fmt: skip


def _part(name: str) -> list[Dataset]:
    """A shift that has 200 of ImageNet's classes, and ImageNet's own images of these."""
    indices = names(f"{name} indices")
    classes, folders = (tuple(names(key)[i] for i in indices) for key in ("ImageNet", "ImageNet folders"))
    label_map = tuple((index,) for index in indices)
    shift = Dataset(
        name, classes, partial(_open, name, folders), TEMPLATES["ImageNet"], splits=("test",), family="ImageNet",
        source=SOURCES[name], counts={"test": COUNTS[name]}, head_classes=names("ImageNet"), label_map=label_map,
        layouts=LAYOUTS[name], gigabytes=GIGABYTES[name], zeroshot=zeroshot_accuracies(name),
    )  # fmt: skip
    return [shift, val_classes(f"{name}ValClasses", classes, label_map)]


def _objectnet() -> list[Dataset]:
    """ObjectNet's 113 classes in the order of their folders' names; some stand for several of ImageNet's."""
    folders = tuple(sorted(names("ObjectNet")))
    classes = tuple(names("ObjectNet")[folder]["name"].lower() for folder in folders)
    label_map = tuple(tuple(names("ObjectNet")[folder]["imagenet"]) for folder in folders)
    shift = Dataset(
        "ObjectNet", classes, partial(_open_objectnet, folders), TEMPLATES["ImageNet"], splits=("test",),
        family="ImageNet", source=SOURCES["ObjectNet"], head_classes=names("ImageNet"), label_map=label_map,
        layouts=LAYOUTS["ObjectNet"], zeroshot=zeroshot_accuracies("ObjectNet"),
    )  # fmt: skip
    return [shift, val_classes("ObjectNetValClasses", classes, label_map)]


@hookimpl
def register_datasets() -> list[Dataset]:
    """ImageNetV2, ImageNetSketch, ImageNetR, ImageNetA and ObjectNet, and ImageNet's images of the latter three's classes."""
    return [
        _whole("ImageNetV2", tuple(str(index) for index in range(1000))),
        _whole("ImageNetSketch", names("ImageNet folders")),
        *_part("ImageNetR"),
        *_part("ImageNetA"),
        *_objectnet(),
    ]
