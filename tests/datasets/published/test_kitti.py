"""KITTI in its publisher's format."""

import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datasets.published.layouts import (
    save,
    task,
)
from tests.samples import broken_png
from wisepatch.datasets.published import readers as published
from wisepatch.datasets.published.kitti import distance_class, split_by_video
from wisepatch.errors import DataError

pytestmark = pytest.mark.usefixtures("no_downloads")


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
    message = r"data_object_image_2\.zip is missing and could not be downloaded: timed out"
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
    with pytest.raises(DataError, match=r"devkit_object\.zip cannot be read: .*mapping/train_rand\.txt"):
        task("KITTI").split("test", data)


def test_kitti_broken_image_is_named(data):
    write_kitti(data)
    for path in (data / "Kitti/raw/training/image_2").iterdir():
        broken_png(path)
    with pytest.raises(DataError, match=r"image_2/0000\d\d\.png cannot be read"):
        task("KITTI").split("test", data)[0]
