"""ImageNet-Vid-Robust and YTBB-Robust: miniature files in the publishers' own layouts."""

import csv

import numpy as np
import open_clip
import pytest
import torch

from tests.datasets.published.layouts import (
    BENCHMARKS,
    FOLDERS,
    task,
    write_images,
    write_json,
)
from wisepatch.analysis.metrics import measurements
from wisepatch.datasets.names import names
from wisepatch.datasets.published import imagenet_video as video
from wisepatch.datasets.samples import Annotations, labels_of
from wisepatch.errors import DataError
from wisepatch.evaluation.passes import class_logits


def test_ytbb_has_the_published_classes_and_five_without_imagenets():
    dataset, published = task("YTBBRobust"), BENCHMARKS["ytbb"]
    assert list(dataset.classes) == published["classes"]
    assert {str(i): list(m) for i, m in enumerate(dataset.label_map) if m} == published["imagenet"]
    assert [c for c, m in zip(dataset.classes, dataset.label_map, strict=True) if not m] == [
        "cow", "giraffe", "skateboard", "toilet", "none",
    ]  # fmt: skip


def test_vid_classes_stand_for_288_of_imagenets():
    dataset = task("ImageNetVidRobust")
    by_name = dict(zip(dataset.classes, dataset.label_map, strict=True))
    imagenet = open_clip.IMAGENET_CLASSNAMES
    assert [imagenet[i] for i in by_name["fox"]] == ["red fox", "kit fox", "Arctic fox", "grey fox"]
    assert [imagenet[i] for i in by_name["giant panda"]] == ["giant panda"]
    assert [imagenet[i] for i in by_name["motorcycle"]] == ["moped"]
    assert [imagenet[i] for i in by_name["zebra"]] == ["zebra"]
    flat = [i for m in dataset.label_map for i in m]
    assert len(flat) == len(set(flat)) == 288


def write_vid(data, below="imagenet-vid-robust"):
    """Two videos, three anchors; two of them share neighbours, one has none. One frame on the disk is in no set."""
    folder = data / below
    frame = "val/ILSVRC2015_val_0000000{}/{:06}.JPEG".format
    sets = {frame(0, 3): [frame(0, 2), frame(0, 4)], frame(0, 4): [frame(0, 3)], frame(1, 1): []}
    labels = {frame(0, i): [8] for i in range(6)} | {frame(0, 2): [7], frame(1, 1): [9, 8]}
    write_images(folder, labels)
    write_json(folder / "metadata/pmsets.json", sets)
    write_json(folder / "metadata/labels.json", labels)
    known = names("ImageNetVid")
    own = {str(i): [wnid, name] for i, (wnid, name) in enumerate(zip(known["folders"], known["classes"], strict=True))}
    reverse = {own[key][0]: [FOLDERS[i] for i in indices] for key, indices in known["imagenet"].items()}
    write_json(folder / "misc/imagenet_vid_class_index.json", own)
    write_json(folder / "misc/imagenet_class_index.json", {str(i): [wnid, "x"] for i, wnid in enumerate(FOLDERS)})
    write_json(folder / "misc/rev_wnid_map.json", reverse)
    write_json(folder / "misc/wnid_map.json", {wnid: key for key, wnids in reverse.items() for wnid in wnids})
    return folder, sets, labels


def slow_scores(predictions, labels, sets):
    """The definition, word for word: an anchor's own answer, and the worst answer among it and its neighbours."""
    own = [float(predictions[anchor] in labels[anchor]) for anchor in sets]
    worst = [min(float(predictions[f] in labels[f]) for f in [anchor, *near]) for anchor, near in sets.items()]
    return sum(own) / len(own), sum(worst) / len(worst)


def measured(split, answers, classes):
    labels = np.array(labels_of(split.samples))
    found = {}
    for name in ("pm0", "pm10"):
        found |= dict(measurements(name, labels, np.array(answers), classes, split.annotations))
    return found["pm0"].value, found["pm10"].value


@pytest.mark.parametrize("below", ["imagenet-vid-robust", "imagenet_vid_ytbb_robust/imagenet-vid-robust"])
def test_vid_robust_is_read_as_anchors_with_neighbours(below, data):
    folder, sets, labels = write_vid(data, below)
    dataset = task("ImageNetVidRobust")
    split = dataset.split("test", data)
    files = [str(path.relative_to(folder)) for path, _ in split.samples.files]
    assert files == sorted({f for anchor, near in sets.items() for f in [anchor, *near]})  # each once; no other
    assert [[files[i] for i in row] for row in split.annotations.sequences] == [[a, *near] for a, near in sets.items()]
    assert [set(some) for some in split.annotations.accepted] == [set(labels[f]) for f in files]
    assert [split[i][1] for i in range(len(split))] == [7, 8, 8, 9]
    assert (dataset.metric, dataset.extra_metrics, dataset.classes[9]) == ("pm0", ("pm10",), "domestic cat")
    assert dataset.find(data)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        answers = rng.choice([7, 8, 8, 9], len(split))
        scores = measured(split, answers, 30)
        assert scores == slow_scores(dict(zip(files, answers, strict=True)), labels, sets)
        seen.add(scores)
    assert len(seen) > 4


