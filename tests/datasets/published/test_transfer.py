"""The papers' transfer tasks, from miniature files in the formats of their publishers."""

import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wisepatch.datasets import base
from wisepatch.datasets.names import names
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published import cifar, clevr
from wisepatch.datasets.published import eurosat_resisc45 as satellite
from wisepatch.datasets.published import readers as published
from wisepatch.datasets.published import sun397 as sun
from wisepatch.errors import DataError
from wisepatch.plugins import find_task

BENCHMARKS = json.loads((Path(__file__).parents[2] / "data" / "benchmarks.json").read_text())
COUNTS = {
    "MNIST": (60000, None, 10000),
    "FashionMNIST": (60000, None, 10000),
    "CIFAR10": (50000, None, 10000),
    "CIFAR100": (50000, None, 10000),
    "CIFAR10.1": (None, None, 2000),
    "CIFAR10.2": (10000, None, 2000),
    "STL10": (5000, None, 8000),
    "SVHN": (73257, None, 26032),
    "Cars": (8144, None, 8041),
    "DTD": (None, None, 1880),
    "EuroSAT": (21600, 2700, 2700),
    "RESISC45": (18900, 6300, 6300),
    "SUN397": (19850, None, 19850),
    "Food101": (75750, None, 25250),
    "CLEVR": (70000, None, 15000),
}


def task(name):
    return find_task(name).dataset


def picture(path, red=0, mode="RGB"):
    """A small image whose first pixel says ``red``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (8, 8), (red, 0, 0)).convert(mode)
    image.save(path, "PNG" if path.suffix == ".png" else "JPEG", **({} if path.suffix == ".png" else {"quality": 100}))
    return path


def classes_of(split):
    return [split.classes[split[i][1]] for i in range(len(split))]


def places(split):
    """The files of a split, below the data folder."""
    samples, indices = split.samples, range(len(split))
    while isinstance(samples, base.Subset):
        indices, samples = [samples.indices[i] for i in indices], samples.samples
    return [str(samples.files[i][0]) for i in indices]


def opened_as(name, image):
    """A transform that tells which split it was given to."""
    return name, image.mode


def check_splits(dataset, data):
    """Open all splits: they are disjoint, know their labels unread, and give the images the transform they are opened with."""
    splits = {name: dataset.split(name, data, partial(opened_as, name)) for name in dataset.available_splits}
    every = [path for split in splits.values() for path in places(split)]
    assert len(set(every)) == len(every)
    for name, split in splits.items():
        assert base.labels_of(split.samples) == [split[i][1] for i in range(len(split))]
        assert {split[i][0] for i in range(len(split))} == {(name, "RGB")}
        assert split.fingerprint() == split.fingerprint()
    return splits


@pytest.fixture
def offline(monkeypatch):
    """Downloads that were tried, none of which works."""
    import torchvision.datasets.utils as utils

    tried = []

    def refuse(url, *args, **kwargs):
        tried.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "_urlretrieve", refuse)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops=3: url)
    return tried


@pytest.mark.parametrize("name", COUNTS)
def test_sizes_and_places_of_published_tasks_are_known_without_data(name):
    dataset = task(name)
    assert tuple(dataset.counts.get(split) for split in base.SPLITS) == COUNTS[name]
    known = {split for split, size in zip(base.SPLITS, COUNTS[name], strict=True) if size}
    assert known == set(dataset.splits) or name == "DTD"  # whose layouts differ in train and val
    assert dataset.metric == "top1"
    assert dataset.source.startswith("http")
    assert dataset.layouts
    assert dataset.gigabytes > 0
    assert dataset.downloads == (name not in ("Cars", "RESISC45"))


@pytest.mark.parametrize(
    "name", [*COUNTS, "CLEVR45689", "CLEVR3710"], ids=lambda name: name
)  # those without their own are CIFAR's and CLEVR's
def test_prompts_and_class_names_are_those_of_the_papers(name):
    own = "CIFAR10" if name.startswith("CIFAR10.") else name
    if own in BENCHMARKS["templates"]:
        assert list(task(name).templates) == BENCHMARKS["templates"][own]
    else:  # openai/CLIP, data/prompts.md, CLEVRCounts
        assert task(name).templates == TEMPLATES["CLEVR"] == ("a photo of {} objects.",)
    assert len(set(task(name).classes)) == len(task(name).classes)


def test_class_names_are_made_as_the_papers_make_them():
    assert BENCHMARKS["classes"]["EuroSAT (folder: class name)"] == satellite.EUROSAT
    assert task("EuroSAT").classes == tuple(satellite.EUROSAT.values())
    assert {"apse indoor", "airplane cabin", "abbey"} <= set(task("SUN397").classes)
    assert task("Food101").classes[:2] == ("apple pie", "baby back ribs")
    assert task("RESISC45").classes[-1] == "wetland"
    assert "baseball diamond" in task("RESISC45").classes
    assert task("Cars").classes[0] == "AM General Hummer SUV 2000"
    assert task("StanfordCars") is task("Cars")
    sizes = {"Cars": 196, "DTD": 47, "EuroSAT": 10, "RESISC45": 45, "SUN397": 397, "Food101": 101, "CLEVR": 8}
    assert {name: len(task(name).classes) for name in sizes} == sizes


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "MNIST",
            ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
        ),
        ("SVHN", ["train_32x32.mat", "test_32x32.mat"]),
        ("STL10", ["train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt"]),
        ("CIFAR10", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"]),
        ("CIFAR100", ["train", "test", "meta"]),
    ],
)
def test_data_is_found_only_where_all_of_it_lies(data, name, files):
    folder = {"MNIST": "MNIST/raw", "SVHN": "svhn", "STL10": "stl10_binary"}.get(name, f"cifar-{name[5:]}-{{}}")
    folder = data / folder.format("batches-py" if name == "CIFAR10" else "python")
    folder.mkdir(parents=True)
    for file in files:
        assert task(name).find(data) is None
        (folder / file).touch()
    assert task(name).find(data) == task(name).layouts[0]


def write_cars(data, train=((1, "a.jpg"), (196, "b.jpg"), (3, "c.jpg")), test=((7, "x.jpg"), (2, "y.jpg"))):
    """The publisher's folders: struct arrays in .mat files, classes counted from 1."""
    import scipy.io

    root = data / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    for listed, folder, path in (
        (train, "cars_train", "devkit/cars_train_annos.mat"),
        (test, "cars_test", "cars_test_annos_withlabels.mat"),
    ):
        rows = np.zeros((1, len(listed)), dtype=[(k, object) for k in ("bbox_x1", "class", "fname")])
        for row, (number, name) in zip(rows[0], listed, strict=True):
            row["bbox_x1"], row["class"], row["fname"] = 1, number, name
            picture(root / folder / name, red=number, mode="L" if name == "b.jpg" else "RGB")
        scipy.io.savemat(root / path, {"annotations": rows})
    meta = np.array([names("Cars")], dtype=object)
    scipy.io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": meta})
    return root


