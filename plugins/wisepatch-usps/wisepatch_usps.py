"""USPS digits for wisepatch, in the LIBSVM files in which they are published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wisepatch as wp

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps"


def open_split(split: str, root: Path, transform: Any = None) -> Any:
    """Open ``train`` or ``test``; images are 16 x 16, shown to the transform as RGB."""
    from wisepatch.datasets.published import open_torchvision

    folder = root / "usps" if (root / "usps").is_dir() else root
    return open_torchvision("USPS", "USPS", folder, transform, SOURCE, train=split == "train")


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
