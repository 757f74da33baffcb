"""Helpers of the tests of published datasets: small images, class folders, and what is checked of every task."""

import io
import json
from functools import partial
from pathlib import Path

from PIL import Image

from wisepatch.datasets.guarding import Guarded
from wisepatch.datasets.names import names
from wisepatch.datasets.samples import Subset, labels_of
from wisepatch.tasks import find_task

BENCHMARKS = json.loads((Path(__file__).parents[2] / "data" / "benchmarks.json").read_text())
FOLDERS = names("ImageNet folders")
SHIFTS = ["ImageNetV2", "ImageNetSketch", "ImageNetR", "ImageNetA", "ObjectNet", "ImageNetVidRobust", "YTBBRobust"]
RESTRICTED = SHIFTS[2:]
VAL_CLASSES = [f"{name}ValClasses" for name in RESTRICTED]


def task(name):
    return find_task(name).dataset


def picture(path, red=0, mode="RGB"):
    """A small image whose first pixel says ``red``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (8, 8), (red, 0, 0)).convert(mode)
    image.save(path, "PNG" if path.suffix == ".png" else "JPEG", **({} if path.suffix == ".png" else {"quality": 100}))
    return path


def save(path, size=(12, 8), color=(200, 10, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def classes_of(split):
    return [split.classes[split[i][1]] for i in range(len(split))]


def places(split):
    """The files of a split, below the data folder."""
    samples, indices = split.samples, range(len(split))
    while not hasattr(samples, "files") or isinstance(samples, Guarded):
        indices = [samples.indices[i] for i in indices] if isinstance(samples, Subset) else indices
        samples = samples.samples
    return [str(samples.files[i][0]) for i in indices]


def opened_as(name, image):
    """A transform that tells which split it was given to."""
    return name, image.mode


def check_splits(dataset, data):
    """Open all splits: they are disjoint, know their labels unread, and give the images the transform they are opened with."""
    splits = {name: dataset.split(name, data, partial(opened_as, name)) for name in dataset.available_splits}
    every = [path for split in splits.values() for path in places(split)]
    assert len(set(every)) == len(every)
    for name, split in splits.items():
        assert labels_of(split.samples) == [split[i][1] for i in range(len(split))]
        assert {split[i][0] for i in range(len(split))} == {(name, "RGB")}
        assert split.fingerprint() == split.fingerprint()
    return splits


def write_folders(root, sizes):
    """Class folders below split folders: ``{split: {class: images}}``."""
    for split, classes in sizes.items():
        for name, size in classes.items():
            for index in range(size):
                picture(root / split / name / f"{name}_{split}{index}.jpg")


def encoded(kind="JPEG", size=(8, 6), color="red"):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


def write_images(folder, files, content=None):
    """The same small image under each of the names ``files`` below ``folder``."""
    content = content or encoded()
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