@pytest.mark.parametrize("name", ["metadata/labels.json", "metadata/pmsets.json"])
def test_vid_robust_names_the_file_that_is_missing_or_broken(name, data):
    folder, _, _ = write_vid(data)
    (folder / name).write_text("{")
    with pytest.raises(DataError, match=f"{name} is not the published file") as caught:
        task("ImageNetVidRobust").split("test", data)
    assert "fetch it again from https://" in caught.value.hint
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"ImageNetVidRobust is not below .*{name} is missing"):
        task("ImageNetVidRobust").split("test", data)


def test_vid_robust_names_a_missing_frame_a_missing_label_and_other_classes(data):
    folder, sets, labels = write_vid(data)
    anchor = next(iter(sets))
    (folder / anchor).unlink()
    with pytest.raises(DataError, match=f"1 of 4 images are missing, the first is .*{anchor}"):
        task("ImageNetVidRobust").split("test", data)
    write_json(folder / "metadata/labels.json", {f: found for f, found in labels.items() if f != anchor})
    with pytest.raises(DataError, match=f"has no label for {anchor}"):
        task("ImageNetVidRobust").split("test", data)
    for broken in ({}, {"n02084071": ["n00000000"]}, []):
        write_json(folder / "misc/rev_wnid_map.json", broken)
        with pytest.raises(DataError, match="maps other classes to ImageNet's"):
            task("ImageNetVidRobust").split("test", data)


ANCHOR_MARKS = ["good", "unsure", "bad", *BENCHMARKS["ytbb"]["classes"]]


PAIR_MARKS = ["similar", "correct", *sorted(video.PROBLEMS), "other"]


ANCHORS = {  # frame: (marks, label in the CSV, neighbours with their marks)
    "aaa_bb_1000/frame-30.jpg": (["good", "dog"], 7, {29: ["similar"], 31: ["similar", "occlusion-increased"],
                                                      40: ["similar", "correct"], 41: ["similar"], 20: ["similar"]}),
    "ccc_2000/frame-5.jpg": (["good"], 22, {4: ["correct"], 6: ["similar", "other"]}),
    "ddd_3000/frame-9.jpg": (["good", "unsure"], 1, {8: ["similar"]}),
    "eee_4000/frame-9.jpg": (["bad"], 1, {8: ["similar"]}),
    "fff_5000/frame-9.jpg": (["good"], 1, {8: ["similar"], 10: ["bad-anchor"]}),
    "ggg_6000/frame-9.jpg": (["good"], 23, {}),
    "hhh_7000/frame-9.jpg": ([], 1, {8: ["similar"]}),
}  # fmt: skip


KEPT = {  # by hand, from the rules: the frames of each sequence, and the labels that are right
    "aaa_bb_1000/frame-30.jpg": ([20, 29, 40], {7, 19}),
    "ccc_2000/frame-5.jpg": ([6], {23}),
    "ggg_6000/frame-9.jpg": ([], {22}),
}


def write_ytbb(data, frames="ytbb-robust/ytbb_videos", metadata="ytbb-robust/metadata"):
    """Annotations as they are published: some keys are whole paths, and a later row counts in place of an earlier one."""
    anchors = [{"key": "ccc_2000/frame-5.jpg", "notes": "", "labels": [2]}]
    pairs, rows = [], []
    for number, (key, (marks, label, near)) in enumerate(ANCHORS.items()):
        prefix = "/home/ubuntu/anchors/" if number % 2 == 0 and number else ""
        anchors.append({"key": prefix + key, "notes": "", "labels": [ANCHOR_MARKS.index(m) for m in marks]})
        folder = key.split("/")[0]
        rows.append((*folder.rsplit("_", 1), label))
        write_images(data / frames, [key, *(f"{folder}/frame-{n}.jpg" for n in near), f"{folder}/frame-99.jpg"])
        pairs += [
            {"key": f"{key},{folder}/frame-{n}.jpg", "notes": "", "labels": [PAIR_MARKS.index(m) for m in some]}
            for n, some in near.items()
        ]
    write_json(data / metadata / video.ANCHORS, {"annotations": anchors, "labels": ANCHOR_MARKS})
    write_json(data / metadata / video.PAIRS, {"annotations": pairs, "labels": PAIR_MARKS})
    with (data / metadata / video.BOXES).open("w", newline="") as file:
        csv.writer(file).writerows([("ytid", "time_ms", "label"), *rows])
    return data / frames


