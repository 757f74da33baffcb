"""MNIST, Fashion-MNIST, SVHN and STL-10, in the files of their publishers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from wisepatch.datasets.base import Dataset, parts
from wisepatch.datasets.published.readers import open_torchvision, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.errors import DataError

DIGITS = "0123456789"
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
OBJECTS = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
MNIST_FILES = "{train-images-idx3-ubyte,train-labels-idx1-ubyte,t10k-images-idx3-ubyte,t10k-labels-idx1-ubyte}"


def _open_mnist(name: str, split: str, root: Path, transform: Transform | None) -> Samples:
    """Read the publisher's IDX files below ``<data>/<name>/raw``; torchvision fetches those that are missing."""
    from wisepatch.datasets.arrays import Pictures, read_idx

    folder = root / name / "raw"
    if not all((folder / file).is_file() for file in parts(MNIST_FILES)):
        open_torchvision(name, split, root)
    kind = "train" if split == "train" else "t10k"
    path = folder
    try:
        path = folder / f"{kind}-images-idx3-ubyte"
        pixels = read_idx(path)
        path = folder / f"{kind}-labels-idx1-ubyte"
        labels = read_idx(path)
        if pixels.ndim != 3 or labels.shape != (len(pixels),) or 0 in pixels.shape[1:]:
            raise ValueError(f"images of {pixels.shape}, labels {labels.shape}")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not what was published: {error}") from error
    return Pictures(pixels, labels.tolist(), transform)


def _open_svhn(split: str, root: Path, transform: Transform | None) -> Samples:
    folder = root / "svhn" if (root / "svhn").is_dir() else root  # the papers' code keeps it one folder down
    return open_torchvision("SVHN", split, folder, transform)


def datasets() -> list[Dataset]:
    """List MNIST, FashionMNIST, SVHN and STL10."""
    return [
        published(
            "MNIST", DIGITS, partial(_open_mnist, "MNIST"), source="http://yann.lecun.com/exdb/mnist/",
            counts={"train": 60000, "test": 10000}, layouts=(f"MNIST/raw/{MNIST_FILES}",), gigabytes=0.01, downloads=True,
        ),
        published(
            "FashionMNIST", CLOTHES, partial(_open_mnist, "FashionMNIST"), family="MNIST", licence="MIT",
            source="https://github.com/zalandoresearch/fashion-mnist", counts={"train": 60000, "test": 10000},
            layouts=(f"FashionMNIST/raw/{MNIST_FILES}",), gigabytes=0.03, downloads=True,
        ),
        published(
            "SVHN", DIGITS, _open_svhn, source="http://ufldl.stanford.edu/housenumbers/",
            counts={"train": 73257, "test": 26032}, gigabytes=0.25, downloads=True,
            layouts=("svhn/{train_32x32.mat,test_32x32.mat}", "{train_32x32.mat,test_32x32.mat}"),
        ),
        published(
            "STL10", OBJECTS, partial(open_torchvision, "STL10"), source="https://cs.stanford.edu/~acoates/stl10/",
            counts={"train": 5000, "test": 8000}, gigabytes=2.6, downloads=True,
            layouts=("stl10_binary/{train_X.bin,train_y.bin,test_X.bin,test_y.bin,class_names.txt}",),
        ),
    ]  # fmt: skip
