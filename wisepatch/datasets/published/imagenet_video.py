"""Frames of videos and their neighbours: ImageNet-Vid-Robust and YTBB-Robust (Shankar et al. 2021, arXiv 1906.02168).

A model is right on an anchor frame (pm0), or on it and on all similar frames at most ten away (pm10). Both sets are tested
with ImageNet's head, a class having the largest logit of those that stand for it. None stands for five of YTBB's classes,
which are never predicted here; the code of WiSE-FT gives four of these a logit of 0, below nearly all that CLIP gives.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from wisepatch.datasets.base import Annotations, Dataset
from wisepatch.datasets.folder import FileSamples
from wisepatch.datasets.names import names
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published.imagenet import val_classes
from wisepatch.datasets.published.readers import missing
from wisepatch.errors import DataError
from wisepatch.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from wisepatch.datasets.base import Transform

VID, YTBB = "ImageNetVidRobust", "YTBBRobust"
SOURCE = (
    "https://do-imagenet-classifiers-generalize-across-time.s3-us-west-2.amazonaws.com/imagenet_vid_ytbb_robust.tar.gz"
)
ANNOTATIONS = "https://github.com/mlfoundations/wise-ft/tree/master/src/datasets/ytbb-robust_metadata"
ARCHIVE = (
    "",
    "imagenet_vid_ytbb_robust/",
)  # moved to the data folder, as WiSE-FT advises, or left in the archive's own
VID_FILES = ("val", "metadata/labels.json", "metadata/pmsets.json")
VID_LAYOUTS = tuple(f"{top}imagenet-vid-robust/{{{','.join(VID_FILES)}}}" for top in ARCHIVE)
ANCHORS, PAIRS, BOXES = "anchor_labels.json", "pmk_labels.json", "ytbb_robustness_test_anchors_full.csv"
YTBB_FRAMES = tuple(f"{top}ytbb-robust/ytbb_videos" for top in ARCHIVE)
YTBB_METADATA = (*(f"{top}ytbb-robust/metadata" for top in ARCHIVE), *(f"{top}ytbb-robust" for top in ARCHIVE),
                 "ytbb-robust_metadata")  # fmt: skip
YTBB_LAYOUTS = tuple(
    "{" + ",".join([f"{frames}/*/*.jpg", *(f"{metadata}/{name}" for name in (ANCHORS, PAIRS, BOXES))]) + "}"
    for frames in YTBB_FRAMES
    for metadata in YTBB_METADATA
)
FARTHEST = 10  # frames between an anchor and a neighbour
PROBLEMS = frozenset(
    ("dissimilar", "problematic", "incorrect", "dont know", "deformation", "background-change", "occlusion-increased",
     "blur-increase", "bad-anchor")
)  # fmt: skip
KEY = r"([^/]+_\d+)/frame-(\d+)\.jpg"


def _merges(task: str) -> tuple[tuple[int, ...], ...]:
    """The indices of ImageNet's classes that stand for each class of ``task``; none for some."""
    known = names(task)
    return tuple(tuple(known["imagenet"].get(str(index), ())) for index in range(len(known["classes"])))


def _read(task: str, path: Path, parse: Callable[[Any], Any], source: str) -> Any:
    """What ``parse`` makes of the text file ``path``. Raises :class:`DataError` for a file that is not the published one."""
    import csv

    try:
        with path.open(newline="", encoding="utf-8") as lines:
            return parse(lines)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error) as error:
        raise DataError(
            f"{task}: {path} is not the published file: {type(error).__name__}: {error}",
            f"fetch it again from {source}",
        ) from error


def _frames(
    task: str,
    folder: Path,
    frames: Sequence[tuple[str, int]],
    transform: Transform | None,
    annotations: Annotations,
) -> FileSamples:
    """The frames ``(path below folder, label)``. Raises :class:`DataError` where some are not on the disk."""
    absent = [frame for frame in dict.fromkeys(frame for frame, _ in frames) if not (folder / frame).is_file()]
    if absent:
        raise DataError(
            f"{task}: {len(absent)} of its frames are not below {folder}, the first is {absent[0]}",
            f"fetch {SOURCE} again and unpack all of it",
        )
    return FileSamples([(folder / frame, label) for frame, label in frames], transform, annotations)