@pytest.mark.parametrize(
    ("frames", "metadata"),
    [
        ("ytbb-robust/ytbb_videos", "ytbb-robust/metadata"),
        ("ytbb-robust/ytbb_videos", "ytbb-robust"),
        ("ytbb-robust/ytbb_videos", "ytbb-robust_metadata"),
        ("imagenet_vid_ytbb_robust/ytbb-robust/ytbb_videos", "ytbb-robust_metadata"),
    ],
)
def test_ytbb_robust_selects_what_its_reviewers_kept(frames, metadata, data):
    folder = write_ytbb(data, frames, metadata)
    dataset = task("YTBBRobust")
    split = dataset.split("test", data)
    files = [str(path.relative_to(folder)) for path, _ in split.samples.files]
    annotations = split.annotations
    sets = {files[row[0]]: [files[i] for i in row[1:]] for row in annotations.sequences}
    near = {key: [f"{key.split('/')[0]}/frame-{n}.jpg" for n in found] for key, (found, _) in KEPT.items()}
    assert sets == near
    accepted = {files[row[0]]: {frozenset(annotations.accepted[i]) for i in row} for row in annotations.sequences}
    assert accepted == {key: {frozenset(labels)} for key, (_, labels) in KEPT.items()}
    assert [split[i][1] for i in range(len(split))] == [7, 7, 7, 7, 23, 23, 22]
    assert (dataset.metric, dataset.extra_metrics) == ("pm0", ("pm10",))
    assert dataset.find(data)
    labels = {f: KEPT[anchor][1] for anchor, found in near.items() for f in [anchor, *found]}
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(50):
        answers = rng.choice([7, 19, 23, 22], len(split))
        scores.append(measured(split, answers, 24))
        assert scores[-1] == slow_scores(dict(zip(files, answers, strict=True)), labels, near)
    assert len(set(scores)) > 2


def test_unmapped_classes_of_ytbb_are_never_predicted():
    logits = torch.full((1, 1000), -50.0)
    said = class_logits(task("YTBBRobust").label_map)(logits)
    unmapped = [task("YTBBRobust").classes.index(c) for c in ("cow", "giraffe", "skateboard", "toilet", "none")]
    assert said[0, unmapped].tolist() == [-torch.inf] * 5
    assert said.argmax(1).item() not in unmapped


@pytest.mark.parametrize("name", [video.ANCHORS, video.PAIRS, video.BOXES])
def test_ytbb_robust_names_the_annotations_that_are_missing_or_broken(name, data):
    write_ytbb(data)
    path = data / "ytbb-robust/metadata" / name
    path.write_text("[")
    with pytest.raises(DataError, match=f"{name} (is not the published file|has no row for the anchor)"):
        task("YTBBRobust").split("test", data)
    path.unlink()
    with pytest.raises(DataError, match=f"there is no {name} below") as caught:
        task("YTBBRobust").split("test", data)
    assert "mlfoundations/wise-ft" in caught.value.hint
    assert f"ytbb-robust/metadata/{name}" in caught.value.hint


def test_ytbb_robust_names_labels_keys_and_frames_that_are_not_there(data):
    folder = write_ytbb(data)
    (folder / "ccc_2000/frame-6.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 7 images are missing, the first is .*ccc_2000/frame-6.jpg"):
        task("YTBBRobust").split("test", data)
    path = data / "ytbb-robust/metadata" / video.ANCHORS
    good = {"annotations": [{"key": "frame-6.jpg", "labels": [0]}], "labels": ANCHOR_MARKS}
    write_json(path, good)
    with pytest.raises(DataError, match=r"has the key 'frame-6\.jpg', which names no frame"):
        task("YTBBRobust").split("test", data)
    write_json(path, good | {"labels": ["good", "bad"]})
    with pytest.raises(DataError, match="has no label 'unsure'"):
        task("YTBBRobust").split("test", data)


def test_context_survives_a_subset_of_whole_sequences(data):
    write_ytbb(data)
    whole = task("YTBBRobust").split("test", data).annotations
    part = whole.of([4, 5, 6])
    assert isinstance(part, Annotations)
    assert [list(row) for row in part.sequences] == [[0, 1], [2]]
