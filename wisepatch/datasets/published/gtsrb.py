"""German traffic signs (Stallkamp et al. 2012), as torchvision keeps them and the code of PAINT reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.readers import open_torchvision, published
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.errors import DataError

SOURCE = "https://benchmark.ini.rub.de/gtsrb_dataset.html"
FILES = "{GTSRB/Training/*/*.ppm,GTSRB/Final_Test/Images/*.ppm,GT-final_test.csv}"
ARCHIVES = (
    Archive("GTSRB-Training_fixed.zip", ("gtsrb",), ("GTSRB/Training",), "train"),
    Archive("GTSRB_Final_Test_Images.zip", ("gtsrb",), ("GTSRB/Final_Test",), "test"),
    Archive("GTSRB_Final_Test_GT.zip", ("gtsrb",), ("GT-final_test.csv",), "test"),
)


def _open(split: str, root: Path, transform: Transform | None) -> Samples:
    signs: Any = open_torchvision("GTSRB", split, root)
    samples = FileSamples(signs._samples, transform)
    folders, classes = len(set(samples.labels)), len(names("GTSRB"))
    if split == "train" and folders != classes:
        # torchvision numbers the folders that there are: with one missing, all after it would have another's label
        problem = f"{root / 'gtsrb/GTSRB/Training'} holds {count(folders, 'class folder')}, not {classes}"
        raise DataError(problem, f"remove the folder and fetch GTSRB-Training_fixed.zip from {SOURCE} again")
    return samples


def datasets() -> list[Dataset]:
    """List GTSRB, with the names that CLIP's authors gave its 43 signs."""
    return [
        published(
            "GTSRB", names("GTSRB"), _open, family="traffic", source=SOURCE, counts={"train": 26640, "test": 12630},
            layouts=(f"gtsrb/{FILES}",), gigabytes=0.3, downloads=True, archives=ARCHIVES,
        )
    ]  # fmt: skip
