"""German traffic signs (Stallkamp et al. 2012), as torchvision keeps them and the code of PAINT reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.folder import FileSamples
from wisepatch.datasets.names import names, zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import open_torchvision
from wisepatch.errors import DataError
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

SOURCE = "https://benchmark.ini.rub.de/gtsrb_dataset.html"
FILES = "{GTSRB/Training/*/*.ppm,GTSRB/Final_Test/Images/*.ppm,GT-final_test.csv}"


def _open(split: str, root: Path, transform: Transform | None = None) -> Samples:
    found: Any = open_torchvision("GTSRB", "GTSRB", root, None, SOURCE, split=split)
    samples = FileSamples(found._samples, transform)
    if split == "train" and len(set(samples.labels)) != len(names("GTSRB")):
        # torchvision numbers the folders that there are: with one missing, all after it would have another's label
        folder = root / "gtsrb" / "GTSRB" / "Training"
        raise DataError(
            f"GTSRB: {folder} holds {len(set(samples.labels))} class folders, not {len(names('GTSRB'))}",
            f"remove the folder and fetch GTSRB-Training_fixed.zip from {SOURCE} again",
        )
    return samples


@hookimpl
def register_datasets() -> list[Dataset]:
    """GTSRB, with the names that CLIP's authors gave its 43 signs."""
    return [
        Dataset(
            "GTSRB", names("GTSRB"), _open, TEMPLATES["GTSRB"], family="traffic", source=SOURCE,
            counts={"train": 26640, "test": 12630}, layouts=(f"gtsrb/{FILES}",), gigabytes=0.3, downloads=True,
            zeroshot=zeroshot_accuracies("GTSRB"),
        )
    ]  # fmt: skip
