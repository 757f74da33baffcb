"""MNIST, FashionMNIST, SVHN and STL-10 in their publishers' formats."""

import hashlib
import io

import numpy as np
import pytest

from tests.datasets.published.layouts import task
from tests.samples import write_idx, write_mnist
from wisepatch.datasets.published.mnist_svhn_stl10 import CLOTHES


def test_mnist_is_read_from_its_idx_files(data):
    write_mnist(data, train=40, test=20)
    dataset = task("mnist")
    assert dataset.classes == tuple("0123456789")
    sizes = {split: len(dataset.split(split, data)) for split in ("train", "val", "test")}
    assert sizes == {"train": 36, "val": 4, "test": 20}
    image, label = dataset.split("test", data)[7]
    assert (image.mode, label) == ("RGB", 7)
    assert (np.asarray(image).max((1, 2)) > 0).sum() == 8


def test_fashion_mnist_has_its_own_files_and_names(data):
    write_idx(data / "FashionMNIST" / "raw", np.zeros((3, 28, 28), np.uint8), np.array([0, 9, 2], np.uint8), "t10k")
    write_idx(data / "FashionMNIST" / "raw", np.zeros((9, 28, 28), np.uint8), np.zeros(9, np.uint8), "train")
    split = task("FashionMNIST").split("test", data)
    assert [split.classes[split[i][1]] for i in range(3)] == ["T-shirt/top", "Ankle boot", "Pullover"]
    assert split.classes == CLOTHES


@pytest.mark.parametrize("below", ["", "svhn"])
def test_svhn_is_read_from_its_mat_files(data, monkeypatch, below):
    import scipy.io
    from torchvision import datasets

    (data / below).mkdir(exist_ok=True)
    for which, size in (("train", 20), ("test", 11)):
        labels = np.array([i % 10 or 10 for i in range(size)])[:, None]  # the publisher writes 10 for the digit 0
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"X": np.full((32, 32, 3, size), 7, np.uint8), "y": labels})
        url, file, _ = datasets.SVHN.split_list[which]
        (data / below / file).write_bytes(buffer.getvalue())
        digest = hashlib.md5(buffer.getvalue()).hexdigest()
        monkeypatch.setitem(datasets.SVHN.split_list, which, [url, file, digest])
    split = task("SVHN").split("test", data)
    assert [split[i][1] for i in range(11)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert len(task("SVHN").split("val", data)) == 2


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
