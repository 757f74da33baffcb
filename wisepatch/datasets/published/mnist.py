"""MNIST and Fashion-MNIST, in the IDX files of their publishers (``<data>/MNIST/raw``, ``<data>/FashionMNIST/raw``)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import open_torchvision
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SOURCES = {
    "MNIST": "http://yann.lecun.com/exdb/mnist/",
    "FashionMNIST": "https://github.com/zalandoresearch/fashion-mnist",
}
FILES = "{train-images-idx3-ubyte,train-labels-idx1-ubyte,t10k-images-idx3-ubyte,t10k-labels-idx1-ubyte}"


def _open(name: str, split: str, root: Path, transform: Transform | None = None) -> Samples:
    return open_torchvision(name, name, root, transform, SOURCES[name], train=split == "train")


@hookimpl
def register_datasets() -> list[Dataset]:
    """MNIST and FashionMNIST."""
    return [
        Dataset(
            name, classes, partial(_open, name), TEMPLATES[name], family="MNIST", source=SOURCES[name],
            counts={"train": 60000, "test": 10000}, layouts=(f"{name}/raw/{FILES}",), licence=licence,
            gigabytes=gigabytes, downloads=True, zeroshot=zeroshot_accuracies(name),
        )
        for name, classes, licence, gigabytes in (("MNIST", DIGITS, "", 0.01), ("FashionMNIST", CLOTHES, "MIT", 0.03))
    ]  # fmt: skip
