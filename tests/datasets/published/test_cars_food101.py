"""Stanford Cars and Food-101 in their publishers' formats."""

import json

import numpy as np
import pytest

from tests.datasets.published.layouts import check_splits, classes_of, picture, places, task
from wisepatch.datasets.names import names
from wisepatch.errors import DataError


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
