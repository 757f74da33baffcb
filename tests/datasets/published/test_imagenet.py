"""ImageNet, its few-shot sets, its shifts and its videos: miniature files in the publishers' own layouts."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from wisepatch.analysis.metrics import measurements
from wisepatch.datasets.base import Annotations, cut_validation, labels_of
from wisepatch.datasets.names import names
from wisepatch.datasets.prompts import prompts
from wisepatch.datasets.published import imagenet_video as video
from wisepatch.datasets.published.imagenet import SHOTS, open_imagenet
from wisepatch.errors import DataError
from wisepatch.evaluation.endpoints import merged
from wisepatch.plugins import find_task, registry

BENCHMARKS = json.loads((Path(__file__).parents[2] / "data" / "benchmarks.json").read_text())
FOLDERS = names("ImageNet folders")
SHIFTS = ["ImageNetV2", "ImageNetSketch", "ImageNetR", "ImageNetA", "ObjectNet", "ImageNetVidRobust", "YTBBRobust"]
RESTRICTED = SHIFTS[2:]
VAL_CLASSES = [f"{name}ValClasses" for name in RESTRICTED]


def task(name):
    return find_task(name).dataset


def picture(kind="JPEG", size=(8, 6), color="red"):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()


def write(folder, files, content=None):
    """The same small image under each of the names ``files`` below ``folder``."""
    content = content or picture()
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Every class of ImageNet: ten training images and one test image, named as they are published."""
    root = tmp_path_factory.mktemp("imagenet")
    content = picture()
    for number, wnid in enumerate(FOLDERS):
        for folder in (root / "imagenet/train" / wnid, root / "imagenet/val_in_folder" / wnid):
            folder.mkdir(parents=True)
        for image in range(10):
            (root / "imagenet/train" / wnid / f"{wnid}_{image}.JPEG").write_bytes(content)
        (root / "imagenet/val_in_folder" / wnid / f"ILSVRC2012_val_{number + 1:08}.JPEG").write_bytes(content)
    return root


# names and prompts


