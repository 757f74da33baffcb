"""GTSRB, KITTI and MTSD, read from miniature files in their publishers' formats."""

import json
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.samples import broken_png
from wisepatch.datasets.names import names
from wisepatch.datasets.published import readers as published
from wisepatch.datasets.published.kitti import distance_class, split_by_video
from wisepatch.datasets.published.mtsd import sign_class
from wisepatch.errors import DataError
from wisepatch.plugins import find_task

BENCHMARKS = json.loads((Path(__file__).parents[2] / "data" / "benchmarks.json").read_text())


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test fetches anything, whatever it asks for."""
    from torchvision.datasets import gtsrb, utils

    def refuse(url, *args, **kwargs):
        raise OSError("the network is off")

    monkeypatch.setattr(utils, "download_and_extract_archive", refuse)
    monkeypatch.setattr(gtsrb, "download_and_extract_archive", refuse)


def task(name):
    return find_task(name).dataset


def save(path, size=(12, 8), color=(200, 10, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.mark.parametrize("name", ["GTSRB", "KITTI", "MTSD"])
def test_prompts_and_listing(name):
    dataset = task(name.lower())
    assert list(dataset.templates) == BENCHMARKS["templates"][name]
    assert dataset.family == "traffic"
    assert dataset.licence or name == "GTSRB"  # its publisher names none
    assert dataset.source.startswith("https://")
    assert len(set(dataset.classes)) == len(dataset.classes)
    if name in BENCHMARKS["classes"]:
        assert list(dataset.classes) == BENCHMARKS["classes"][name]


# GTSRB


def write_gtsrb(data, per_class=2, test=(14, 0, 42)):
    """Training images in folders, test images in one, and the table of their labels."""
    base = data / "gtsrb"
    for label in range(43):
        for index in range(per_class):
            save(base / f"GTSRB/Training/{label:05d}/00000_{index:05d}.ppm", color=(label, index, 0))
    table = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for index, label in enumerate(test):
        save(base / f"GTSRB/Final_Test/Images/{index:05d}.ppm", color=(label, 99, 0))
        table.append(f"{index:05d}.ppm;12;8;1;1;10;6;{label}")
    (base / "GT-final_test.csv").write_text("\n".join(table) + "\n")
    return data


def test_gtsrb_is_read_from_folders_and_table(data):
    write_gtsrb(data)
    dataset = task("GTSRB")
    opened = {split: dataset.split(split, data) for split in ("train", "val", "test")}
    assert {split: len(each) for split, each in opened.items()} == {"train": 78, "val": 8, "test": 3}
    for split in opened.values():
        for index, label in enumerate(split.samples.labels):
            image, found = split[index]
            assert (image.mode, found, image.getpixel((0, 0))[0]) == ("RGB", label, label)
    signs = [opened["test"].classes[label] for label in opened["test"].samples.labels]
    assert signs == [BENCHMARKS["classes"]["GTSRB"][label] for label in (14, 0, 42)]
    assert dataset.find(data) == dataset.layouts[0]
    assert (dataset.expected("train"), dataset.expected("val"), dataset.expected("test")) == (23976, 2664, 12630)


def test_gtsrb_transforms_its_images(data):
    write_gtsrb(data)
    assert task("GTSRB").split("test", data, lambda image: image.size)[1] == ((12, 8), 0)


def test_gtsrb_that_is_not_there_says_where_it_goes(data):
    with pytest.raises(DataError, match=r"GTSRB is not below .* could not be downloaded: the network is off") as caught:
        task("GTSRB").split("test", data)
    assert "benchmark.ini.rub.de" in caught.value.hint
    assert str(data) in caught.value.hint


def test_gtsrb_without_one_class_folder_is_refused_before_labels_shift(data):
    write_gtsrb(data)
    for image in (data / "gtsrb/GTSRB/Training/00007").iterdir():
        image.unlink()
    (data / "gtsrb/GTSRB/Training/00007").rmdir()
    with pytest.raises(DataError, match="Training holds 42 class folders, not 43"):
        task("GTSRB").split("train", data)


@pytest.mark.parametrize(
    "table",
    ["Filename;Width;Height\n00000.ppm;12;8\n", "Filename;ClassId\n00000.ppm;stop\n", "Filename;ClassId\n00000.ppm\n"],
)
def test_gtsrb_table_without_labels_is_named(data, table):
    (write_gtsrb(data) / "gtsrb/GT-final_test.csv").write_text(table)
    with pytest.raises(DataError, match=r"GTSRB: its files below .* are not what was published") as caught:
        task("GTSRB").split("test", data)
    assert "benchmark.ini.rub.de" in caught.value.hint


def test_gtsrb_without_its_table_names_it(data):
    (write_gtsrb(data) / "gtsrb/GT-final_test.csv").unlink()
    with pytest.raises(DataError, match=r"GT-final_test\.csv"):
        task("GTSRB").split("test", data)


# KITTI

OBJECT = "{kind} 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 {z} -1.59"
DRIVES = 20  # videos, of three images each


def write_kitti(data, below="Kitti/raw", devkit="devkit_object.zip"):
    """Three images of each of 20 drives, in an order of their own; image i shows a car i metres away, the last one none."""
    raw = data / below
    lines = [f"2011_09_26 2011_09_26_drive_{1 + n // 3:04d}_sync {n % 3:010d}" for n in range(3 * DRIVES)]
    order = np.random.RandomState(0).permutation(3 * DRIVES) + 1
    texts = {"train_rand.txt": ",".join(map(str, order)) + "\n", "train_mapping.txt": "\n".join(lines) + "\n"}
    for number in range(3 * DRIVES):
        save(raw / f"training/image_2/{number:06d}.png", (30, 10), (number, 0, 0))
        rows = [
            OBJECT.format(kind=kind, z=z) for kind, z in (("Pedestrian", 1.5), ("Truck", 99.0), ("Car", f"{number}.00"))
        ]
        rows.append("DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10")
        label = raw / f"training/label_2/{number:06d}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("\n".join(rows if number < 3 * DRIVES - 1 else rows[:1] + rows[3:]) + "\n")
    if devkit.endswith(".zip"):
        with zipfile.ZipFile(raw / devkit, "w") as archive:
            for name, text in texts.items():
                archive.writestr(f"mapping/{name}", text)
            archive.writestr("readme.txt", "")
    else:
        (raw / devkit).parent.mkdir(parents=True)
        for name, text in texts.items():
            ((raw / devkit).parent / name).write_text(text)
    return [lines[index - 1].split()[1] for index in order]


@pytest.mark.parametrize("below", ["Kitti/raw", "kitti/raw"])
@pytest.mark.parametrize(
    "devkit", ["devkit_object.zip", "mapping/train_rand.txt", "devkit_object/mapping/train_rand.txt"]
)
def test_kitti_splits_by_video_and_labels_by_distance(data, below, devkit):
    videos = write_kitti(data, below, devkit)
    dataset = task("KITTI")
    opened = {split: dataset.split(split, data) for split in ("train", "val", "test")}
    assert {split: len(each) for split, each in opened.items()} == {"train": 48, "val": 6, "test": 6}
    drives = []
    for split in opened.values():
        numbers = []
        for index, label in enumerate(split.samples.labels):
            image, found = split[index]
            number = image.getpixel((0, 0))[0]
            assert (image.mode, found) == ("RGB", label)
            assert label == (3 if number == 59 else 0 if number <= 8 else 1 if number <= 20 else 2)
            numbers.append(number)
        assert numbers == sorted(numbers)
        drives.append({videos[number] for number in numbers})
    assert [len(each) for each in drives] == [16, 2, 2]
    assert len(set.union(*drives)) == DRIVES
    assert dataset.find(data) in dataset.layouts


def test_kitti_has_its_published_sizes():
    dataset = task("KITTI")
    assert {split: dataset.expected(split) for split in dataset.splits} == {"train": 6347, "val": 423, "test": 711}
    assert sum(dataset.counts.values()) == 7481
    assert dataset.downloads
    assert dataset.gigabytes > published.UNASKED_GIGABYTES


@given(st.floats(-99, 998), st.booleans())
def test_kitti_distances_are_judged_as_in_vtab(metres, round_it):
    metres = float(round(metres)) if round_it else metres
    thresholds = np.array([-100.0, 8.0, 20.0, 999.0])
    assert distance_class(metres) == np.max(np.where((thresholds - metres) < 0))


@pytest.mark.parametrize(
    ("metres", "label"), [(-3, 0), (8, 0), (8.01, 1), (20, 1), (20.01, 2), (150, 2), (float("inf"), 3)]
)
def test_kitti_distance_on_the_limits(metres, label):
    assert distance_class(metres) == label


@given(st.lists(st.integers(0, 40), min_size=3, max_size=200).filter(lambda drives: len(set(drives)) > 2))
def test_kitti_split_is_that_of_the_global_generator_with_seed_123(drives):
    videos = [f"2011_09_26_drive_{drive:04d}_sync" for drive in drives]
    every = sorted(set(videos))
    size = max(1, 10 * len(every) // 100)
    state = np.random.get_state()
    np.random.seed(123)
    test = set(np.random.choice(every, size, replace=False))
    val = set(np.random.choice(sorted(set(every) - test), size, replace=False))
    np.random.set_state(state)
    found = split_by_video(videos)
    assert {videos[i] for i in found["test"]} == test
    assert {videos[i] for i in found["val"]} == val
    assert sorted([*found["train"], *found["val"], *found["test"]]) == list(range(len(videos)))


def test_kitti_leaves_the_global_generator_alone(data):
    write_kitti(data)
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    task("KITTI").split("test", data)
    assert np.random.rand() == expected


@pytest.mark.parametrize(
    ("part", "archive"),
    [
        ("training/image_2", "data_object_image_2.zip"),
        ("training/label_2", "data_object_label_2.zip"),
        ("devkit_object.zip", "devkit_object.zip"),
    ],
)
def test_kitti_without_a_part_names_it_and_the_command(data, part, archive):
    write_kitti(data)
    (data / "Kitti/raw" / part).rename(data / "elsewhere")
    with pytest.raises(DataError, match=f"KITTI is not below .*raw has no {part}") as caught:
        task("KITTI").split("test", data)
    assert caught.value.hint.startswith("`wisepatch datasets download KITTI` fetches it (12.6 GB), or fetch " + archive)
    assert "cvlibs.net" in caught.value.hint


def test_kitti_is_fetched_only_where_that_is_asked_for(data, monkeypatch, capsys):
    from torchvision.datasets import utils

    fetched = []

    def fetch(url, download_root, filename):
        sys.stdout.write("torchvision talks")
        fetched.append(url)
        if "devkit" not in filename:
            return
        write_kitti(data)

    monkeypatch.setattr(utils, "download_and_extract_archive", fetch)
    with pytest.raises(DataError, match="KITTI is not below"):
        task("KITTI").split("test", data)
    assert not fetched
    with published.asked():
        assert len(task("KITTI").split("test", data)) == 6
    base = "https://s3.eu-central-1.amazonaws.com/avg-kitti/"
    names = ("data_object_image_2.zip", "data_object_label_2.zip", "devkit_object.zip")
    assert fetched == [base + name for name in names]
    assert capsys.readouterr().out == ""
    (data / "Kitti/raw/devkit_object.zip").unlink()
    with published.asked():
        task("KITTI").split("test", data)
    assert fetched[3:] == [base + "devkit_object.zip"]


@pytest.mark.parametrize("failure", [OSError("timed\nout"), RuntimeError("timed out"), zipfile.BadZipFile("timed out")])
def test_kitti_download_that_fails_is_told(data, monkeypatch, failure):
    from torchvision.datasets import utils

    def fetch(*args, **kwargs):
        raise failure

    monkeypatch.setattr(utils, "download_and_extract_archive", fetch)
    message = r"data_object_image_2\.zip of KITTI could not be downloaded into .*: timed out"
    with published.asked(), pytest.raises(DataError, match=message) as caught:
        task("KITTI").split("test", data)
    assert "cvlibs.net" in caught.value.hint


def test_kitti_download_without_the_images_is_told(data, monkeypatch):
    from torchvision.datasets import utils

    monkeypatch.setattr(utils, "download_and_extract_archive", lambda *args, **kwargs: None)
    with published.asked(), pytest.raises(DataError, match=r"was fetched into .* does not hold what it should"):
        task("KITTI").split("test", data)


@pytest.mark.parametrize(("folder", "suffix"), [("image_2", "png"), ("label_2", "txt")])
def test_kitti_unpacked_in_part_names_the_first_file(data, folder, suffix):
    write_kitti(data)
    for path in (data / "Kitti/raw/training" / folder).iterdir():
        if int(path.stem) < 30:
            path.unlink()
    with pytest.raises(DataError, match=rf"of 48 files are missing, the first .*{folder}/0000\d\d\.{suffix}") as caught:
        task("KITTI").split("train", data)
    assert f"unpack data_object_{folder}.zip" in caught.value.hint


@pytest.mark.parametrize(
    "line", ["Car 0.00 0 -1.58", OBJECT.format(kind="Car", z="far"), OBJECT.format(kind="Van", z="nan")]
)
def test_kitti_broken_label_line_is_named(data, line):
    write_kitti(data)
    for path in (data / "Kitti/raw/training/label_2").iterdir():
        path.write_text(OBJECT.format(kind="Car", z=5) + "\n\n" + line + "\n")
    with pytest.raises(DataError, match=r"label_2/0000\d\d\.txt, line 3, is not one of KITTI's: '(Car|Van)"):
        task("KITTI").split("test", data)


def test_kitti_label_file_that_is_no_text_is_named(data):
    write_kitti(data)
    for path in (data / "Kitti/raw/training/label_2").iterdir():
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"label file .*\.txt cannot be read"):
        task("KITTI").split("test", data)


@pytest.mark.parametrize(
    ("order", "mapping", "message"),
    [
        ("1,2,x", "d a 0\nd b 0\nd c 0", "invalid literal"),
        ("1,2,9", "d a 0\nd b 0\nd c 0", "cannot be read: 9"),
        ("0,1,2", "d a 0\nd b 0\nd c 0", "cannot be read: 0"),
        ("1,2,3", "d a 0\nd\nd c 0", "list index out of range"),
        ("1,2,3", "d a 0\nd a 1\nd b 0", "fewer than three videos"),
        ("1,2,3", None, "train_mapping.txt"),
    ],
)
def test_kitti_broken_devkit_is_named(data, order, mapping, message):
    write_kitti(data, devkit="mapping/train_rand.txt")
    folder = data / "Kitti/raw/mapping"
    (folder / "train_rand.txt").write_text(order)
    (folder / "train_mapping.txt").unlink() if mapping is None else (folder / "train_mapping.txt").write_text(mapping)
    with pytest.raises(DataError, match=message) as caught:
        task("KITTI").split("test", data)
    assert "devkit_object.zip" in caught.value.hint


def test_kitti_broken_devkit_archive_is_named(data):
    write_kitti(data)
    (data / "Kitti/raw/devkit_object.zip").write_bytes(b"PK no more")
    with pytest.raises(DataError, match=r"mapping of images to videos in .*devkit_object\.zip cannot be read"):
        task("KITTI").split("test", data)
    with zipfile.ZipFile(data / "Kitti/raw/devkit_object.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(DataError, match=r"no item named 'mapping/train_rand\.txt'"):
        task("KITTI").split("test", data)


def test_kitti_broken_image_is_named(data):
    write_kitti(data)
    for path in (data / "Kitti/raw/training/image_2").iterdir():
        broken_png(path)
    with pytest.raises(DataError, match=r"image_2/0000\d\d\.png cannot be read"):
        task("KITTI").split("test", data)[0]


# MTSD


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
FOLDERS = ["annotations", "mtsd_v2_fully_annotated", "annotations/mtsd_v2_fully_annotated"]


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


@pytest.mark.parametrize("folder", FOLDERS)
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
    assert dataset.find(data) == dataset.layouts[1 + FOLDERS.index(folder)]


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


@pytest.mark.parametrize("folder", FOLDERS)
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
