"""MTSD in its publisher's format."""

import json
from collections import Counter

import pytest
from PIL import Image

from tests.datasets.published.layouts import (
    save,
    task,
)
from wisepatch.datasets.names import names
from wisepatch.datasets.published.mtsd import sign_class
from wisepatch.errors import DataError


def sign(key, label, box=(2.4, 3.6, 10.5, 11.4)):
    """One object of a published annotation."""
    return {
        "key": key, "label": label, "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
        "properties": {"barrier": False, "occluded": False, "out-of-frame": False, "exterior": False, "ambiguous": False},
    }  # fmt: skip


SIGNS = {
    "train": {
        "bW8tu": [sign("k2", "warning--children--g2"), sign("k1", "regulatory--stop--g1", (4, 0, 9, 7)), sign("k3", "other-sign")],
        "0aZ_-": [sign("k4", "regulatory--stop--g10"), sign("k5", "complementary--maximum-speed-limit-30--g1")],
        "zzz": [sign(f"n{n}", "information--children--g1", (n, n, n + 3, n + 2)) for n in range(8)],
    },
    "val": {"vvv": [sign("k6", "regulatory--maximum-speed-limit-30--g3", (1, 1, 30, 20)), sign("k7", "other-sign")], "www": []},
    "test": {"hidden": []},
}  # fmt: skip


ANNOTATION_FOLDERS = ["annotations", "mtsd_v2_fully_annotated", "annotations/mtsd_v2_fully_annotated"]


def write_mtsd(data, folder="mtsd_v2_fully_annotated"):
    """Photos of two halves, red above and blue below; the annotations of a panorama must not be looked at."""
    base = data / "mtsd"
    (base / folder / "annotations").mkdir(parents=True)
    (base / folder / "splits").mkdir()
    for split, photos in SIGNS.items():
        listed = [*photos, "pano"] if split == "train" else list(photos)
        (base / folder / "splits" / f"{split}.txt").write_text("\n".join(listed) + "\n")
        for photo, objects in photos.items():
            save(base / "images" / f"{photo}.jpg", (40, 30), (250, 0, 0))
            if split != "test":
                found = {"width": 40, "height": 30, "ispano": False, "objects": objects}
                (base / folder / "annotations" / f"{photo}.json").write_text(json.dumps(found))
    pano = {"width": 40, "height": 30, "ispano": True, "objects": [sign("k9", "regulatory--yield--g1", (30, 1, 5, 9))]}
    (base / folder / "annotations" / "pano.json").write_text(json.dumps(pano))
    return base


@pytest.mark.parametrize("folder", ANNOTATION_FOLDERS)
def test_mtsd_cuts_signs_out_of_photos(data, folder):
    base = write_mtsd(data, folder)
    before = sorted(base.rglob("*"))
    dataset = task("MTSD")
    opened = {split: dataset.split(split, data) for split in ("train", "val", "test")}
    assert {split: len(each) for split, each in opened.items()} == {"train": 11, "val": 1, "test": 1}
    labels = [*opened["train"].samples.labels, *opened["val"].samples.labels]
    assert Counter(dataset.classes[label] for label in labels) == {
        "children": 9,
        "stop": 2,
        "maximum speed limit 30": 1,
    }
    image, label = opened["test"][0]
    assert (image.mode, image.size, dataset.classes[label]) == ("RGB", (29, 19), "maximum speed limit 30")
    assert sorted(base.rglob("*")) == before
    assert dataset.find(data) == dataset.layouts[1 + ANNOTATION_FOLDERS.index(folder)]


def test_mtsd_boxes_are_rounded_and_cut_at_their_place(data):
    base = write_mtsd(data)
    photo = Image.new("RGB", (40, 30), "blue")
    photo.paste("red", (0, 0, 40, 12))
    photo.save(base / "images" / "bW8tu.jpg", quality=100, subsampling=0)
    samples = task("MTSD").open("train", data)
    signs = {(label, image.size): image for image, label in (samples[i] for i in range(len(samples)))}
    stop, children = (names("MTSD").index(name) for name in ("stop", "children"))
    assert signs[stop, (5, 7)].getpixel((2, 6))[0] > 200
    assert signs[children, (8, 7)].getpixel((4, 6))[0] > 200  # 2.4 to 10.5 is 2 to 10, 3.6 to 11.4 is 4 to 11
    assert samples.fingerprint() == task("MTSD").open("train", data).fingerprint()
    assert task("MTSD").open("train", data, lambda image: image.size)[0][0] == samples[0][0].size