def _open_vid(split: str, root: Path, transform: Transform | None = None) -> FileSamples:
    """The frames that an anchor's set names, each once; a frame is judged by its own labels, of which the first is its label."""
    found = next((layout for layout in VID_LAYOUTS if (root / layout.split("/{")[0]).is_dir()), None)
    if found is None:
        raise missing(VID, root, VID_LAYOUTS, SOURCE)
    folder = root / found.split("/{")[0]
    absent = [name for name in VID_FILES if not (folder / name).exists()]
    if absent:
        raise missing(VID, root, VID_LAYOUTS, SOURCE, f"{folder} has no {absent[0]}")
    _check_classes(folder / "misc")
    labels = _read(VID, folder / "metadata/labels.json", _vid_labels, SOURCE)
    sets = _read(VID, folder / "metadata/pmsets.json", _vid_sets, SOURCE)
    order = sorted({frame for row in sets for frame in row})
    unlabelled = [frame for frame in order if not labels.get(frame)]
    if unlabelled:
        path = folder / "metadata/labels.json"
        raise DataError(f"{VID}: {path} has no label for {unlabelled[0]}", f"fetch it again from {SOURCE}")
    place = {frame: index for index, frame in enumerate(order)}
    annotations = Annotations(
        accepted=[frozenset(labels[frame]) for frame in order],
        sequences=[[place[frame] for frame in row] for row in sets],
    )
    return _frames(VID, folder, [(frame, labels[frame][0]) for frame in order], transform, annotations)


def _vid_labels(lines: Any) -> dict[str, list[int]]:
    return {frame: [int(label) for label in labels] for frame, labels in json.load(lines).items()}


def _vid_sets(lines: Any) -> list[list[str]]:
    return [[anchor, *neighbours] for anchor, neighbours in json.load(lines).items()]


def _check_classes(folder: Path) -> None:
    """Compare ``misc``, where it is there, with the classes that are known: labels are indices into them."""
    index = {}
    for name in ("rev_wnid_map", "imagenet_class_index", "imagenet_vid_class_index"):
        path = folder / f"{name}.json"
        if not path.is_file():
            return
        index[name] = _read(VID, path, json.load, SOURCE)
    try:
        numbers = {entry[0]: int(key) for key, entry in index["imagenet_class_index"].items()}
        own = {int(key): entry[0] for key, entry in index["imagenet_vid_class_index"].items()}
        found = [sorted(numbers[wnid] for wnid in index["rev_wnid_map"][own[place]]) for place in range(len(own))]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        found = []
    if found != [sorted(merged) for merged in _merges("ImageNetVid")]:
        raise DataError(
            f"{VID}: {folder} maps other classes to ImageNet's than the published files do",
            f"fetch it again from {SOURCE}",
        )


class FrameLists(NamedTuple):
    """A file of annotations: its rows by key, a later row in place of an earlier one, with the labels' names."""

    rows: dict[str, frozenset[str]]
    names: frozenset[str]


def _frame_lists(lines: Any) -> FrameLists:
    read = json.load(lines)
    labels = read["labels"]
    return FrameLists(
        {row["key"]: frozenset(labels[index] for index in row["labels"]) for row in read["annotations"]},
        frozenset(labels),
    )


def _boxes(lines: Any) -> dict[str, int]:
    """The labels of YTBB's boxes by video and time; the file has "none" and "car" the other way round."""
    import csv

    swapped = {22: 23, 23: 22}
    rows = [(f"{row['ytid']}_{row['time_ms']}", int(row["label"])) for row in csv.DictReader(lines)]
    return {key: swapped.get(label, label) for key, label in rows}


def _short(key: str) -> str:
    """``VIDEO_MS/frame-N.jpg`` of a key that may be a whole path."""
    return "/".join(key.split("/")[-2:])


def _ytbb_file(name: str, root: Path) -> Path:
    found = next((root / folder / name for folder in YTBB_METADATA if (root / folder / name).is_file()), None)
    if found is None:
        raise DataError(
            f"{YTBB}: there is no {name} below {root}",
            f"fetch it from {ANNOTATIONS} and put it below {root} as {YTBB_METADATA[0]}/{name}",
        )
    return found


