"""Frames of videos and their neighbours: ImageNet-Vid-Robust and YTBB-Robust (Shankar et al. 2021, arXiv 1906.02168).

A model is right on an anchor frame (pm0), or on it and on all similar frames at most ten away (pm10). Both sets are tested
with ImageNet's head, a class having the largest logit of those that stand for it. None stands for five of YTBB's classes,
which are never predicted here; the code of WiSE-FT gives four of these a logit of 0, below nearly all that CLIP gives.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Set
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.published.archives import Archive
from wisepatch.datasets.published.imagenet import shift
from wisepatch.datasets.published.readers import first_folder, open_listed
from wisepatch.datasets.samples import Annotations, Transform
from wisepatch.errors import DataError, MissingDataError

VID, YTBB = "ImageNetVidRobust", "YTBBRobust"
SOURCE = (
    "https://do-imagenet-classifiers-generalize-across-time.s3-us-west-2.amazonaws.com/imagenet_vid_ytbb_robust.tar.gz"
)
ANNOTATIONS = "https://github.com/mlfoundations/wise-ft/tree/master/src/datasets/ytbb-robust_metadata"
ANNOTATIONS_AGAIN = f"fetch it again from {ANNOTATIONS}"
# The data may have been moved to the data folder, as WiSE-FT advises, or left in the archive's own.
ARCHIVE = ("", "imagenet_vid_ytbb_robust/")
VID_FOLDERS = tuple(f"{top}imagenet-vid-robust" for top in ARCHIVE)
VID_LAYOUTS = tuple(f"{folder}/{{val,metadata/labels.json,metadata/pmsets.json}}" for folder in VID_FOLDERS)
ANCHORS, PAIRS, BOXES = "anchor_labels.json", "pmk_labels.json", "ytbb_robustness_test_anchors_full.csv"
YTBB_FRAMES = tuple(f"{top}ytbb-robust/ytbb_videos" for top in ARCHIVE)
YTBB_METADATA = (*(f"{top}ytbb-robust/metadata" for top in ARCHIVE), *(f"{top}ytbb-robust" for top in ARCHIVE),
                 "ytbb-robust_metadata")  # fmt: skip
YTBB_LAYOUTS = tuple(
    "{" + ",".join([f"{frames}/*/*.jpg", *(f"{metadata}/{name}" for name in (ANCHORS, PAIRS, BOXES))]) + "}"
    for frames in YTBB_FRAMES
    for metadata in YTBB_METADATA
)
ARCHIVES = (Archive("imagenet_vid_ytbb_robust.tar.gz", gives=("imagenet_vid_ytbb_robust/imagenet-vid-robust",)),)
MAX_FRAMES_AWAY = 10  # of a neighbour from its anchor
PROBLEMS = frozenset(
    ("dissimilar", "problematic", "incorrect", "dont know", "deformation", "background-change", "occlusion-increased",
     "blur-increase", "bad-anchor")
)  # fmt: skip
KEY = r"([^/]+_\d+)/frame-(\d+)\.jpg"


def _label_map(task: str) -> tuple[tuple[int, ...], ...]:
    """Return the indices of ImageNet's classes that stand for each class of ``task``; none for some."""
    known = names(task)
    return tuple(tuple(known["imagenet"].get(str(index), ())) for index in range(len(known["classes"])))


def _read(path: Path, parse: Callable[[Any], Any], hint: str = "") -> Any:
    """Parse the text file ``path``. Raises :class:`DataError` for a file that is not the published one."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return parse(file)
    except FileNotFoundError:
        raise MissingDataError(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error) as error:
        raise DataError(f"{path} is not the published file: {type(error).__name__}: {error}", hint) from error


def _open_vid(split: str, root: Path, transform: Transform | None) -> FileSamples:
    """Open the frames that an anchor's set names, each once; all of a frame's labels are right, the first is its label."""
    folder = first_folder(root, VID_FOLDERS)
    _check_classes(folder / "misc")
    labels = _read(folder / "metadata/labels.json", _vid_labels)
    sets = _read(folder / "metadata/pmsets.json", lambda file: [[key, *near] for key, near in json.load(file).items()])
    frames = sorted({frame for row in sets for frame in row})
    unlabelled = [frame for frame in frames if not labels.get(frame)]
    if unlabelled:
        raise DataError(f"{folder / 'metadata/labels.json'} has no label for {unlabelled[0]}")
    index = {frame: number for number, frame in enumerate(frames)}
    annotations = Annotations(
        accepted=[frozenset(labels[frame]) for frame in frames],
        sequences=[[index[frame] for frame in row] for row in sets],
    )
    return open_listed([(folder / frame, labels[frame][0]) for frame in frames], transform, annotations)


def _vid_labels(file: Any) -> dict[str, list[int]]:
    return {frame: [int(label) for label in labels] for frame, labels in json.load(file).items()}


def _check_classes(folder: Path) -> None:
    """Compare ``misc``, where it is there, with the classes that are known: labels are indices into them."""
    paths = [folder / f"{n}.json" for n in ("rev_wnid_map", "imagenet_class_index", "imagenet_vid_class_index")]
    if not all(path.is_file() for path in paths):
        return
    imagenet_of, imagenet, vid = (_read(path, json.load) for path in paths)
    try:
        numbers = {entry[0]: int(key) for key, entry in imagenet.items()}
        label_map = [sorted(numbers[wnid] for wnid in imagenet_of[vid[str(i)][0]]) for i in range(len(vid))]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        label_map = []
    if label_map != [sorted(row) for row in _label_map("ImageNetVid")]:
        raise DataError(f"{folder} maps other classes to ImageNet's than the published files do")


def _marks(needed: Set[str], file: Any) -> dict[str, frozenset[str]]:
    """Read what YTBB's reviewers marked: labels by key, a later row in place of an earlier one."""
    content = json.load(file)
    labels = content["labels"]
    if not needed <= set(labels):
        raise ValueError(f"it has no label {min(needed - set(labels))!r}")
    return {row["key"]: frozenset(labels[index] for index in row["labels"]) for row in content["annotations"]}


