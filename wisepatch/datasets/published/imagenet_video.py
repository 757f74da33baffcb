"""Frames of videos and their neighbours: ImageNet-Vid-Robust and YTBB-Robust (Shankar et al. 2021, arXiv 1906.02168).

A model is right on an anchor frame (pm0), or on it and on all similar frames at most ten away (pm10). Both sets are tested
with ImageNet's head, a class having the largest logit of those that stand for it. None stands for five of YTBB's classes,
which are never predicted here; the code of WiSE-FT gives four of these a logit of 0, below nearly all that CLIP gives.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wisepatch.datasets.base import Annotations, Dataset, Transform
from wisepatch.datasets.folder import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.published.imagenet import shift
from wisepatch.datasets.published.readers import first_folder, missing, open_listed
from wisepatch.errors import DataError

VID, YTBB = "ImageNetVidRobust", "YTBBRobust"
SOURCE = (
    "https://do-imagenet-classifiers-generalize-across-time.s3-us-west-2.amazonaws.com/imagenet_vid_ytbb_robust.tar.gz"
)
ANNOTATIONS = "https://github.com/mlfoundations/wise-ft/tree/master/src/datasets/ytbb-robust_metadata"
ALL_FRAMES = f"fetch {SOURCE} again and unpack all of it"
ARCHIVE = (
    "",
    "imagenet_vid_ytbb_robust/",
)  # moved to the data folder, as WiSE-FT advises, or left in the archive's own
VID_FOLDERS = tuple(f"{top}imagenet-vid-robust" for top in ARCHIVE)
VID_FILES = ("val", "metadata/labels.json", "metadata/pmsets.json")
VID_LAYOUTS = tuple(f"{folder}/{{{','.join(VID_FILES)}}}" for folder in VID_FOLDERS)
ANCHORS, PAIRS, BOXES = "anchor_labels.json", "pmk_labels.json", "ytbb_robustness_test_anchors_full.csv"
YTBB_FRAMES = tuple(f"{top}ytbb-robust/ytbb_videos" for top in ARCHIVE)
YTBB_METADATA = (*(f"{top}ytbb-robust/metadata" for top in ARCHIVE), *(f"{top}ytbb-robust" for top in ARCHIVE),
                 "ytbb-robust_metadata")  # fmt: skip
YTBB_LAYOUTS = tuple(
    "{" + ",".join([f"{frames}/*/*.jpg", *(f"{metadata}/{name}" for name in (ANCHORS, PAIRS, BOXES))]) + "}"
    for frames in YTBB_FRAMES
    for metadata in YTBB_METADATA
)
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


def _read(task: str, path: Path, parse: Callable[[Any], Any], source: str) -> Any:
    """Parse the text file ``path``. Raises :class:`DataError` for a file that is not the published one."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return parse(file)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error) as error:
        raise _broken(task, path, f"is not the published file: {type(error).__name__}: {error}", source) from error


def _broken(task: str, path: Path, problem: str, source: str = SOURCE) -> DataError:
    return DataError(f"{task}: {path} {problem}", f"fetch it again from {source}")


def _open_vid(split: str, root: Path, transform: Transform | None = None) -> FileSamples:
    """Open the frames that an anchor's set names, each once; all of a frame's labels are right, the first is its label."""
    folder = first_folder(VID, root, VID_FOLDERS, VID_LAYOUTS, SOURCE)
    absent = [name for name in VID_FILES if not (folder / name).exists()]
    if absent:
        raise missing(VID, root, VID_LAYOUTS, SOURCE, f"{folder} has no {absent[0]}")
    _check_classes(folder / "misc")
    labels = _read(VID, folder / "metadata/labels.json", _vid_labels, SOURCE)
    sets = _read(VID, folder / "metadata/pmsets.json", _vid_sets, SOURCE)
    frames = sorted({frame for row in sets for frame in row})
    unlabelled = [frame for frame in frames if not labels.get(frame)]
    if unlabelled:
        raise _broken(VID, folder / "metadata/labels.json", f"has no label for {unlabelled[0]}")
    index = {frame: number for number, frame in enumerate(frames)}
    annotations = Annotations(
        accepted=[frozenset(labels[frame]) for frame in frames],
        sequences=[[index[frame] for frame in row] for row in sets],
    )
    files = [(folder / frame, labels[frame][0]) for frame in frames]
    return open_listed(VID, files, transform, hint=ALL_FRAMES, annotations=annotations)


def _vid_labels(file: Any) -> dict[str, list[int]]:
    return {frame: [int(label) for label in labels] for frame, labels in json.load(file).items()}


def _vid_sets(file: Any) -> list[list[str]]:
    return [[anchor, *neighbours] for anchor, neighbours in json.load(file).items()]


def _check_classes(folder: Path) -> None:
    """Compare ``misc``, where it is there, with the classes that are known: labels are indices into them."""
    paths = [folder / f"{n}.json" for n in ("rev_wnid_map", "imagenet_class_index", "imagenet_vid_class_index")]
    if not all(path.is_file() for path in paths):
        return
    imagenet_of, imagenet, vid = (_read(VID, path, json.load, SOURCE) for path in paths)
    try:
        numbers = {entry[0]: int(key) for key, entry in imagenet.items()}
        wnids = {int(key): entry[0] for key, entry in vid.items()}
        label_map = [sorted(numbers[wnid] for wnid in imagenet_of[wnids[label]]) for label in range(len(wnids))]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        label_map = []
    if label_map != [sorted(row) for row in _label_map("ImageNetVid")]:
        raise _broken(VID, folder, "maps other classes to ImageNet's than the published files do")


