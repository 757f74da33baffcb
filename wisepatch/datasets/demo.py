"""Offer four tasks that need no download: drawn Shapes, Colors and Textures, and scikit-learn's handwritten Digits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.drawn_shapes import COLORS, SHAPES, TEXTURES, Scene, draw, generator
from wisepatch.datasets.prompts import TEMPLATES

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL import Image

    from wisepatch.datasets.base import Samples, Transform

SIZES = {"train": 2000, "val": 300, "test": 500}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAGE, INK = 64, 44  # pixels
DIGITS_TEST = 500  # of scikit-learn's 1,797 images


@dataclass(frozen=True)
class DrawnSamples:
    """Draw pictures when they are asked for; the label runs through the classes, the rest is random by index."""

    task: str
    split: str
    transform: Transform | None = None

    def __len__(self) -> int:
        """Return the number of pictures."""
        return SIZES[self.split]

    @property
    def labels(self) -> list[int]:
        """Return the labels of all pictures."""
        return [index % len(SHAPES) for index in range(len(self))]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Draw picture ``index``."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = generator(self.task, tuple(SIZES).index(self.split), index)
        names = tuple(COLORS)
        shape, color, texture = (int(rng.integers(len(x))) for x in (SHAPES, names, TEXTURES))
        label = index % len(SHAPES)
        shape, color, texture = {
            "Shapes": (label, color, texture),
            "Colors": (shape, label, texture),
            "Textures": (shape, color, label),
        }[self.task]
        image = draw(Scene(TEXTURES[texture], SHAPES[shape], names[color]), rng)
        return (self.transform(image) if self.transform else image), label


def open_drawn(task: str, split: str, root: Path, transform: Transform | None = None) -> Samples:
    """Open a drawn task; ``root`` is not read."""
    return DrawnSamples(task, split, transform)


@dataclass(frozen=True)
class DigitSamples:
    """Show scikit-learn's digits (the test set of UCI's optical recognition data) as RGB images, dark ink on white paper."""

    indices: tuple[int, ...]
    transform: Transform | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the scan of 8 x 8 pixels, enlarged to 44 x 44 (bicubic) on a page of 64 x 64, and its digit."""
        from PIL import Image

        pixels, digits = _digits()
        scan = Image.fromarray(255 - (pixels[self.indices[index]] * (255 / 16)).astype("uint8"))
        page = Image.new("L", (PAGE, PAGE), 255)
        page.paste(scan.resize((INK, INK), Image.Resampling.BICUBIC), ((PAGE - INK) // 2, (PAGE - INK) // 2))
        image: Image.Image = page.convert("RGB")
        return (self.transform(image) if self.transform else image), int(digits[self.indices[index]])


@cache
def _digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images, data.target


@cache
def _digit_split(split: str) -> tuple[int, ...]:
    import numpy as np
    from sklearn.model_selection import train_test_split

    _, digits = _digits()
    train, test = train_test_split(np.arange(len(digits)), test_size=DIGITS_TEST, stratify=digits, random_state=0)
    return tuple(int(i) for i in (test if split == "test" else train))


def open_digits(split: str, root: Path, transform: Transform | None = None) -> Samples:
    """Open the digits: 1,297 to train (validation is cut from them), 500 to test, stratified, seed 0."""
    return DigitSamples(_digit_split(split), transform)


def datasets() -> list[Dataset]:
    """List the four offline tasks."""
    drawn = {"Shapes": SHAPES, "Colors": tuple(COLORS), "Textures": TEXTURES}
    source = "drawn by wisepatch"
    return [
        *(
            Dataset(
                name, classes, partial(open_drawn, name), TEMPLATES[name], ("train", "val", "test"),
                family="demo", source=source, counts=SIZES, gigabytes=0,
            )
            for name, classes in drawn.items()
        ),
        Dataset(
            "Digits", NUMBERS, open_digits, TEMPLATES["Digits"], family="demo", source="scikit-learn, load_digits",
            counts={"train": 1297, "test": DIGITS_TEST}, gigabytes=0,
        ),
    ]  # fmt: skip