def test_classes_and_prompts_of_imagenet_are_open_clips():
    dataset = task("ImageNet")
    assert list(dataset.classes) == list(open_clip.IMAGENET_CLASSNAMES)
    ours = prompts("zebra", dataset.templates)
    assert ours == [template("zebra") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert list(dataset.templates) == BENCHMARKS["templates"]["ImageNet"]


def test_folders_of_imagenet_are_sorted_as_every_reader_sorts_them():
    assert list(FOLDERS) == sorted(FOLDERS)
    assert len(set(FOLDERS)) == 1000
    assert (FOLDERS[0], FOLDERS[404], FOLDERS[999]) == ("n01440764", "n02690373", "n15075141")


@pytest.mark.parametrize("name", ["ImageNetR", "ImageNetA"])
def test_restricted_shifts_have_the_published_200_classes(name):
    indices = BENCHMARKS["imagenet_subsets"][name]
    dataset = task(name)
    assert dataset.label_map == tuple((index,) for index in indices)
    assert list(dataset.classes) == [open_clip.IMAGENET_CLASSNAMES[index] for index in indices]


def test_objectnet_has_the_published_113_classes_in_the_order_of_their_folders():
    dataset, published = task("ObjectNet"), BENCHMARKS["objectnet"]
    folders = sorted(published)
    assert list(dataset.classes) == [published[folder]["name"].lower() for folder in folders]
    assert dataset.label_map == tuple(tuple(published[folder]["imagenet"]) for folder in folders)
    assert len(set(folders)) == 113


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


@pytest.mark.parametrize("name", [*SHIFTS, *VAL_CLASSES, *(f"ImageNet{k}" for k in SHOTS)])
def test_every_shift_has_the_head_of_imagenet_without_any_data(name):
    dataset = task(name)
    assert dataset.head_names == task("ImageNet").classes
    assert dataset.templates == task("ImageNet").templates


@pytest.mark.parametrize("name", [*SHIFTS, *VAL_CLASSES])
def test_shifts_cannot_be_trained_on(name, data):
    with pytest.raises(DataError, match="no 'train' split") as caught:
        task(name).split("train", data)
    assert caught.value.hint == "it offers test"


def test_counts_of_val_classes_are_those_of_the_testbed():
    counts = [task(name).counts["test"] for name in VAL_CLASSES]
    assert counts == [10_000, 10_000, 6250, 14_400, 11_550]


# ImageNet


def test_imagenet_is_read_from_its_class_folders(imagenet):
    dataset = task("imagenet")
    sizes = {split: len(dataset.split(split, imagenet)) for split in ("train", "val", "test")}
    assert sizes == {"train": 9000, "val": 1000, "test": 1000}
    test = dataset.split("test", imagenet)
    assert labels_of(test.samples) == list(range(1000))
    image, label = test[404]
    assert (image.mode, image.size, label) == ("RGB", (8, 6), 404)
    assert dataset.classes[label] == "airliner"
    assert dataset.find(imagenet) == "{imagenet/train/*/*.JPEG,imagenet/val_in_folder/*/*.JPEG}"


@pytest.mark.parametrize("below", ["imagenet/val", "ILSVRC/Data/CLS-LOC/val"])
def test_other_layouts_of_imagenet_are_found(below, data):
    train = below.replace("val", "train")
    write(data, [f"{train}/{FOLDERS[i]}/{FOLDERS[i]}_{n}.JPEG" for i in (3, 7) for n in range(10)])
    write(data, [f"{below}/{FOLDERS[7]}/ILSVRC2012_val_00000001.JPEG"])
    dataset = task("ImageNet")
    assert (len(dataset.split("train", data)), len(dataset.split("val", data))) == (18, 2)
    assert dataset.split("test", data)[0][1] == 7
    assert dataset.find(data) == f"{{{train}/*/*.JPEG,{below}/*/*.JPEG}}"


def test_test_images_that_are_not_sorted_are_refused_with_the_way_to_sort_them(data):
    write(data, ["imagenet/val/ILSVRC2012_val_00000001.JPEG"])
    for name in ("ImageNet", "ImageNet4", "ImageNetAValClasses"):
        with pytest.raises(DataError, match="are not in class folders") as caught:
            task(name).split("test", data)
        assert str(data / "imagenet/val") in caught.value.message
        assert "torchvision.datasets.ImageNet" in caught.value.hint


def test_folder_that_is_no_class_of_imagenet_is_named(data):
    write(data, ["imagenet/val/tench/ILSVRC2012_val_00000001.JPEG"])
    with pytest.raises(DataError, match="tench is not the folder of one of its classes") as caught:
        task("ImageNet").split("test", data)
    assert "n01440764" in caught.value.hint


@pytest.mark.parametrize("name", ["ImageNet", "ImageNet16", *SHIFTS, *VAL_CLASSES])
def test_missing_data_is_said_with_source_and_folder(name, data):
    with pytest.raises(DataError, match=f"^{name} is not below {data}") as caught:
        task(name).split("test", data)
    assert "fetch it from https://" in caught.value.hint
    assert f"put it below {data} as " in caught.value.hint
    folder = task(name).layouts[0].strip("{").split("/")[0]
    assert folder in caught.value.hint


# few-shot


def paths(split):
    return [str(path) for path, _ in split.samples.files]


def test_few_shot_sets_are_seeded_nested_and_disjoint_from_val(imagenet):
    sets = {k: task(f"ImageNet{k}").split("train", imagenet) for k in (1, 2, 4)}
    for shots, split in sets.items():
        assert len(split) == 1000 * shots == task(f"ImageNet{shots}").expected("train")
        assert np.bincount(labels_of(split.samples)).tolist() == [shots] * 1000
        assert paths(split) == paths(task(f"ImageNet{shots}").split("train", imagenet))
    assert set(paths(sets[1])) < set(paths(sets[2])) < set(paths(sets[4]))
    val = task("ImageNet2").split("val", imagenet)
    whole = task("ImageNet").split("val", imagenet)
    assert paths(val) == [str(whole.samples.samples.files[i][0]) for i in whole.samples.indices]
    assert not set(paths(sets[4])) & set(paths(val))
    assert [val[i][1] for i in range(3)] == [whole[i][1] for i in range(3)]
    assert paths(task("ImageNet2").split("test", imagenet)) == paths(task("ImageNet").split("test", imagenet))


def test_few_shot_draw_is_what_it_says(imagenet):
    samples = open_imagenet("ImageNet", "train", imagenet)
    kept = set(cut_validation(samples, "train").indices)
    mine = [i for i in sorted(kept) if samples.files[i][1] == 500]
    order = np.random.default_rng([0, 500]).permutation(len(mine))
    expected = [str(samples.files[mine[i]][0]) for i in order[:4]]
    split = task("ImageNet4").split("train", imagenet)
    assert [path for path in paths(split) if FOLDERS[500] in path] == expected
    places = [int(Path(path).stem.split("_")[1]) for path in paths(task("ImageNet1").split("train", imagenet))]
    assert len(set(places)) == 10  # the first of each class would be one and the same number


def test_few_shot_needs_enough_images_of_every_class(imagenet):
    with pytest.raises(DataError, match=r"ImageNet16: class n01440764 has \d+ images to draw 16 from") as caught:
        task("ImageNet16").split("train", imagenet)
    assert "complete ImageNet's training images" in caught.value.hint


# shifts


def test_v2_is_labelled_by_the_numbers_of_its_folders(data):
    write(data, [f"ImageNetV2-matched-frequency/{i}/{n}.jpeg" for i in (0, 2, 10, 999) for n in "ab"])
    split = task("ImageNetV2").split("test", data)
    assert labels_of(split.samples) == [0, 0, 2, 2, 10, 10, 999, 999]
    assert split[7][0].mode == "RGB"


def test_v2_is_found_under_the_name_of_its_archive(data):
    write(data, ["imagenetv2-matched-frequency-format-val/10/x.jpeg"])
    assert task("ImageNetV2").split("test", data)[0][1] == 10


@pytest.mark.parametrize("below", ["sketch", "imagenet-sketch"])
def test_sketch_has_imagenets_folders(below, data):
    write(data, [f"{below}/{FOLDERS[i]}/sketch_0.JPEG" for i in (5, 998)])
    assert labels_of(task("ImageNetSketch").split("test", data).samples) == [5, 998]


@pytest.mark.parametrize(("name", "below"), [("ImageNetR", "imagenet-r"), ("ImageNetA", "imagenet-a")])
def test_restricted_shifts_are_labelled_by_their_own_classes(name, below, data):
    indices = BENCHMARKS["imagenet_subsets"][name]
    write(data, [f"{below}/{FOLDERS[indices[place]]}/art_0.jpg" for place in (0, 100, 199)])
    (data / below / "README.txt").write_text("no image\n")
    split = task(name).split("test", data)
    assert labels_of(split.samples) == [0, 100, 199]
    logits = torch.zeros(3, 1000)
    outside = next(i for i in range(1000) if i not in indices)
    logits[:, outside] = 9
    for row, place in enumerate((0, 100, 199)):
        logits[row, indices[place]] = 1
    assert merged(task(name).label_map)(logits).argmax(1).tolist() == [0, 100, 199]


@pytest.mark.parametrize(("name", "below"), [("ImageNetR", "imagenet-r"), ("ImageNetA", "imagenet-a")])
def test_folder_of_another_class_of_imagenet_is_refused(name, below, data):
    absent = next(i for i in range(1000) if i not in BENCHMARKS["imagenet_subsets"][name])
    write(data, [f"{below}/{FOLDERS[absent]}/art_0.jpg"])
    with pytest.raises(DataError, match=f"{FOLDERS[absent]} is not the folder of one of its classes"):
        task(name).split("test", data)


def framed(size=(20, 16), border=2):
    image = Image.new("RGB", size, "red")
    image.paste((0, 0, 255), (border, border, size[0] - border, size[1] - border))
    return image


def test_objectnet_loses_its_frame_before_anything_else(data):
    images = data / "objectnet-1.0/images"
    for folder in ("alarm_clock", "bench", "air_freshener_of_none"):
        (images / folder).mkdir(parents=True)
        framed().save(images / folder / "1.png")
    dataset = task("ObjectNet")
    split = dataset.split("test", data)
    assert [dataset.classes[split[i][1]] for i in range(len(split))] == ["alarm clock", "bench"]
    image, _ = split[0]
    assert image.size == (16, 12)
    assert (np.asarray(image) == (0, 0, 255)).all()
    assert dataset.split("test", data, lambda image: image.size)[0][0] == (16, 12)


def test_objectnet_without_its_classes_is_no_objectnet(data):
    write(data / "objectnet-1.0/images", ["unknown/1.png"], picture("PNG"))
    with pytest.raises(DataError, match="it has none of the classes that ImageNet has"):
        task("ObjectNet").split("test", data)


def test_class_of_objectnet_has_the_largest_of_its_logits():
    dataset = task("ObjectNet")
    logits = torch.arange(1000.0).flip(0).repeat(2, 1)
    logits[1, 530] = 5000
    said = merged(dataset.label_map)(logits)
    clock, published = dataset.classes.index("alarm clock"), BENCHMARKS["objectnet"]
    assert said.shape == (2, 113)
    assert (said[0, clock], said[1, clock]) == (999 - 409, 5000)
    for row in range(2):
        expected = [max(logits[row, i].item() for i in published[f]["imagenet"]) for f in sorted(published)]
        assert said[row].tolist() == expected


@pytest.mark.parametrize("name", VAL_CLASSES)
def test_val_classes_are_imagenets_own_images_of_the_shifts_classes(name, imagenet):
    dataset = task(name)
    split = dataset.split("test", imagenet)
    assert len(split) == sum(map(len, dataset.label_map)) == dataset.counts["test"] // 50
    for path, label in split.samples.files:
        assert FOLDERS.index(Path(path).parent.name) in dataset.label_map[label]
    assert split[0][0].size == (8, 6)
    assert (dataset.metric, dataset.extra_metrics) == ("top1", ())


def test_val_classes_need_images_of_these_classes(data):
    write(data, [f"imagenet/val/{FOLDERS[0]}/ILSVRC2012_val_00000001.JPEG"])
    with pytest.raises(DataError, match="it has none of this task's classes"):
        task("ImageNetAValClasses").split("test", data)


# videos


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_vid(data, below="imagenet-vid-robust"):
    """Two videos, three anchors; two of them share neighbours, one has none. One frame on the disk is in no set."""
    folder = data / below
    frame = "val/ILSVRC2015_val_0000000{}/{:06}.JPEG".format
    sets = {frame(0, 3): [frame(0, 2), frame(0, 4)], frame(0, 4): [frame(0, 3)], frame(1, 1): []}
    labels = {frame(0, i): [8] for i in range(6)} | {frame(0, 2): [7], frame(1, 1): [9, 8]}
    write(folder, labels)
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
    with pytest.raises(DataError, match=f"has no {name}"):
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
        write(data / frames, [key, *(f"{folder}/frame-{n}.jpg" for n in near), f"{folder}/frame-99.jpg"])
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
    said = merged(task("YTBBRobust").label_map)(logits)
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


def test_listing_names_every_task_once():
    known = registry().datasets
    assert {"ImageNet", *SHIFTS, *VAL_CLASSES, *(f"ImageNet{k}" for k in SHOTS)} <= set(known)
    assert find_task("ImageNetVal").split == "val"
    assert find_task("imagenetv2").dataset.name == "ImageNetV2"
