"""Small data in the real on-disk formats, made by the tests themselves."""

import struct
from dataclasses import replace

import numpy as np
from PIL import Image

from wisepatch.datasets.drawn_shapes import SHAPES, Scene, draw, generator
from wisepatch.store.checkpoints import Recipe
from wisepatch.tasks import Task


def draw_folder(root, per_class=6, classes=SHAPES[:3]):
    """A folder of class folders with drawn shapes."""
    for number, shape in enumerate(classes):
        (root / shape).mkdir(parents=True)
        for index in range(per_class):
            draw(Scene("plain", shape, "red"), generator("Shapes", 9, number, index)).save(
                root / shape / f"{index}.png"
            )
    return root


def write_idx(folder, images, labels, kind):
    """MNIST's own file format, uncompressed, as torchvision keeps it."""
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">IIII", 0x803, len(images), *images.shape[1:])
    (folder / f"{kind}-images-idx3-ubyte").write_bytes(header + images.tobytes())
    (folder / f"{kind}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(labels)) + labels.tobytes())


def write_mnist(data, train=40, test=20, name="MNIST"):
    """A tiny MNIST: image i shows i % 10 white rows."""
    for kind, size in (("train", train), ("t10k", test)):
        labels = (np.arange(size) % 10).astype(np.uint8)
        images = np.zeros((size, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[: int(label) + 1] = 255
        write_idx(data / name / "raw", images, labels, kind)
    return data


def broken_png(path):
    """A file that begins as a PNG and ends too soon."""
    Image.new("RGB", (32, 32), "red").save(path)
    path.write_bytes(path.read_bytes()[:40])


def with_head_of(parent):
    """A task with the head of ``parent``: three classes, of which the second stands for two of its own, the last for none."""
    names = parent.dataset.classes
    halves = replace(
        parent.dataset, name="halves", classes=("a", "b", "c"), head_classes=names, label_map=((0,), (1, 2), ()), metric="top1"
    )  # fmt: skip
    return Task("halves", halves)


def recipes(store, alphas, parents=None, method="linear", **params):
    """A recipe at each alpha between two checkpoints of a store, as a sweep makes them but for its ends."""
    start, end = parents or (store.find("zeroshot"), store.find("finetuned"))
    return [
        store.save(
            None, kind="interpolated", name=f"alpha={alpha}", model=end.model, training=end.training, head=end.head,
            recipe=Recipe(method, (start.id, end.id), {"alpha": alpha, **params}),
        )
        for alpha in alphas
    ]  # fmt: skip


class Notes:
    """Progress that keeps all that it is told."""

    def __init__(self):
        self.notes, self.stages, self.steps, self.total = [], [], [], 0

    def start(self, what, total):
        self.stages.append(what)
        self.total += total

    def advance(self, steps=1, detail=""):
        self.steps.append(steps)

    def finish(self):
        pass

    def note(self, text):
        self.notes.append(text)
