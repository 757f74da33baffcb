"""MNIST, Fashion-MNIST, SVHN and STL-10, in the files of their publishers.

The IDX files of MNIST and Fashion-MNIST are read unpacked or as ``.gz``, whoever compressed them: what is checked is their content
(the sum of gzip, the header and the size of IDX). Fashion-MNIST is found where Debian's package dataset-fashion-mnist puts it, too.
"""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.readers import open_torchvision, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.errors import DataError

DIGITS = "0123456789"
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
OBJECTS = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
MNIST_FILES = "{train-images-idx3-ubyte,train-labels-idx1-ubyte,t10k-images-idx3-ubyte,t10k-labels-idx1-ubyte}"
MNIST_SOURCE = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/"  # torchvision's mirror: the publisher's site refuses the files
)
MNIST_FOLDERS = {
    "MNIST": ("MNIST/raw", "MNIST", "mnist"),
    "FashionMNIST": (
        "FashionMNIST/raw",
        "FashionMNIST",
        "fashion-mnist",
        "fashion_mnist",
        "/usr/share/datasets/fashion-mnist",
    ),
}
MNIST_LAYOUTS = {
    name: tuple(f"{folder}/{MNIST_FILES}{gz}" for folder in folders for gz in ("", ".gz"))
    for name, folders in MNIST_FOLDERS.items()
}


def _open_mnist(name: str, split: str, root: Path, transform: Transform | None) -> Samples:
    """Read the publisher's IDX files; torchvision fetches them into ``<data>/<name>/raw`` where they are missing."""
    from wisepatch.datasets.arrays import Pictures, read_idx

    kind = "train" if split == "train" else "t10k"
    paths = _idx_files(name, kind, root)
    if not paths:
        open_torchvision(name, split, root)
        paths = _idx_files(name, kind, root)
    path = root
    try:
        arrays = []
        for path in paths:
            arrays.append(read_idx(path))
        pixels, labels = arrays
        if pixels.ndim != 3 or labels.shape != (len(pixels),) or 0 in pixels.shape[1:]:
            raise ValueError(f"images of {pixels.shape}, labels {labels.shape}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is not what was published: {error}") from error
    return Pictures(pixels, labels.tolist(), transform)


def _idx_files(name: str, kind: str, root: Path) -> list[Path]:
    """Return the files of images and of labels in the first folder that has both, as they are or packed; none where none has."""
    for folder in MNIST_FOLDERS[name]:
        found = []
        for file in (f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"):
            forms = [file, file.replace("-idx", ".idx"), f"{file}.gz", f"{file.replace('-idx', '.idx')}.gz"]
            found += [path for form in forms if (path := root / folder / form).is_file()][:1]
        if len(found) == 2:
            return found
    return []


def _open_svhn(split: str, root: Path, transform: Transform | None) -> Samples:
    folder = root / "svhn" if (root / "svhn").is_dir() else root  # the papers' code keeps it one folder down
    return open_torchvision("SVHN", split, folder, transform)


def datasets() -> list[Dataset]:
    """List MNIST, FashionMNIST, SVHN and STL10."""
    return [
        published(
            "MNIST", DIGITS, partial(_open_mnist, "MNIST"), source=MNIST_SOURCE,
            counts={"train": 60000, "test": 10000}, layouts=MNIST_LAYOUTS["MNIST"], gigabytes=0.01, downloads=True,
        ),
        published(
            "FashionMNIST", CLOTHES, partial(_open_mnist, "FashionMNIST"), family="MNIST", licence="MIT",
            source="https://github.com/zalandoresearch/fashion-mnist", counts={"train": 60000, "test": 10000},
            layouts=MNIST_LAYOUTS["FashionMNIST"], gigabytes=0.03, downloads=True,
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
            archives=(Archive("stl10_binary.tar.gz", gives=("stl10_binary/test_X.bin",)),),
        ),
    ]  # fmt: skip
