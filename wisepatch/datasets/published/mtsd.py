"""Mapillary's traffic signs (Ertler et al. 2020): every annotated sign, cut out of its photo, as the code of PAINT does it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.class_folders import read_folders
from wisepatch.datasets.published.readers import published, read_words
from wisepatch.datasets.samples import Samples, Transform
from wisepatch.errors import DataError, MissingDataError

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
ARCHIVES = (  # the annotations last: once they are there, all is
    *(Archive(f"mtsd_*fully_annotated_images.{part}.zip", ("mtsd",)) for part in ("train.?", "val")),
    Archive("mtsd_*fully_annotated_annotation.zip", ("mtsd",), tuple(f"{folder}/splits" for folder in ANNOTATIONS)),
)


def sign_class(label: str) -> str | None:
    """Return the class of a published label: the middle of ``regulatory--stop--g1``; ``None`` for ``other-sign``, which is none."""
    if label == "other-sign":
        return None
    return label.split("--")[1] if "--" in label else label


def _open(split: str, root: Path, transform: Transform | None) -> Samples:
    base, published_split = root / "mtsd", PUBLISHED[split]
    if (base / published_split).is_dir():  # the crops as PAINT's code writes them
        return read_folders(base / published_split, names("MTSD"), transform)
    folder = next((base / name for name in ANNOTATIONS if (base / name / "splits").is_dir()), None)
    if folder is None or not (base / "images").is_dir():
        part = "the annotations" if folder is None else "the folder images"
        raise MissingDataError(f"{part} cannot be found in {base}")
    listed = read_words(folder / "splits" / f"{published_split}.txt")
    annotations = [folder / "annotations" / f"{photo}.json" for photo in listed]
    absent = [path for path in annotations if not path.exists()]
    if absent:
        raise MissingDataError(f"{absent[0]} is missing")
    signs = sorted(sign for path in annotations for sign in _signs(path))
    present = {path.name for path in (base / "images").iterdir()}
    photos = sorted({photo for _, _, photo, _ in signs})
    absent = [base / "images" / photo for photo in photos if photo not in present]
    if absent:
        raise MissingDataError(f"{len(absent)} of {len(photos)} photos are missing, the first {absent[0]}")
    files = [(base / "images" / photo, label) for label, _, photo, _ in signs]
    return FileSamples(files, transform, boxes=[box for *_, box in signs])


def _signs(path: Path) -> Iterator[tuple[int, str, str, Box]]:
    """Yield label, name, photo and box of each sign of a photo, none of a panorama's. Signs sort as the files of PAINT's crops."""
    index = {name: number for number, name in enumerate(names("MTSD"))}
    try:
        annotation = json.loads(path.read_text(encoding="utf-8"))
        for sign in () if annotation["ispano"] else annotation["objects"]:
            name = sign_class(sign["label"])
            if name is None:
                continue
            if name not in index:
                raise ValueError(f"the label {sign['label']!r} is none of its classes")
            left, upper, right, lower = (round(sign["bbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
            if left >= right or upper >= lower:
                raise ValueError(f"the box of sign {sign['key']} is empty")
            yield index[name], f"{path.stem}__{sign['key']}.jpg", f"{path.stem}.jpg", (left, upper, right, lower)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"annotation {path} cannot be used: {reason}") from error


def datasets() -> list[Dataset]:
    """List MTSD: 235 signs, however many shapes each has; the publisher's 400 labels tell the shapes apart."""
    classes = [name.replace("-", " ") for name in names("MTSD")]
    return [
        published(
            "MTSD", classes, _open, family="traffic", source=SOURCE, licence="CC BY-NC-SA", layouts=LAYOUTS, archives=ARCHIVES,
        )
    ]  # fmt: skip
