"""USPS digits for wisepatch, read from the LIBSVM files in which they are published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import wisepatch as wp
from wisepatch.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps"
URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass"
FILES = {"train": "usps.bz2", "test": "usps.t.bz2"}


@dataclass(frozen=True)
class Digits:
    """Images of 16 x 16 pixels as RGB pictures, and their digits."""

    pixels: Any  # uint8 (n, 16, 16)
    labels: list[int]
    transform: Any = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return one image, white on black, and its digit."""
        from PIL import Image

        image = Image.fromarray(self.pixels[index]).convert("RGB")
        return (self.transform(image) if self.transform else image), self.labels[index]


def open_split(split: str, root: Path, transform: Any = None) -> Digits:
    """Open ``train`` or ``test`` below ``root``, downloading the file where it is missing."""
    import numpy as np
    from sklearn.datasets import load_svmlight_file

    path = find(root, FILES[split])
    try:
        values, labels = load_svmlight_file(str(path), n_features=256)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is not the published file of USPS: {error}", f"fetch it again from {SOURCE}"
        ) from error
    pixels = ((values.toarray().reshape(-1, 16, 16) + 1) * 127.5).round().astype(np.uint8)
    return Digits(pixels, [int(label) - 1 for label in labels], transform)  # LIBSVM counts classes from 1


def find(root: Path, name: str) -> Path:
    """The file ``name`` in ``root`` or ``root/usps``; downloaded to the latter where it is in neither."""
    for folder in (root, root / "usps"):
        if (folder / name).is_file():
            return folder / name
    from torchvision.datasets.utils import download_url

    try:
        download_url(f"{URL}/{name}", str(root / "usps"), name)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"USPS is not below {root} and could not be downloaded: {error}",
            f"fetch {name} from {SOURCE} and put it into {root / 'usps'}",
        ) from error
    return root / "usps" / name


@wp.hookimpl
def register_datasets() -> list[wp.Dataset]:
    """USPS, with the class names and prompt of MNIST."""
    return [
        wp.Dataset(
            name="USPS",
            classes=tuple("0123456789"),
            open=open_split,
            templates=('a photo of the number: "{}".',),
            family="digits",
            source=SOURCE,
        )
    ]