class FrameLists(NamedTuple):
    """Hold a file of annotations: labels by key, a later row in place of an earlier one, and the names of all labels."""

    rows: dict[str, frozenset[str]]
    names: frozenset[str]


def _frame_lists(file: Any) -> FrameLists:
    content = json.load(file)
    labels = content["labels"]
    rows = {row["key"]: frozenset(labels[index] for index in row["labels"]) for row in content["annotations"]}
    return FrameLists(rows, frozenset(labels))


def _boxes(file: Any) -> dict[str, int]:
    """Read the labels of YTBB's boxes by video and time; the file has "none" and "car" the other way round."""
    swapped = {22: 23, 23: 22}
    rows = [(f"{row['ytid']}_{row['time_ms']}", int(row["label"])) for row in csv.DictReader(file)]
    return {key: swapped.get(label, label) for key, label in rows}


def _short(key: str) -> str:
    """Cut a key that may be a whole path to ``VIDEO_MS/frame-N.jpg``."""
    return "/".join(key.split("/")[-2:])


def _ytbb_file(name: str, root: Path) -> Path:
    for folder in YTBB_METADATA:
        if (root / folder / name).is_file():
            return root / folder / name
    raise DataError(
        f"{YTBB}: there is no {name} below {root}",
        f"fetch it from {ANNOTATIONS} and put it below {root} as {YTBB_METADATA[0]}/{name}",
    )


def _ytbb_sets(root: Path) -> Iterator[tuple[list[str], int, frozenset[int]]]:
    """Yield the frames (of an anchor and its neighbours), the label of the box, and all right labels, for each good anchor.

    As the code of WiSE-FT selects them: an anchor is "good", neither "bad" nor "unsure", and in no pair marked "bad-anchor".
    A pair counts if it is "similar" and has none of nine problems.
    """
    paths = [_ytbb_file(name, root) for name in (ANCHORS, PAIRS, BOXES)]
    anchors, pairs = (_read(YTBB, path, _frame_lists, ANNOTATIONS) for path in paths[:2])
    boxes = _read(YTBB, paths[2], _boxes, ANNOTATIONS)
    for lists, path, needed in (
        (anchors, paths[0], {"good", "bad", "unsure"}),
        (pairs, paths[1], {"similar", *PROBLEMS}),
    ):
        if not needed <= lists.names:
            raise _broken(YTBB, path, f"has no label {min(needed - lists.names)!r}", ANNOTATIONS)
    bad = {_short(key.split(",")[0]) for key, marks in pairs.rows.items() if "bad-anchor" in marks}
    similar = {key for key, marks in pairs.rows.items() if "similar" in marks and not marks & PROBLEMS}
    good = {
        _short(key): marks for key, marks in anchors.rows.items() if "good" in marks and not marks & {"bad", "unsure"}
    }
    number = {name: index for index, name in enumerate(names("YTBB")["classes"])}
    for anchor in sorted(good.keys() - bad):
        parts = re.fullmatch(KEY, anchor)
        if parts is None:
            raise _broken(YTBB, paths[0], f"has the key {anchor!r}, which names no frame", ANNOTATIONS)
        folder, middle = parts[1], int(parts[2])
        if folder not in boxes:
            raise _broken(YTBB, paths[2], f"has no row for the anchor {anchor}", ANNOTATIONS)
        near = [f"{folder}/frame-{middle + away}.jpg" for away in range(-MAX_FRAMES_AWAY, MAX_FRAMES_AWAY + 1) if away]
        sequence = [anchor, *(frame for frame in near if f"{anchor},{frame}" in similar)]
        label = boxes[folder]
        yield sequence, label, frozenset({label, *(number[mark] for mark in good[anchor] if mark in number)})


def _open_ytbb(split: str, root: Path, transform: Transform | None = None) -> FileSamples:
    """Open each anchor and its neighbours, one after the other; the label is that of the anchor's box."""
    folder = first_folder(YTBB, root, YTBB_FRAMES, YTBB_FRAMES, SOURCE)
    files: list[tuple[Path | str, int]] = []
    accepted, sequences = [], []
    for sequence, label, labels in _ytbb_sets(root):
        sequences.append(range(len(files), len(files) + len(sequence)))
        files += [(folder / frame, label) for frame in sequence]
        accepted += [labels] * len(sequence)
    annotations = Annotations(accepted=accepted, sequences=sequences)
    return open_listed(YTBB, files, transform, hint=ALL_FRAMES, annotations=annotations)


def datasets() -> list[Dataset]:
    """List ImageNetVidRobust and YTBBRobust, and ImageNet's images of their classes."""
    tasks = ((VID, "ImageNetVid", _open_vid, VID_LAYOUTS), (YTBB, "YTBB", _open_ytbb, YTBB_LAYOUTS))
    return [
        dataset
        for name, key, opener, layouts in tasks
        for dataset in shift(
            name, names(key)["classes"], opener, _label_map(key), metric="pm0", extra_metrics=("pm10",), source=SOURCE,
            layouts=layouts,
        )
    ]  # fmt: skip