def test_cars_are_read_from_the_devkit(data):
    write_cars(data)
    dataset = task("Cars")
    assert dataset.find(data) == dataset.layouts[0]
    splits = check_splits(dataset, data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "val": 1, "test": 2}
    assert [splits["test"][i][1] for i in range(2)] == [6, 1]
    everything = dataset.open("train", data)
    assert everything.labels == [0, 195, 2]
    assert places(splits["test"])[0].endswith("cars_test/x.jpg")


def test_cars_that_are_missing_or_broken_say_where_to_get_them(data):
    with pytest.raises(DataError, match=f"Cars is not below {data}: there is no stanford_cars/cars_test") as caught:
        task("Cars").split("test", data)
    assert "pytorch/vision/issues/7545" in caught.value.hint
    assert "stanford_cars/{cars_train" in caught.value.hint
    root = write_cars(data)
    (root / "cars_test" / "x.jpg").unlink()
    with pytest.raises(DataError, match=r"Cars: 1 of 2 images are missing, the first is .*x\.jpg"):
        task("Cars").split("test", data)
    import scipy.io

    scipy.io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([["Volvo", "BMW"]], dtype=object)})
    with pytest.raises(DataError, match=r"cars_meta\.mat does not name the published classes"):
        task("Cars").split("train", data)
    for broken in (b"", b"<html>not found</html>" * 20):
        (root / "devkit" / "cars_train_annos.mat").write_bytes(broken)
        with pytest.raises(DataError, match=r"^Cars: its .* (cannot be read|not what was published)"):
            task("Cars").split("train", data)


