"""CLEVR in its publisher's format."""

import json

import pytest

from tests.datasets.published.layouts import check_splits, classes_of, picture, places, task
from wisepatch.datasets.published import clevr
from wisepatch.errors import DataError


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
