"""STL-10 in its publisher's format."""

import hashlib

import numpy as np

from tests.datasets.published.layouts import (
    task,
)


def test_stl10_is_read_from_its_binaries(data, monkeypatch):
    from torchvision import datasets

    below = data / "stl10_binary"
    below.mkdir()
    names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    (below / "class_names.txt").write_text("\n".join(names))
    for which, size in (("train", 10), ("test", 5)):
        np.arange(1, size + 1).astype(np.uint8).tofile(below / f"{which}_y.bin")
        pixels = np.zeros((size, 3, 96, 96), np.uint8)
        pixels[:, 0] = 9
        pixels.tofile(below / f"{which}_X.bin")
        listed = [
            [file, hashlib.md5((below / file).read_bytes()).hexdigest() if (below / file).exists() else md5]
            for file, md5 in getattr(datasets.STL10, f"{which}_list")
        ]
        monkeypatch.setattr(datasets.STL10, f"{which}_list", [f for f in listed if (below / f[0]).exists()])
    split = task("STL10").split("test", data)
    assert (len(split), split.classes) == (5, names)
    image, label = split[2]
    assert (image.size, image.getpixel((5, 5)), label) == ((96, 96), (9, 0, 0), 2)