def _ytbb_sets(root: Path) -> Iterator[tuple[list[str], int, frozenset[int]]]:
    """Yield of each anchor that reviewers kept its frame and its neighbours', the label of its box, and all labels.

    As the code of WiSE-FT selects them: an anchor is "good", neither "bad" nor "unsure", and in no pair marked "bad-anchor".
    A pair counts if it is "similar" and has none of nine problems.
    """
    paths = {name: _ytbb_file(name, root) for name in (ANCHORS, PAIRS, BOXES)}
    anchors, pairs = (_read(YTBB, paths[name], _frame_lists, ANNOTATIONS) for name in (ANCHORS, PAIRS))
    boxes = _read(YTBB, paths[BOXES], _boxes, ANNOTATIONS)
    for read, name, needed in ((anchors, ANCHORS, {"good", "bad", "unsure"}), (pairs, PAIRS, {"similar", *PROBLEMS})):
        if not needed <= read.names:
            problem = f"has no label {min(needed - read.names)!r}"
            raise DataError(f"{YTBB}: {paths[name]} {problem}", f"fetch it again from {ANNOTATIONS}")
    bad = {_short(key.split(",")[0]) for key, marks in pairs.rows.items() if "bad-anchor" in marks}
    valid = {key for key, marks in pairs.rows.items() if "similar" in marks and not marks & PROBLEMS}
    number = {name: index for index, name in enumerate(names("YTBB")["classes"])}
    kept = {
        _short(key): marks for key, marks in anchors.rows.items() if "good" in marks and not marks & {"bad", "unsure"}
    }
    for anchor in sorted(kept.keys() - bad):
        parts = re.fullmatch(KEY, anchor)
        if parts is None:
            problem = f"has the key {anchor!r}, which names no frame"
            raise DataError(f"{YTBB}: {paths[ANCHORS]} {problem}", f"fetch it again from {ANNOTATIONS}")
        folder, middle = parts[1], int(parts[2])
        if folder not in boxes:
            problem = f"has no row for the anchor {anchor}"
            raise DataError(f"{YTBB}: {paths[BOXES]} {problem}", f"fetch it again from {ANNOTATIONS}")
        near = [f"{folder}/frame-{middle + away}.jpg" for away in range(-FARTHEST, FARTHEST + 1) if away]
        added = {number[mark] for mark in kept[anchor] if mark in number}
        yield (
            [anchor, *(n for n in near if f"{anchor},{n}" in valid)],
            boxes[folder],
            frozenset({boxes[folder], *added}),
        )


def _open_ytbb(split: str, root: Path, transform: Transform | None = None) -> FileSamples:
    """Each anchor and its neighbours, one after the other, judged by the labels of the anchor; the label is its box's."""
    folder = next((root / name for name in YTBB_FRAMES if (root / name).is_dir()), None)
    if folder is None:
        raise missing(YTBB, root, YTBB_FRAMES, SOURCE)
    frames: list[tuple[str, int]] = []
    accepted, sequences = [], []
    for row, label, labels in _ytbb_sets(root):
        sequences.append(list(range(len(frames), len(frames) + len(row))))
        frames += [(frame, label) for frame in row]
        accepted += [labels] * len(row)
    return _frames(YTBB, folder, frames, transform, Annotations(accepted=accepted, sequences=sequences))


@hookimpl
def register_datasets() -> list[Dataset]:
    """ImageNetVidRobust and YTBBRobust, and ImageNet's images of their classes."""
    found = []
    for name, key, opened, layouts in (
        (VID, "ImageNetVid", _open_vid, VID_LAYOUTS),
        (YTBB, "YTBB", _open_ytbb, YTBB_LAYOUTS),
    ):
        classes, label_map = tuple(names(key)["classes"]), _merges(key)
        found += [
            Dataset(
                name, classes, opened, TEMPLATES["ImageNet"], splits=("test",), metric="pm0", extra_metrics=("pm10",),
                family="ImageNet", source=SOURCE, head_classes=names("ImageNet"), label_map=label_map, layouts=layouts,
            ),
            val_classes(f"{name}ValClasses", classes, label_map),
        ]  # fmt: skip
    return found
