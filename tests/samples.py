"""Small data in the real on-disk formats, made by the tests themselves."""

import struct

import numpy as np
from PIL import Image

from wisepatch.datasets.drawn_shapes import SHAPES, Scene, draw, generator


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


def fails(result, code, message, hint=""):
    """Check a user error: exit code, one line of error, the hint, no traceback, nothing on stdout."""
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("error: ") or "\nerror: " in result.stderr
    assert message in result.stderr
    assert hint in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


class Notes:
    """Progress that keeps what it is told: the texts of notes, and of each stage its name, total and steps done."""

    def __init__(self):
        self.texts, self.stages = [], []

    def start(self, what, total):
        self.stages.append([what, total, 0])

    def advance(self, steps=1, detail=""):
        if self.stages:
            self.stages[-1][2] += steps

    def finish(self):
        pass

    def note(self, text):
        self.texts.append(text)
