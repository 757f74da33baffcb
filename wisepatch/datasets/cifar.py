"""CIFAR-10 and CIFAR-100, in the archives of their publisher (``<data>/cifar-10-batches-py``, ``<data>/cifar-100-python``)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published import open_torchvision
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

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


def _open(name: str, split: str, root: Path, transform: Transform | None = None) -> Samples:
    return open_torchvision(name, name, root, transform, SOURCE, train=split == "train")


@hookimpl
def register_datasets() -> list[Dataset]:
    """CIFAR10 and CIFAR100."""
    return [
        Dataset(name, classes, partial(_open, name), TEMPLATES[name], family="CIFAR", source=SOURCE)
        for name, classes in (("CIFAR10", TEN), ("CIFAR100", HUNDRED))
    ]
