"""EuroSAT and RESISC45: images from above.

EuroSAT has no published splits: in the publisher's folder a tenth of every class is to test and a tenth to validate, by a hash
of the file names, as many as in the papers, who do not say which. The splits of the papers' code are read as they are.
RESISC45 has the splits of Neumann et al. 2019 (arXiv 1911.06721), in list files beside the images.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.names import names, spaced
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.class_folders import read_folders, split_folders
from wisepatch.datasets.published.readers import open_list_file, open_torchvision, published
from wisepatch.datasets.samples import Samples, Subset, Transform
from wisepatch.datasets.splits import SPLITS
from wisepatch.errors import MissingDataError

EUROSAT_SOURCE = "https://github.com/phelber/EuroSAT"
WHOLE = ("2750", "EuroSAT_RGB")  # in the publisher's archives, the first and that of Zenodo
EUROSAT_LAYOUTS = (
    "EuroSAT_splits/{train/*/*.jpg,val/*/*.jpg,test/*/*.jpg}", *(f"eurosat/{whole}/*/*.jpg" for whole in WHOLE),
    "EuroSAT/{train/*/*.jpg,test/*/*.jpg}",
)  # fmt: skip
EUROSAT_ARCHIVES = tuple(Archive(name, ("eurosat",), WHOLE) for name in ("EuroSAT.zip", "EuroSAT_RGB.zip"))
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
RESISC_FOLDERS = ("resisc45", "RESISC45")
RESISC_LAYOUTS = (
    "resisc45/{NWPU-RESISC45/*/*.jpg,resisc45-train.txt,resisc45-val.txt,resisc45-test.txt}",
    *(f"{folder}/{{train/*/*.jpg,test/*/*.jpg}}" for folder in RESISC_FOLDERS),
)
RESISC_ARCHIVES = (Archive("NWPU-RESISC45.zip", ("resisc45",), ("NWPU-RESISC45",)),)


def _open_eurosat(split: str, root: Path, transform: Transform | None) -> Samples:
    places = (root / "EuroSAT", root / "eurosat")
    if samples := split_folders(places, tuple(EUROSAT), tuple(EUROSAT.values()), split, transform, own_val=True):
        return samples
    cut, wholes = root / "EuroSAT_splits", [root / "eurosat" / whole for whole in WHOLE]
    whole = next(filter(Path.is_dir, wholes), wholes[0])
    absent = [part for part in SPLITS if not (cut / part).is_dir()]
    if not absent:
        return read_folders(cut / split, tuple(EUROSAT), transform)
    if cut.is_dir() and not whole.is_dir():
        raise MissingDataError(f"there is no EuroSAT_splits/{absent[0]}")
    if not whole.is_dir():
        open_torchvision("EuroSAT", split, root)  # it downloads, or says what to do
    images = read_folders(whole, tuple(EUROSAT), transform)
    return Subset(images, _tenths([Path(path).name for path, _ in images.files], images.labels, split))


def _tenths(files: list[str], labels: list[int], split: str) -> list[int]:
    """Choose the images of ``split``, in order: of every class the first tenth by hash to test, the second to validate."""
    chosen = []
    for label in sorted(set(labels)):
        indices = [index for index, other in enumerate(labels) if other == label]
        indices.sort(key=lambda index: sha256(files[index].encode()).digest())
        tenth = max(round(len(indices) / 10), 1)
        chosen += {"test": indices[:tenth], "val": indices[tenth : 2 * tenth], "train": indices[2 * tenth :]}[split]
    return sorted(chosen)


def _open_resisc(split: str, root: Path, transform: Transform | None) -> Samples:
    places = [root / folder for folder in RESISC_FOLDERS]
    if cut := split_folders(places, names("RESISC45"), names("RESISC45"), split, transform, own_val=True):
        return cut
    listed, images = root / "resisc45" / f"resisc45-{split}.txt", root / "resisc45" / "NWPU-RESISC45"
    samples = open_list_file(
        listed, images, names("RESISC45"), transform, place=lambda name: f"{name.rpartition('_')[0]}/{name}"
    )
    return replace(samples, files=sorted(samples.files, key=lambda file: (file[1], file[0])))


def datasets() -> list[Dataset]:
    """List EuroSAT and RESISC45."""
    return [
        published(
            "EuroSAT", tuple(EUROSAT.values()), _open_eurosat, splits=SPLITS, family="satellite", source=EUROSAT_SOURCE,
            counts={"train": 21600, "val": 2700, "test": 2700}, layouts=EUROSAT_LAYOUTS, licence="MIT", gigabytes=0.1,
            downloads=True, archives=EUROSAT_ARCHIVES,
        ),
        published(
            "RESISC45", spaced(names("RESISC45")), _open_resisc, splits=SPLITS, family="satellite", source=RESISC_SOURCE,
            counts={"train": 18900, "val": 6300, "test": 6300}, layouts=RESISC_LAYOUTS, licence="CC BY-NC 4.0",
            gigabytes=0.4, archives=RESISC_ARCHIVES,
        ),
    ]  # fmt: skip
