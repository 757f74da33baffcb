"""EuroSAT and RESISC45: images from above.

EuroSAT has no published splits. In the publisher's folder (``<data>/eurosat/2750``) the splits are ours: of every class a
tenth to test and a tenth to validate, by a hash of the file names, 21,600 / 2,700 / 2,700 images as in the papers, who do not
say which. The folders of the papers' code, ``<data>/EuroSAT_splits/{train,val,test}``, are read as they are.

RESISC45 has the splits of Neumann et al. 2019 (arXiv 1911.06721), in list files beside the images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wisepatch.datasets.base import Dataset, Subset
from wisepatch.datasets.names import names, spaced, zeroshot_accuracies
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import missing, open_folders, open_list_file, open_torchvision
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

EUROSAT_SOURCE = "https://github.com/phelber/EuroSAT"
EUROSAT_LAYOUTS = ("EuroSAT_splits/{train/*/*.jpg,val/*/*.jpg,test/*/*.jpg}", "eurosat/2750/*/*.jpg")
EUROSAT = {  # folder: class name, as CLIP's authors have it
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland or shrubland",
    "Highway": "highway or road",
    "Industrial": "industrial buildings or commercial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings or homes or apartments",
    "River": "river",
    "SeaLake": "lake or sea",
}
RESISC_SOURCE = "https://huggingface.co/datasets/torchgeo/resisc45"
RESISC_LAYOUT = "resisc45/{NWPU-RESISC45/*/*.jpg,resisc45-train.txt,resisc45-val.txt,resisc45-test.txt}"


def _open_eurosat(split: str, root: Path, transform: Transform | None = None) -> Samples:
    folders, hint = tuple(EUROSAT), f"fetch it again from {EUROSAT_SOURCE}"
    cut = root / "EuroSAT_splits"
    whole = root / "eurosat" / "2750"
    absent = [part for part in ("train", "val", "test") if not (cut / part).is_dir()]
    if cut.is_dir() and absent and not whole.is_dir():
        raise missing("EuroSAT", root, EUROSAT_LAYOUTS, EUROSAT_SOURCE, f"there is no EuroSAT_splits/{absent[0]}")
    if not absent:
        return open_folders("EuroSAT", cut / split, folders, transform, hint=hint)
    if not whole.is_dir():
        open_torchvision("EuroSAT", "EuroSAT", root, None, EUROSAT_SOURCE)  # it downloads, or says what to do
    samples = open_folders("EuroSAT", whole, folders, transform, hint=hint)
    return Subset(samples, _tenths([str(path) for path, _ in samples.files], samples.labels, split))


def _tenths(paths: list[str], labels: list[int], split: str) -> list[int]:
    """The images of ``split``, in order: of every class the first tenth by hash to test, the second to validate."""
    from hashlib import sha256

    chosen = []
    for label in sorted(set(labels)):
        mine = [index for index, other in enumerate(labels) if other == label]
        mine.sort(key=lambda index: sha256(paths[index].replace("\\", "/").split("/")[-1].encode()).digest())
        tenth = max(round(len(mine) / 10), 1)
        chosen += {"test": mine[:tenth], "val": mine[tenth : 2 * tenth], "train": mine[2 * tenth :]}[split]
    return sorted(chosen)


def _open_resisc(split: str, root: Path, transform: Transform | None = None) -> Samples:
    folder = root / "resisc45"
    listed, images = folder / f"resisc45-{split}.txt", folder / "NWPU-RESISC45"
    for path in (listed, images):
        if not path.exists():
            reason = f"there is no {path.relative_to(root).as_posix()}"
            raise missing("RESISC45", root, [RESISC_LAYOUT], RESISC_SOURCE, reason)
    again = f"fetch it again from {RESISC_SOURCE}"

    def place(name: str) -> tuple[str, Path]:
        kind = name.rpartition("_")[0]
        return kind, images / kind / name

    found = open_list_file("RESISC45", listed, names("RESISC45"), place, transform, hint=again, hint_images=again)
    return replace(found, files=sorted(found.files, key=lambda file: (file[1], file[0])))


@hookimpl
def register_datasets() -> list[Dataset]:
    """EuroSAT and RESISC45."""
    return [
        Dataset(
            "EuroSAT", tuple(EUROSAT.values()), _open_eurosat, TEMPLATES["EuroSAT"], splits=("train", "val", "test"),
            family="satellite", source=EUROSAT_SOURCE, counts={"train": 21600, "val": 2700, "test": 2700},
            layouts=EUROSAT_LAYOUTS, licence="MIT", gigabytes=0.1, downloads=True,
            zeroshot=zeroshot_accuracies("EuroSAT"),
        ),
        Dataset(
            "RESISC45", spaced(names("RESISC45")), _open_resisc, TEMPLATES["RESISC45"],
            splits=("train", "val", "test"), family="satellite", source=RESISC_SOURCE,
            counts={"train": 18900, "val": 6300, "test": 6300}, layouts=(RESISC_LAYOUT,), licence="CC BY-NC 4.0",
            gigabytes=0.4, zeroshot=zeroshot_accuracies("RESISC45"),
        ),
    ]  # fmt: skip
