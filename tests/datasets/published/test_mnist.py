"""MNIST and FashionMNIST in their publishers' formats."""

import numpy as np

from tests.datasets.published.layouts import task
from tests.samples import write_idx, write_mnist
from wisepatch.datasets.published import mnist


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
    assert split.classes == mnist.CLOTHES
