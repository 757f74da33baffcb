"""Offer four tasks that need no download: drawn Shapes, Colors and Textures, and scikit-learn's handwritten Digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.drawn_shapes import COLORS, SHAPES, TEXTURES, Scene, draw, generator
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.datasets.splits import SPLITS

DRAWN = {"Shapes": SHAPES, "Colors": tuple(COLORS), "Textures": TEXTURES}
SIZES = {"train": 2000, "val": 300, "test": 500}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAGE_PIXELS, DIGIT_PIXELS = 64, 44
DIGITS_TEST = 500  # of scikit-learn's 1,797 images


@dataclass(frozen=True)
class MadeSamples:
    """Make image ``index`` by ``make(index)`` when it is asked for."""

    make: Callable[[int], Any]
    labels: list[int]
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Return the labels: with task and split they tell the images."""
        return str(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.make(index)
        return (self.transform(image) if self.transform else image), self.labels[index]


def open_drawn(task: str, split: str, root: Path, transform: Transform | None = None) -> Samples:
    """Open a drawn task, whose labels run through the classes; ``root`` is not read."""
    labels = [index % len(SHAPES) for index in range(SIZES[split])]
    return MadeSamples(partial(_picture, task, split), labels, transform)


def _picture(task: str, split: str, index: int) -> Any:
    """Draw picture ``index``: what is not the label is random by index."""
    rng = generator(task, tuple(SIZES).index(split), index)
    places = {name: int(rng.integers(len(classes))) for name, classes in DRAWN.items()} | {task: index % len(SHAPES)}
    shape, color, texture = (classes[places[name]] for name, classes in DRAWN.items())
    return draw(Scene(texture, shape, color), rng)


def open_digits(split: str, root: Path, transform: Transform | None = None) -> Samples:
    """Open the digits: 1,297 to train (validation is cut from them), 500 to test, stratified, seed 0.

    They are scikit-learn's, the test set of UCI's optical recognition data, dark ink on white paper, as RGB images.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    digits = _digits().target
    train, test = train_test_split(np.arange(len(digits)), test_size=DIGITS_TEST, stratify=digits, random_state=0)
    indices = test if split == "test" else train
    return MadeSamples(partial(_digit, indices.tolist()), digits[indices].tolist(), transform)


def _digit(indices: list[int], index: int) -> Any:
    """Enlarge a scan of 8 x 8 pixels to 44 x 44 (bicubic) on a page of 64 x 64."""
    from PIL import Image

    scan = Image.fromarray(255 - (_digits().images[indices[index]] * (255 / 16)).astype("uint8"))
    page = Image.new("L", (PAGE_PIXELS, PAGE_PIXELS), 255)
    margin = (PAGE_PIXELS - DIGIT_PIXELS) // 2
    page.paste(scan.resize((DIGIT_PIXELS, DIGIT_PIXELS), Image.Resampling.BICUBIC), (margin, margin))
    return page.convert("RGB")


@cache
def _digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()


def datasets() -> list[Dataset]:
    """List the four offline tasks."""
    return [
        *(
            Dataset(
                name, classes, partial(open_drawn, name), TEMPLATES[name], SPLITS, family="demo",
                source="drawn by wisepatch", counts=SIZES, gigabytes=0,
            )
            for name, classes in DRAWN.items()
        ),
        Dataset(
            "Digits", NUMBERS, open_digits, TEMPLATES["Digits"], family="demo", source="scikit-learn, load_digits",
            counts={"train": 1297, "test": DIGITS_TEST}, gigabytes=0,
        ),
    ]  # fmt: skip