def _boxes(file: Any) -> dict[str, int]:
    """Read the labels of YTBB's boxes by video and time; the file has "none" and "car" the other way round."""
    swapped = {22: 23, 23: 22}
    rows = [(f"{row['ytid']}_{row['time_ms']}", int(row["label"])) for row in csv.DictReader(file)]
    return {key: swapped.get(label, label) for key, label in rows}


def _short(key: str) -> str:
    """Cut a key that may be a whole path to ``VIDEO_MS/frame-N.jpg``."""
    return "/".join(key.split("/")[-2:])


def _read_ytbb(name: str, root: Path, parse: Callable[[Any], Any]) -> Any:
    for folder in YTBB_METADATA:
        if (root / folder / name).is_file():
            return _read(root / folder / name, parse, ANNOTATIONS_AGAIN)
    hint = f"fetch it from {ANNOTATIONS} and put it below {root} as {YTBB_METADATA[0]}/{name}"
    raise DataError(f"there is no {name} below {root}", hint)


def _ytbb_sets(root: Path) -> Iterator[tuple[list[str], int, frozenset[int]]]:
    """Yield the frames (of an anchor and its neighbours), the label of the box, and all right labels, for each good anchor.

    As the code of WiSE-FT selects them: an anchor is "good", neither "bad" nor "unsure", and in no pair marked "bad-anchor".
    A pair counts if it is "similar" and has none of nine problems.
    """
    anchors = _read_ytbb(ANCHORS, root, partial(_marks, {"good", "bad", "unsure"}))
    pairs = _read_ytbb(PAIRS, root, partial(_marks, {"similar", *PROBLEMS}))
    boxes = _read_ytbb(BOXES, root, _boxes)
    bad = {_short(key.split(",")[0]) for key, marks in pairs.items() if "bad-anchor" in marks}
    similar = {key for key, marks in pairs.items() if "similar" in marks and not marks & PROBLEMS}
    good = {_short(key): marks for key, marks in anchors.items() if "good" in marks and not marks & {"bad", "unsure"}}
    number = {name: index for index, name in enumerate(names("YTBB")["classes"])}
    for anchor in sorted(good.keys() - bad):
        parts = re.fullmatch(KEY, anchor)
        if parts is None:
            raise DataError(f"{ANCHORS} has the key {anchor!r}, which names no frame", ANNOTATIONS_AGAIN)
        folder, middle = parts[1], int(parts[2])
        if folder not in boxes:
            raise DataError(f"{BOXES} has no row for the anchor {anchor}", ANNOTATIONS_AGAIN)
        near = [f"{folder}/frame-{middle + away}.jpg" for away in range(-MAX_FRAMES_AWAY, MAX_FRAMES_AWAY + 1) if away]
        sequence = [anchor, *(frame for frame in near if f"{anchor},{frame}" in similar)]
        label = boxes[folder]
        yield sequence, label, frozenset({label, *(number[mark] for mark in good[anchor] if mark in number)})


def _open_ytbb(split: str, root: Path, transform: Transform | None) -> FileSamples:
    """Open each anchor and its neighbours, one after the other; the label is that of the anchor's box."""
    folder = first_folder(root, YTBB_FRAMES)
    files: list[tuple[Path | str, int]] = []
    accepted, sequences = [], []
    for sequence, label, labels in _ytbb_sets(root):
        sequences.append(range(len(files), len(files) + len(sequence)))
        files += [(folder / frame, label) for frame in sequence]
        accepted += [labels] * len(sequence)
    return open_listed(files, transform, Annotations(accepted=accepted, sequences=sequences))


def datasets() -> list[Dataset]:
    """List ImageNetVidRobust and YTBBRobust, and ImageNet's images of their classes."""
    tasks = ((VID, "ImageNetVid", _open_vid, VID_LAYOUTS), (YTBB, "YTBB", _open_ytbb, YTBB_LAYOUTS))
    return [
        dataset
        for name, key, opener, layouts in tasks
        for dataset in shift(
            name, names(key)["classes"], opener, _label_map(key), metric="pm0", extra_metrics=("pm10",), source=SOURCE,
            layouts=layouts, archives=ARCHIVES,
        )
    ]  # fmt: skip