def write_dtd(folder):
    """The publisher's archive: images by class, and lists of the first partition."""
    (folder / "labels").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        lines = [f"{name}/{name}_{number:04}.jpg" for name in ("zigzagged", "banded", "dotted")]
        for line in lines:
            picture(folder / "images" / line)
        (folder / "labels" / f"{split}1.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("below", ["dtd/dtd", "dtd"])
def test_dtd_has_a_validation_split_of_its_own(data, below):
    write_dtd(data / below)
    splits = check_splits(task("DTD"), data)
    for number, name in enumerate(("train", "val", "test")):
        assert classes_of(splits[name]) == ["zigzagged", "banded", "dotted"]
        assert all(path.endswith(f"_{number:04}.jpg") for path in places(splits[name]))
    assert task("DTD").find(data).startswith(f"{below}/{{images")


def write_folders(root, sizes):
    """Class folders below split folders: ``{split: {class: images}}``."""
    for split, classes in sizes.items():
        for name, size in classes.items():
            for index in range(size):
                picture(root / split / name / f"{name}_{split}{index}.jpg")


def test_dtd_in_the_papers_folders_tests_on_val_and_cuts_train(data):
    write_folders(data / "dtd", {"train": {"banded": 12, "woven": 8}, "val": {"banded": 2, "woven": 3}})
    write_dtd(data / "dtd" / "dtd")  # who makes the folders wants them
    splits = check_splits(task("DTD"), data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "val": 2, "test": 5}
    assert classes_of(splits["test"]) == ["banded"] * 2 + ["woven"] * 3
    assert all("/dtd/train/" in path for path in places(splits["val"]) + places(splits["train"]))
    everything = base.cut_validation(range(20), "val").indices
    assert list(splits["val"].samples.indices) == list(everything)


def test_dtd_in_three_folders_takes_them_by_their_names(data):
    write_folders(data / "dtd", {"train": {"banded": 3}, "val": {"banded": 2}, "test": {"woven": 4}})
    splits = check_splits(task("DTD"), data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 3, "val": 2, "test": 4}
    assert set(classes_of(splits["test"])) == {"woven"}


def test_dtd_with_broken_lists_names_them(data, offline):
    with pytest.raises(DataError, match=r"DTD is not below .* and could not be downloaded: no route to host"):
        task("DTD").split("test", data)
    assert offline
    folder = data / "dtd" / "dtd"
    write_dtd(folder)
    (folder / "images" / "dotted" / "dotted_0002.jpg").unlink()
    with pytest.raises(DataError, match=r"DTD: 1 of 3 images are missing, the first is .*dotted_0002\.jpg") as caught:
        task("DTD").split("test", data)
    assert "robots.ox.ac.uk" in caught.value.hint
    (folder / "labels" / "val1.txt").write_text("furry/furry_0001.jpg\n")
    with pytest.raises(DataError, match=r"val1\.txt names furry/furry_0001\.jpg, which is in none of its classes"):
        task("DTD").split("val", data)
    (folder / "labels" / "train1.txt").unlink()
    with pytest.raises(DataError, match=r"DTD: .*train1\.txt is missing"):
        task("DTD").split("train", data)


def test_eurosat_is_split_once_and_for_all_and_by_class(data):
    whole = data / "eurosat" / "2750"
    for number, name in enumerate(satellite.EUROSAT):
        for index in range(20 if number % 2 else 30):
            picture(whole / name / f"{name}_{index + 1}.jpg")
    dataset = task("EuroSAT")
    splits = check_splits(dataset, data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 200, "val": 25, "test": 25}
    for name in ("val", "test"):
        assert np.bincount(splits[name].samples.labels).tolist() == [3, 2] * 5
    assert len({path for split in splits.values() for path in places(split)}) == 250
    assert all(
        satellite.EUROSAT[Path(path).parent.name] == name
        for path, name in zip(places(splits["test"]), classes_of(splits["test"]), strict=True)
    )
    pasture = sorted(f"Pasture_{index + 1}.jpg" for index in range(20))
    pasture.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    assert {Path(p).name for p in places(splits["test"]) if "Pasture" in p} == set(pasture[:2])
    assert {Path(p).name for p in places(splits["val"]) if "Pasture" in p} == set(pasture[2:4])
    assert dataset.find(data) == "eurosat/2750/*/*.jpg"


def test_eurosat_splits_of_the_papers_are_read_as_they_are(data):
    sizes = {"train": {"Forest": 4, "SeaLake": 3}, "val": {"River": 2}, "test": {"AnnualCrop": 1, "SeaLake": 1}}
    write_folders(data / "EuroSAT_splits", sizes)
    picture(data / "eurosat" / "2750" / "Forest" / "Forest_1.jpg")
    splits = check_splits(task("EuroSAT"), data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 7, "val": 2, "test": 2}
    assert classes_of(splits["test"]) == ["annual crop land", "lake or sea"]
    assert set(classes_of(splits["val"])) == {"river"}
    for path in (data / "EuroSAT_splits" / "val" / "River").iterdir():
        path.unlink()
    (data / "EuroSAT_splits" / "val" / "River").rmdir()
    (data / "EuroSAT_splits" / "val").rmdir()
    assert len(task("EuroSAT").split("test", data)) == 1  # the published folder, where the papers' are not whole
    shutil.rmtree(data / "eurosat")
    with pytest.raises(DataError, match=r"EuroSAT is not below .*: there is no EuroSAT_splits/val"):
        task("EuroSAT").split("val", data)


def test_eurosat_that_is_missing_says_where_to_get_it(data, offline):
    with pytest.raises(
        DataError, match=r"EuroSAT is not below .* and could not be downloaded: no route to host"
    ) as caught:
        task("EuroSAT").split("test", data)
    assert "github.com/phelber/EuroSAT" in caught.value.hint
    picture(data / "eurosat" / "2750" / "Desert" / "Desert_1.jpg")
    with pytest.raises(DataError, match="2750/Desert is not the folder of one of its classes"):
        task("EuroSAT").split("test", data)


def write_resisc(data):
    listed = {
        "train": ["wetland_003.jpg", "airplane_002.jpg", "baseball_diamond_010.jpg"],
        "val": ["airplane_001.jpg"],
        "test": ["baseball_diamond_001.jpg", "airplane_700.jpg"],
    }
    root = data / "resisc45"
    for split, files in listed.items():
        for name in files:
            picture(root / "NWPU-RESISC45" / name.rpartition("_")[0] / name)
        (root / f"resisc45-{split}.txt").write_text("\n".join(files) + "\n")
    return root


def test_resisc45_has_the_published_lists(data):
    write_resisc(data)
    splits = check_splits(task("RESISC45"), data)
    assert classes_of(splits["train"]) == ["airplane", "baseball diamond", "wetland"]
    assert [Path(path).name for path in places(splits["test"])] == ["airplane_700.jpg", "baseball_diamond_001.jpg"]
    assert len(splits["val"]) == 1
    assert task("RESISC45").find(data) == satellite.RESISC_LAYOUT


def test_resisc45_that_is_missing_or_not_whole_says_so(data):
    with pytest.raises(DataError, match=r"RESISC45 is not below .*: there is no resisc45/resisc45-test\.txt") as caught:
        task("RESISC45").split("test", data)
    assert satellite.RESISC_SOURCE in caught.value.hint
    root = write_resisc(data)
    (root / "NWPU-RESISC45" / "airplane" / "airplane_001.jpg").unlink()
    with pytest.raises(DataError, match=r"RESISC45: 1 of 1 images are missing, .*airplane_001\.jpg"):
        task("RESISC45").split("val", data)
    (root / "resisc45-val.txt").write_text("volcano_001.jpg\n")
    with pytest.raises(DataError, match=r"names volcano_001\.jpg, which is in none of its classes"):
        task("RESISC45").split("val", data)
    (root / "resisc45-val.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"resisc45-val\.txt cannot be read"):
        task("RESISC45").split("val", data)


SUN_TRAIN = ["a/apse/indoor/sun_c.jpg", "y/youth_hostel/sun_b.jpg", "a/abbey/sun_z.jpg"]
SUN_TEST = ["a/airplane_cabin/sun_b.jpg", "a/apse/indoor/sun_a.jpg"]


def write_sun(data, lists="SUN397"):
    for path in (*SUN_TRAIN, *SUN_TEST, "a/abbey/sun_unlisted.jpg"):
        picture(data / "SUN397" / path)
    if lists:
        (data / lists).mkdir(exist_ok=True)
        for which, paths in (("Training", SUN_TRAIN), ("Testing", SUN_TEST)):
            (data / lists / f"{which}_01.txt").write_text("".join(f"/{path}\n" for path in paths))


@pytest.mark.parametrize("lists", ["SUN397", "SUN397/Partitions"])
def test_sun397_takes_the_first_official_partition_in_its_order(data, lists):
    write_sun(data, lists)
    dataset = task("SUN397")
    splits = check_splits(dataset, data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "val": 1, "test": 2}
    assert [path.removeprefix(f"{data}/SUN397/") for path in places(splits["test"])] == SUN_TEST
    assert classes_of(splits["test"]) == ["airplane cabin", "apse indoor"]
    everything = dataset.open("train", data)
    assert [dataset.classes[label] for label in everything.labels] == ["apse indoor", "youth hostel", "abbey"]
    assert dataset.find(data) == sun.LAYOUTS[1 if lists == "SUN397" else 2]


def test_sun397_in_the_papers_folders(data):
    write_folders(data / "sun397", {"train": {"a_apse_indoor": 10, "y_youth_hostel": 10}, "val": {"a_apse_indoor": 3}})
    splits = check_splits(task("SUN397"), data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "val": 2, "test": 3}
    assert set(classes_of(splits["test"])) == {"apse indoor"}
    assert set(classes_of(splits["train"])) == {"apse indoor", "youth hostel"}


def test_sun397_that_is_missing_is_downloaded_only_where_asked(data, offline):
    with pytest.raises(DataError, match="SUN397 is not below") as caught:
        task("SUN397").split("test", data)
    assert "`wisepatch datasets download SUN397` fetches it (39 GB)" in caught.value.hint
    assert not offline
    with published.asked(), pytest.raises(DataError, match=r"SUN397 .* could not be downloaded: no route to host"):
        task("SUN397").split("test", data)
    assert offline
    write_sun(data, lists=None)
    with pytest.raises(DataError, match=r"there is no Testing_01\.txt, and it could not be downloaded") as caught:
        task("SUN397").split("test", data)
    assert sun.PARTITIONS in caught.value.hint
    assert "SUN397/Partitions" not in caught.value.message


def test_sun397_fetches_its_small_lists_by_itself(data, monkeypatch, capsys):
    import torchvision.datasets.utils as utils

    write_sun(data, lists=None)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("Testing_01.txt", "".join(f"/{path}\n" for path in SUN_TEST))
    monkeypatch.setattr(sun, "PARTITIONS_MD5", hashlib.md5(archive.getvalue()).hexdigest())
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops=3: url)
    monkeypatch.setattr(utils, "_urlretrieve", lambda url, path: Path(path).write_bytes(archive.getvalue()))
    assert len(task("SUN397").split("test", data)) == 2
    with pytest.raises(DataError, match=r"Partitions\.zip holds no Training_01\.txt"):
        task("SUN397").split("train", data)
    assert capsys.readouterr().out == ""


def test_sun397_with_broken_lists_names_them(data):
    write_sun(data)
    (data / "SUN397" / "a" / "airplane_cabin" / "sun_b.jpg").unlink()
    with pytest.raises(DataError, match=r"SUN397: 1 of 2 images are missing, .*airplane_cabin/sun_b\.jpg"):
        task("SUN397").split("test", data)
    (data / "SUN397" / "Testing_01.txt").write_text("/m/moon/sun_b.jpg\n")
    with pytest.raises(DataError, match=r"names /m/moon/sun_b\.jpg, which is in none of its classes"):
        task("SUN397").split("test", data)
    (data / "SUN397" / "Testing_01.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"Testing_01\.txt cannot be read"):
        task("SUN397").split("test", data)


def write_food(data, classes=None):
    root = data / "food-101"
    (root / "meta").mkdir(parents=True)
    for split, size in (("train", 3), ("test", 1)):
        listed = {name: [] for name in classes or names("Food101")}
        for name in ("waffles", "apple_pie"):
            listed[name] = [f"{name}/{split}{index}" for index in range(size)]
            for line in listed[name]:
                picture(root / "images" / f"{line}.jpg", mode="L")
        (root / "meta" / f"{split}.json").write_text(json.dumps(listed))
    return root


def test_food101_is_read_from_its_lists(data):
    write_food(data)
    splits = check_splits(task("Food101"), data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 5, "val": 1, "test": 2}
    assert classes_of(splits["test"]) == ["apple pie", "waffles"]
    assert task("Food101").find(data) == task("Food101").layouts[0]


def test_food101_that_is_missing_or_broken_says_so(data, offline):
    with pytest.raises(DataError, match="Food101 is not below") as caught:
        task("Food101").split("test", data)
    assert "`wisepatch datasets download Food101` fetches it (5 GB)" in caught.value.hint
    assert not offline
    root = write_food(data)
    (root / "images" / "waffles" / "test0.jpg").unlink()
    with pytest.raises(DataError, match=r"Food101: 1 of 2 images are missing, .*waffles/test0\.jpg"):
        task("Food101").split("test", data)
    (root / "meta" / "test.json").write_text('{"waffles": ["waffles/test0"]}')
    with pytest.raises(DataError, match=r"meta/test\.json does not name the published classes"):
        task("Food101").split("test", data)
    (root / "meta" / "test.json").write_text('{"waffles": [')
    with pytest.raises(DataError, match=r"Food101: its files below .* are not what was published: JSONDecodeError"):
        task("Food101").split("test", data)


def write_clevr(data, train=(3, 4, 5, 6, 7, 8, 9, 10) * 3, val=(10, 3, 5, 7, 4)):
    root = data / "clevr" / "CLEVR_v1.0"
    (root / "scenes").mkdir(parents=True)
    for split, counts in (("train", train), ("val", val)):
        scenes = []
        for index, count in enumerate(counts):
            name = f"CLEVR_{split}_{index:06}.png"
            picture(root / "images" / split / name, red=count, mode="RGBA")
            scenes.append({"image_filename": name, "objects": [{"shape": "cube"}] * count})
        (root / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps({"info": {}, "scenes": scenes[::-1]}))
    return root


def test_clevr_counts_objects_and_tests_on_the_published_validation_split(data):
    write_clevr(data)
    dataset = task("CLEVR")
    assert dataset.classes == ("3", "4", "5", "6", "7", "8", "9", "10")
    splits = check_splits(dataset, data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 22, "val": 2, "test": 5}
    assert classes_of(splits["test"]) == ["10", "3", "5", "7", "4"]
    assert all("/images/val/" in path for path in places(splits["test"]))
    image, label = dataset.split("val", data)[0]
    assert image.getpixel((0, 0)) == (int(dataset.classes[label]), 0, 0)
    assert dataset.find(data) == clevr.LAYOUT


def test_halves_of_clevr_share_no_count_and_number_their_own(data):
    write_clevr(data)
    first, second = task("CLEVR45689"), task("CLEVR3710")
    assert (task("clevra"), task("clevrb")) == (first, second)
    assert (first.classes, second.classes) == (("4", "5", "6", "8", "9"), ("3", "7", "10"))
    assert set(first.classes) | set(second.classes) == set(task("CLEVR").classes)
    one, other = check_splits(first, data), check_splits(second, data)
    assert [len(one[s]) + len(other[s]) for s in ("train", "val")] == [15 - 1 + 9 - 1, 2]
    assert classes_of(one["test"]) == ["5", "4"]
    assert [other["test"][i][1] for i in range(3)] == [2, 0, 1]
    assert not {path for s in one.values() for path in places(s)} & {path for s in other.values() for path in places(s)}


def test_clevr_that_is_missing_or_broken_says_so(data, offline):
    with pytest.raises(DataError, match="CLEVR is not below") as caught:
        task("CLEVR").split("test", data)
    assert "`wisepatch datasets download CLEVR` fetches it (19 GB)" in caught.value.hint
    assert not offline
    root = write_clevr(data, val=(3, 2))
    with pytest.raises(DataError, match=r"CLEVR_val_000001\.png is said to show 2 objects, and scenes hold 3 to 10"):
        task("CLEVR").split("test", data)
    picture(root / "images" / "train" / "CLEVR_train_999999.png")
    with pytest.raises(DataError, match=r"not what was published: KeyError\('CLEVR_train_999999\.png'\)"):
        task("CLEVR").split("train", data)


def test_cifar10_1_is_version_6_and_test_images_alone(data):
    root = data / "CIFAR-10.1"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.save(root / "cifar10.1_v6_data.npy", pixels)
    np.save(root / "cifar10.1_v6_labels.npy", np.array([3, 0, 9, 9, 1], np.int32))
    dataset = task("CIFAR101")
    assert (dataset.name, dataset.classes, dataset.available_splits) == ("CIFAR10.1", cifar.TEN, ("test",))
    split = dataset.split("test", data)
    assert classes_of(split) == ["cat", "airplane", "truck", "truck", "automobile"]
    assert (np.asarray(split[2][0]) == pixels[2]).all()
    assert dataset.split("test", data, np.asarray)[4][0].shape == (32, 32, 3)
    before = split.fingerprint()
    np.save(root / "cifar10.1_v6_labels.npy", np.array([3, 0, 9, 9, 2], np.int32))
    assert dataset.split("test", data).fingerprint() != before
    with pytest.raises(DataError, match=r"task 'CIFAR10\.1' has no 'train' split"):
        dataset.split("train", data)


def write_cifar102(data, **more):
    """Each split as its publisher saved it: ``np.save`` of a dict."""
    root = data / "CIFAR-10.2"
    root.mkdir(exist_ok=True)
    for split, size in (("train", 20), ("test", 5)):
        images = np.zeros((size, 32, 32, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(size) + (100 if split == "test" else 0)
        found = {
            "images": images,
            "labels": np.arange(size) % 10,
            "label_names": list(cifar.TEN),
            "ti_indices": np.arange(size),
            "keywords": ["tabby cat", np.str_("été")] * size,
        }
        np.save(root / f"cifar102_{split}.npy", found | more, allow_pickle=True)
    return root


def test_cifar10_2_is_read_without_running_its_pickle(data):
    write_cifar102(data)
    dataset = task("CIFAR102")
    assert (dataset.name, dataset.classes, dataset.templates) == ("CIFAR10.2", cifar.TEN, TEMPLATES["CIFAR10"])
    splits = {name: dataset.split(name, data) for name in dataset.available_splits}
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "val": 2, "test": 5}
    reds = {name: {split[i][0].getpixel((0, 0))[0] for i in range(len(split))} for name, split in splits.items()}
    assert reds["train"] | reds["val"] == set(range(20))
    assert reds["test"] == set(range(100, 105))
    assert [splits["test"][i][1] for i in range(5)] == base.labels_of(splits["test"].samples) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("protocol", range(5))  # np.save has never used the fifth
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_cifar10_2_of_any_numpy_is_read(data, protocol, core):
    root = write_cifar102(data)
    path = root / "cifar102_test.npy"
    header = path.read_bytes()[:128]
    array = np.load(path, allow_pickle=True)
    pickled = pickle.dumps(array, protocol=protocol)
    if protocol < 4:  # names are written as lines, not with their length
        pickled = pickled.replace(b"numpy._core", core)
    path.write_bytes(header + pickled)
    assert len(task("CIFAR10.2").split("test", data)) == 5


class Called:
    """What a pickle runs when it is loaded by someone who trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Evaluated(Called):
    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({str(self.path)!r})",)


@pytest.mark.parametrize(("kind", "asked"), [(Called, r"(posix|nt)\.mkdir"), (Evaluated, r"builtins\.eval")])
def test_cifar10_2_refuses_a_pickle_that_runs_code(data, tmp_path, kind, asked):
    write_cifar102(data, images=kind(tmp_path / "owned"))
    with pytest.raises(
        DataError, match=rf"cifar102_test\.npy is not what was published: it asks for {asked}"
    ) as caught:
        task("CIFAR10.2").split("test", data)
    assert "fetch it again from https://github.com/modestyachts/cifar-10.2" in caught.value.hint
    assert not (tmp_path / "owned").exists()
    with (data / "CIFAR-10.2" / "cifar102_test.npy").open("rb") as file:  # the same file does harm where it is trusted
        np.load(file, allow_pickle=True).item()
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: np.save(path, np.zeros(3)), "it holds an array of float64, not a dict"),
        (lambda path: np.save(path, [{"images": 1}], allow_pickle=True), "it holds an array of object, not a dict"),
        (lambda path: np.save(path, {"images": 1}, allow_pickle=True), "no dict with images and labels"),
        (lambda path: np.save(path, np.array(None), allow_pickle=True), "no dict with images and labels"),
        (lambda path: np.save(path, {"images": np.zeros((2, 3)), "labels": [1, 2]}, allow_pickle=True), "float64"),
        (lambda path: path.write_bytes(path.read_bytes()[:400]), "not what was published"),
        (lambda path: path.write_bytes(b"<html>"), "not what was published"),
        (lambda path: path.write_bytes(b""), "not what was published"),
        (lambda path: path.write_bytes(path.read_bytes()[:128] + b"(cnumpy\nndarray\n."), "not what was published"),
    ],
)
def test_cifar10_2_that_is_not_what_was_published_is_an_error(data, write, message):
    write(write_cifar102(data) / "cifar102_test.npy")
    with pytest.raises(DataError, match=message):
        task("CIFAR10.2").split("test", data)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((2, 32, 32, 3)), np.array([1, 2]), "images of float64"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([1]), r"labels \(1,\)"),
        (np.zeros((1, 32, 32, 3), np.uint8), np.array([10]), "labels from 10 to 10"),
        (
            np.zeros((1, 32, 32, 3), np.uint8),
            np.array([None]),
            "labels.npy is not what was published: it holds no array of numbers",
        ),
    ],
)
def test_cifar10_1_that_is_not_what_was_published_is_an_error(data, pixels, labels, message):
    root = data / "CIFAR-10.1"
    root.mkdir()
    np.save(root / "cifar10.1_v6_data.npy", pixels)
    np.save(root / "cifar10.1_v6_labels.npy", labels, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        task("CIFAR10.1").split("test", data)


@pytest.mark.parametrize(("name", "file"), [("CIFAR10.1", "cifar10.1_v6_data.npy"), ("CIFAR10.2", "cifar102_test.npy")])
def test_reproductions_of_cifar_are_downloaded_whole_or_not_at_all(data, monkeypatch, offline, name, file):
    import torchvision.datasets.utils as utils

    with pytest.raises(DataError, match=rf"there is no {file}, and it could not be downloaded: no route") as caught:
        task(name).split("test", data)
    assert f"{cifar.FOLDERS[name]}/{{" in caught.value.hint
    assert cifar.SOURCES[name] in caught.value.hint
    assert offline[0].endswith(f"/raw/master/{'datasets/' if name == 'CIFAR10.1' else ''}{file}")

    source = data / "elsewhere"
    source.mkdir()
    write_cifar102(source)
    np.save(source / "cifar10.1_v6_data.npy", np.zeros((2, 32, 32, 3), np.uint8))
    np.save(source / "cifar10.1_v6_labels.npy", np.array([1, 2]))
    folder = data / cifar.FOLDERS[name]

    def half(url, path):
        Path(path).write_bytes(b"half")
        raise OSError("connection lost")

    monkeypatch.setattr(utils, "_urlretrieve", half)
    with pytest.raises(DataError, match="connection lost"):
        task(name).split("test", data)
    assert not (folder / file).exists()
    fetched = {path.name: path.read_bytes() for path in source.rglob("*.npy")}
    monkeypatch.setattr(
        utils, "_urlretrieve", lambda url, path: Path(path).write_bytes(fetched[url.rpartition("/")[2]])
    )
    assert len(task(name).split("test", data)) == (2 if name == "CIFAR10.1" else 5)
    assert task(name).find(data) is None or name == "CIFAR10.1"


def test_labels_of_torchvisions_pairs_are_known_unread():
    class Pairs:
        _samples = [("a.ppm", 4), ("b.ppm", 2)]  # noqa: RUF012 -- as torchvision keeps them

        def __len__(self):
            return 2

    assert base.labels_of(Pairs()) == [4, 2]
    Pairs._samples = [("a.ppm", 4)]
    assert base.labels_of(Pairs()) is None
