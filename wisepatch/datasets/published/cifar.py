"""CIFAR-10, CIFAR-100, and two reproductions of CIFAR-10, in the files of their publishers.

CIFAR-10.1 (Recht et al. 2018, arXiv 1806.00451) is its version 6. CIFAR-10.2 (Lu et al. 2020) is a dict a split, which NumPy
wrote as a pickle, as CIFAR-10 and CIFAR-100 are pickles: they are read by an unpickler that can build arrays and nothing else.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import fetch, open_torchvision, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.errors import DataError

SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HUNDRED = tuple(
    """
    apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge, bus, butterfly, camel,
    can, castle, caterpillar, cattle, chair, chimpanzee, clock, cloud, cockroach, couch, crab, crocodile, cup, dinosaur,
    dolphin, elephant, flatfish, forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn mower, leopard, lion,
    lizard, lobster, man, maple tree, motorcycle, mountain, mouse, mushroom, oak tree, orange, orchid, otter, palm tree,
    pear, pickup truck, pine tree, plain, plate, poppy, porcupine, possum, rabbit, raccoon, ray, road, rocket, rose, sea,
    seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel, streetcar, sunflower, sweet pepper, table, tank,
    telephone, television, tiger, tractor, train, trout, tulip, turtle, wardrobe, whale, willow tree, wolf, woman, worm
    """.replace("\n    ", " ").strip().split(", ")
)  # fmt: skip
ARCHIVES = {
    "CIFAR10": (TEN, "cifar-10-batches-py/{data_batch_1,data_batch_5,test_batch,batches.meta}"),
    "CIFAR100": (HUNDRED, "cifar-100-python/{train,test,meta}"),
}
SOURCES = {
    "CIFAR10.1": "https://github.com/modestyachts/CIFAR-10.1",
    "CIFAR10.2": "https://github.com/modestyachts/cifar-10.2",
}
FOLDERS = {"CIFAR10.1": "CIFAR-10.1", "CIFAR10.2": "CIFAR-10.2"}
FILES = {
    "CIFAR10.1": ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy"),
    "CIFAR10.2": ("cifar102_train.npy", "cifar102_test.npy"),
}
LAYOUTS = {name: f"{FOLDERS[name]}/{{{','.join(files)}}}" for name, files in FILES.items()}


def _open_archive(name: str, split: str, root: Path, transform: Transform | None) -> Samples:
    """Read the publisher's batches, whose hashes torchvision knows; it fetches those that are missing or damaged."""
    import numpy as np
    import torchvision.datasets
    from torchvision.datasets.utils import check_integrity

    from wisepatch.datasets.arrays import Pictures, values_of
    from wisepatch.pickles import read_pickle

    archive = getattr(torchvision.datasets, name)
    folder, batches = root / archive.base_folder, archive.train_list if split == "train" else archive.test_list
    if not all(check_integrity(folder / file, md5) for file, md5 in batches):
        open_torchvision(name, split, root)
    pixels, labels, path = [], [], folder
    try:
        for path in [folder / file for file, _ in batches]:
            rows, numbers = values_of(
                read_pickle(path.read_bytes()), "data", "labels" if name == "CIFAR10" else "fine_labels"
            )
            pixels.append(rows.reshape(len(numbers), 3, 32, 32).transpose(0, 2, 3, 1))
            labels += numbers
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not what was published: {' '.join(str(error).split())}") from error
    return Pictures(np.concatenate(pixels), labels, transform)


def _open_reproduction(task: str, split: str, root: Path, transform: Transform | None) -> Samples:
    import numpy as np

    from wisepatch.datasets.arrays import Pictures, read_array, read_dict

    arrays: list[Any] = []
    files = FILES[task] if task == "CIFAR10.1" else (f"cifar102_{split}.npy",)
    paths = [_find(task, root / FOLDERS[task] / name) for name in files]
    try:
        for path in paths:
            arrays += [read_array(path)] if task == "CIFAR10.1" else read_dict(path, "images", "labels")
        pixels, labels = map(np.asarray, arrays)
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 32, 32, 3) or labels.shape != (len(pixels),):
            raise ValueError(f"images of {pixels.dtype} {pixels.shape}, labels {labels.shape}")
        numbers = [int(label) for label in labels]
        if not set(numbers) <= set(range(len(TEN))):
            raise ValueError(f"labels from {min(numbers)} to {max(numbers)}")
    except (OSError, ValueError, TypeError, LookupError, EOFError, AttributeError, MemoryError) as error:
        raise DataError(f"{path} is not what was published: {' '.join(str(error).split())}") from error
    return Pictures(pixels, numbers, transform)


def _find(task: str, path: Path) -> Path:
    """Return ``path``, downloaded where it is missing."""
    if not path.is_file():
        from torchvision.datasets.utils import download_url

        part = path.with_name(f"{path.name}.part")
        part.unlink(missing_ok=True)
        url = f"{SOURCES[task]}/raw/master/{'datasets/' if task == 'CIFAR10.1' else ''}{path.name}"
        fetch(partial(download_url, url, str(part.parent), part.name), f"{path.name} is missing")
        part.replace(path)  # what is there is whole
    return path


def datasets() -> list[Dataset]:
    """List CIFAR10 and CIFAR100, CIFAR10.1 (test images alone) and CIFAR10.2."""
    return [
        *(
            published(
                name, classes, partial(_open_archive, name), family="CIFAR", source=SOURCE,
                counts={"train": 50000, "test": 10000}, layouts=(layout,), gigabytes=0.2, downloads=True,
            )
            for name, (classes, layout) in ARCHIVES.items()
        ),
        *(
            published(
                name, TEN, partial(_open_reproduction, name), templates=TEMPLATES["CIFAR10"], splits=tuple(counts),
                family="CIFAR", source=SOURCES[name], aliases=(name.replace(".", ""),), counts=counts,
                layouts=(LAYOUTS[name],), licence=licence, gigabytes=gigabytes, downloads=True,
            )
            for name, counts, licence, gigabytes in (
                ("CIFAR10.1", {"test": 2000}, "MIT", 0.01),
                ("CIFAR10.2", {"train": 10000, "test": 2000}, "", 0.04),
            )
        ),
    ]  # fmt: skip
