"""Mapillary's traffic signs (Ertler et al. 2020): every annotated sign, cut out of its photo, as the code of PAINT does it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.folder import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.readers import missing, open_folders
from wisepatch.errors import DataError
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform

    Box = tuple[int, int, int, int]  # left, upper, right, lower, in pixels of the photo

SOURCE = "https://www.mapillary.com/dataset/trafficsign"
PUBLISHED = {"train": "train", "test": "val"}  # the annotations of the publisher's own test split are not public
ANNOTATIONS = ("annotations", "mtsd_v2_fully_annotated", "annotations/mtsd_v2_fully_annotated")
LAYOUTS = (
    "mtsd/{train,val}/*/*.jpg",
    *(
        f"mtsd/{{{folder}/annotations/*.json,{folder}/splits/train.txt,{folder}/splits/val.txt,images/*.jpg}}"
        for folder in ANNOTATIONS
    ),
)
TOLD = (LAYOUTS[2], LAYOUTS[0])  # as the archives unpack, and as PAINT's code cuts


@dataclass(frozen=True)
class Crops:
    """Parts of photos; ``photos`` has the photo of each sign, in RGB, and its label, so that one photo may come many times."""

    photos: FileSamples
    boxes: Sequence[Box]
    transform: Transform | None = None

    def __len__(self) -> int:
        """Return the number of signs."""
        return len(self.boxes)

    @property
    def labels(self) -> list[int]:
        """The labels of all signs."""
        return self.photos.labels

    def fingerprint(self) -> str:
        """Return what tells these parts of these photos from others."""
        return f"{list(self.boxes)} of {self.photos.fingerprint()}"

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the sign and its label; a photo that cannot be read is a :class:`DataError` that names it."""
        photo, label = self.photos[index]
        sign = photo.crop(self.boxes[index])
        return (self.transform(sign) if self.transform else sign), label


def sign_class(label: str) -> str | None:
    """The class of a published label: the middle of ``regulatory--stop--g1``; ``None`` for ``other-sign``, which is none."""
    if label == "other-sign":
        return None
    return label.split("--")[1] if "--" in label else label


def _open(split: str, root: Path, transform: Transform | None = None) -> Samples:
    base, published = root / "mtsd", PUBLISHED[split]
    if (base / published).is_dir():  # the crops as PAINT's code writes them
        hint = f"class folders are named {', '.join(names('MTSD')[:3])}, ...; anything else goes elsewhere"
        return open_folders("MTSD", base / published, names("MTSD"), transform, hint=hint)
    folder = next((base / name for name in ANNOTATIONS if (base / name / "splits").is_dir()), None)
    if folder is None or not (base / "images").is_dir():
        lacks = "the annotations" if folder is None else "the folder images"
        raise missing("MTSD", root, TOLD, SOURCE, f"{lacks} cannot be found in {base}")
    photos = _photos(folder / "splits" / f"{published}.txt", root)
    signs = sorted(sign for photo in photos for sign in _signs(folder / "annotations" / f"{photo}.json", root))
    present = {path.name for path in (base / "images").iterdir()}
    wanted = sorted({photo for _, _, photo, _ in signs})
    absent = [photo for photo in wanted if f"{photo}.jpg" not in present]
    if absent:
        first = base / "images" / f"{absent[0]}.jpg"
        reason = f"{len(absent)} of {len(wanted)} photos are missing, the first {first}"
        raise missing("MTSD", root, TOLD, SOURCE, reason)
    files = [(base / "images" / f"{photo}.jpg", label) for label, _, photo, _ in signs]
    return Crops(FileSamples(files), [box for *_, box in signs], transform)


def _photos(listing: Path, root: Path) -> list[str]:
    try:
        return listing.read_text(encoding="utf-8").split()
    except FileNotFoundError as error:
        raise missing("MTSD", root, TOLD, SOURCE, f"{listing} is missing") from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"MTSD: {listing} cannot be read: {error}", f"fetch the annotations from {SOURCE} again"
        ) from error


def _signs(path: Path, root: Path) -> Iterator[tuple[int, str, str, Box]]:
    """Label, name, photo and box of each sign of a photo, none of a panorama's. Signs sort as the files of PAINT's crops do."""
    index = _indices()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for sign in () if found["ispano"] else found["objects"]:
            name = sign_class(sign["label"])
            if name is None:
                continue
            if name not in index:
                raise ValueError(f"the label {sign['label']!r} is none of its classes")
            left, upper, right, lower = (round(sign["bbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
            if left >= right or upper >= lower:
                raise ValueError(f"the box of sign {sign['key']} is empty")
            yield index[name], f"{path.stem}__{sign['key']}.jpg", path.stem, (left, upper, right, lower)
    except FileNotFoundError as error:
        raise missing("MTSD", root, TOLD, SOURCE, f"{path} is missing") from error
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"MTSD: annotation {path} cannot be used: {reason}", f"fetch the annotations from {SOURCE} again"
        ) from error


def _indices() -> dict[str, int]:
    return {name: index for index, name in enumerate(names("MTSD"))}


@hookimpl
def register_datasets() -> list[Dataset]:
    """MTSD: 235 signs, however many shapes each has; the publisher's 400 labels tell the shapes apart."""
    classes = tuple(name.replace("-", " ") for name in names("MTSD"))
    return [
        Dataset(
            "MTSD", classes, _open, TEMPLATES["MTSD"], family="traffic", source=SOURCE, licence="CC BY-NC-SA",
            layouts=LAYOUTS,
        )
    ]  # fmt: skip
