"""MNIST and Fashion-MNIST, in the IDX files of their publishers (``<data>/MNIST/raw``, ``<data>/FashionMNIST/raw``)."""

from __future__ import annotations

from functools import partial

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.published.readers import open_torchvision, published

CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SOURCES = {
    "MNIST": "http://yann.lecun.com/exdb/mnist/",
    "FashionMNIST": "https://github.com/zalandoresearch/fashion-mnist",
}
FILES = "{train-images-idx3-ubyte,train-labels-idx1-ubyte,t10k-images-idx3-ubyte,t10k-labels-idx1-ubyte}"


def datasets() -> list[Dataset]:
    """List MNIST and FashionMNIST."""
    return [
        published(
            name, classes, partial(open_torchvision, name), family="MNIST", source=SOURCES[name],
            counts={"train": 60000, "test": 10000}, layouts=(f"{name}/raw/{FILES}",), licence=licence,
            gigabytes=gigabytes, downloads=True,
        )
        for name, classes, licence, gigabytes in (("MNIST", "0123456789", "", 0.01), ("FashionMNIST", CLOTHES, "MIT", 0.03))
    ]  # fmt: skip