@pytest.mark.parametrize("folder", ANNOTATION_FOLDERS)
def test_mtsd_crops_on_disk_come_in_the_same_order(data, folder):
    base = write_mtsd(data, folder)
    dataset = task("MTSD")
    cut = dataset.open("train", data)
    for split in ("train", "val"):
        for photo, objects in SIGNS[split].items():
            for each in objects:
                if each["label"] != "other-sign":
                    box = [round(each["bbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
                    size = (box[2] - box[0], box[3] - box[1])
                    save(base / split / each["label"].split("--")[1] / f"{photo}__{each['key']}.jpg", size)
    ready = dataset.open("train", data)
    assert ready.labels == cut.labels
    assert [ready[i][0].size for i in range(len(ready))] == [cut[i][0].size for i in range(len(cut))]
    assert len(dataset.split("test", data)) == 1
    assert dataset.find(data) == "mtsd/{train,val}/*/*.jpg"


def test_mtsd_crop_folder_of_another_name_is_refused(data):
    save(data / "mtsd/val/stop/a__b.jpg")
    save(data / "mtsd/val/Stop sign/a__b.jpg")
    with pytest.raises(DataError, match="Stop sign is not the folder of one of its classes") as caught:
        task("MTSD").split("test", data)
    assert "accident-area" in caught.value.hint


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("regulatory--stop--g1", "stop"),
        ("warning--loop-270-degree--g1", "loop-270-degree"),
        ("other-sign", None),
        ("stop", "stop"),
    ],
)
def test_mtsd_class_is_the_middle_of_a_label(label, name):
    assert sign_class(label) == name


def test_mtsd_names_are_sorted_as_class_folders_are():
    folders = names("MTSD")
    assert list(folders) == sorted(set(folders))
    assert len(folders) == 235
    assert "other-sign" not in folders
    assert (
        task("MTSD").classes[folders.index("stop-here-on-red-or-flashing-light")]
        == "stop here on red or flashing light"
    )


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        (".", "the annotations cannot be found in"),
        ("mtsd_v2_fully_annotated", "the annotations cannot be found in"),
        ("images", "the folder images cannot be found in"),
        ("images/zzz.jpg", r"1 of 3 photos are missing, the first .*images/zzz\.jpg"),
        ("mtsd_v2_fully_annotated/splits/train.txt", r"splits/train\.txt is missing"),
        ("mtsd_v2_fully_annotated/annotations/zzz.json", r"annotations/zzz\.json is missing"),
    ],
)
def test_mtsd_without_a_part_names_it(data, gone, reason):
    base = write_mtsd(data)
    (base if gone == "." else base / gone).rename(data / "elsewhere")
    with pytest.raises(DataError, match=f"MTSD is not below .*{reason}") as caught:
        task("MTSD").split("train", data)
    assert "https://www.mapillary.com/dataset/trafficsign" in caught.value.hint
    assert "mtsd_v2_fully_annotated/annotations/*.json" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"ispano": fal', "Expecting value"),
        ("[]", "list indices"),
        ('{"objects": []}', "it has no 'ispano'"),
        ('{"ispano": false}', "it has no 'objects'"),
        (json.dumps({"ispano": False, "objects": [sign("k", "regulatory--stop")["bbox"]]}), "it has no 'label'"),
        (json.dumps({"ispano": False, "objects": [sign("k", "regulatory--halt--g1")]}), "the label 'regulatory--halt--g1' is"),
        (json.dumps({"ispano": False, "objects": [sign("k", None)]}), "NoneType"),
        (json.dumps({"ispano": False, "objects": [sign("k", "regulatory--stop--g1", (5, 5, 5, 9))]}), "the box of sign k is empty"),
        (json.dumps({"ispano": False, "objects": [sign("k", "regulatory--stop--g1", ("a", 5, 5, 9))]}), "__round__"),
    ],
)  # fmt: skip
def test_mtsd_broken_annotation_is_named(data, text, reason):
    base = write_mtsd(data)
    (base / "mtsd_v2_fully_annotated/annotations/zzz.json").write_text(text)
    with pytest.raises(DataError, match=r"annotation .*zzz\.json cannot be used: .*" + reason):
        task("MTSD").split("train", data)


def test_mtsd_broken_photo_and_listing_are_named(data):
    base = write_mtsd(data)
    (base / "images/vvv.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"images/vvv\.jpg cannot be read"):
        task("MTSD").split("test", data)[0]
    (base / "mtsd_v2_fully_annotated/splits/val.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"splits/val\.txt cannot be read"):
        task("MTSD").split("test", data)
