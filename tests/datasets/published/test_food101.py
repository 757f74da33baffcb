"""Food-101 in its publisher's format."""

import json

import pytest

from tests.datasets.published.layouts import check_splits, classes_of, picture, task
from wisepatch.datasets.names import names
from wisepatch.errors import DataError


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
