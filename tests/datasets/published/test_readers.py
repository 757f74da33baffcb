"""What all published tasks have in common: sizes, prompts, places, and errors for data that is missing."""

import pytest

from tests.datasets.published.layouts import BENCHMARKS, task
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published import eurosat_resisc45 as satellite
from wisepatch.datasets.published import mnist_svhn_stl10
from wisepatch.datasets.splits import SPLITS
from wisepatch.errors import DataError

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


@pytest.mark.parametrize("name", COUNTS)
def test_sizes_and_places_of_published_tasks_are_known_without_data(name):
    dataset = task(name)
    assert tuple(dataset.counts.get(split) for split in SPLITS) == COUNTS[name]
    known = {split for split, size in zip(SPLITS, COUNTS[name], strict=True) if size}
    assert known == set(dataset.splits) or name == "DTD"  # whose layouts differ in train and val
    assert dataset.metric == "top1"
    assert dataset.source.startswith("http")
    assert dataset.layouts
    assert dataset.gigabytes > 0
    assert dataset.downloads == (name not in ("Cars", "RESISC45", "SUN397"))


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


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "CIFAR100", "STL10", "SVHN", "FashionMNIST"])
def test_missing_data_says_where_to_get_it(data, name, monkeypatch):
    import torchvision.datasets.utils

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils, "_urlretrieve", refuse)
    without_system_folder = {name: folders[:3] for name, folders in mnist_svhn_stl10.MNIST_FOLDERS.items()}
    monkeypatch.setattr(mnist_svhn_stl10, "MNIST_FOLDERS", without_system_folder)
    with pytest.raises(DataError) as caught:
        task(name).split("test", data)
    assert caught.value.message.startswith(
        f"{name} is not below {data}: its files are missing and could not be downloaded: "
    )
    assert "http" in caught.value.hint
    assert str(data) in caught.value.hint
