"""Several published tasks through the whole way, on miniature files in the layouts of their publishers."""

import json

import pytest

from tests.samples import draw_folder, write_mnist
from wisepatch import find_task
from wisepatch.datasets.names import names
from wisepatch.plugins import find_tasks, registry


def write_dtd(data):
    """The papers' folders: train and val, each with one folder a texture."""
    for split, size in (("train", 10), ("val", 4)):
        draw_folder(data / "dtd" / split, per_class=size, classes=("circle", "star"))
        for drawn, texture in (("circle", "dotted"), ("star", "braided")):
            (data / "dtd" / split / drawn).rename(data / "dtd" / split / texture)


def write_eurosat(data):
    draw_folder(data / "eurosat" / "2750", per_class=10, classes=("ring", "heart"))
    for drawn, land in (("ring", "Forest"), ("heart", "River")):
        (data / "eurosat" / "2750" / drawn).rename(data / "eurosat" / "2750" / land)


def write_imagenet_a(data):
    draw_folder(data / "imagenet-a", per_class=2, classes=("cross", "arrow"))
    for drawn, index in (("cross", 6), ("arrow", 988)):
        (data / "imagenet-a" / drawn).rename(data / "imagenet-a" / names("ImageNet folders")[index])


def test_several_published_tasks_go_the_whole_way(cli, tmp_path):
    data = tmp_path / "data"
    write_mnist(data)
    for write in (write_dtd, write_eurosat, write_imagenet_a):
        write(data)
    common = ("--data", data, "--json")
    run = cli(
        "finetune", "--model", "demo", "--task", "MNIST", "--supported", "DTD,EuroSAT", "--steps", 3, "--batch-size", 8,
        "--lr", "1e-3", *common,
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    swept = cli("interpolate", "--alpha", "0,0.5,1", "--select", "max-drop=0.5", *common)
    assert swept.exit_code == 0, swept.output
    rows = [row for row in map(json.loads, swept.stdout.splitlines()) if "metric" in row]
    sizes = {(row["task"], row["split"]): row["n"] for row in rows}
    assert sizes == {
        ("MNIST", "val"): 4, ("MNIST", "test"): 20, ("DTD", "val"): 2, ("DTD", "test"): 8, ("EuroSAT", "val"): 2,
        ("EuroSAT", "test"): 2,
    }  # fmt: skip
    assert {row["alpha"] for row in rows} == {0.0, 0.5, 1.0}
    measured = cli("eval", "patched", "--task", "ImageNetA", "--template", "simple", *common)
    assert measured.exit_code == 0, measured.output
    (row,) = map(json.loads, measured.stdout.splitlines())
    assert (row["task"], row["metric"], row["n"]) == ("ImageNetA", "top1", 4)


def test_training_on_a_task_without_a_train_split_says_so(cli, data):
    write_imagenet_a(data)
    result = cli("finetune", "--model", "demo", "--task", "ImageNetA", "--data", data)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == ["error: task 'ImageNetA' has no 'train' split", "hint: it offers test"]


# The tasks that the two papers name; those of WILDS are a plugin's.
PAPERS = [
    "Cars", "DTD", "EuroSAT", "GTSRB", "KITTI", "MNIST", "RESISC45", "SUN397", "SVHN", "ImageNet", "CIFAR10",
    "CIFAR100", "STL10", "Food101", "FashionMNIST", "MTSD", "CLEVR", "ImageNetV2", "ImageNetR", "ImageNetA",
    "ImageNetSketch", "ObjectNet", "ImageNetRValClasses", "ImageNetAValClasses", "ObjectNetValClasses",
    "ImageNetVidRobust", "ImageNetVidRobustValClasses", "YTBBRobust", "YTBBRobustValClasses", "CIFAR10.1",
    "CIFAR10.2",
    *(f"ImageNet{k}" for k in (1, 2, 4, 8, 16, 25, 32, 50, 64, 128, 600)),
]  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_every_task_of_the_papers_is_listed_with_what_is_needed_to_get_it(name):
    dataset = find_task(name).dataset
    assert dataset.name == name
    assert dataset.source.startswith("http")
    assert dataset.layouts
    assert len(set(dataset.head_names)) >= 0.99 * len(dataset.head_names)  # ImageNet's has two names twice


def test_no_alias_hides_a_name():
    known = registry()
    assert {name for name, owner in known.names.items() if name == owner.lower()} == {n.lower() for n in known.datasets}


def test_validation_images_are_not_augmented(data):
    """The published code cuts validation from the training set as opened for training; here each has its own transform."""
    write_mnist(data)
    for split in ("train", "val", "test"):
        assert find_task("MNIST").dataset.split(split, data, lambda image: (image.mode, image.size))[0][0] == (
            "RGB",
            (28, 28),
        )
    training = find_task("MNIST").dataset.split("train", data, lambda image: "augmented")
    validation = find_task("MNIST").dataset.split("val", data, lambda image: "as it is")
    assert {training[i][0] for i in range(len(training))} == {"augmented"}
    assert {validation[i][0] for i in range(len(validation))} == {"as it is"}


def test_task_spellings(shapes):
    assert find_task("mnist").name == "MNIST"
    assert (find_task("MNISTVal").name, find_task("MNISTVal").split) == ("MNIST", "val")
    assert (find_task("cifar10@test").name, find_task("cifar10@test").split) == ("CIFAR10", "test")
    assert find_task("Shapes@val").spec == "Shapes@val"
    assert find_task(str(shapes)).name == "shapes"
    assert [t.spec for t in find_tasks(["Shapes", "shapes", "Shapes@val"])] == ["Shapes", "Shapes@val"]
