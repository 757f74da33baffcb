"""SUN397 as published and in the papers' folders."""

import pytest

from tests.datasets.published.layouts import (
    check_splits,
    classes_of,
    picture,
    places,
    task,
    write_folders,
)
from wisepatch.datasets.published import readers as published
from wisepatch.datasets.published import sun397 as sun
from wisepatch.errors import DataError

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
    assert dataset.find(data) == sun.LAYOUTS[2 if lists == "SUN397" else 3]


def test_sun397_in_the_papers_folders(data):
    write_folders(data / "sun397", {"train": {"a_apse_indoor": 10, "y_youth_hostel": 10}, "val": {"a_apse_indoor": 3}})
    splits = check_splits(task("SUN397"), data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "val": 2, "test": 3}
    assert set(classes_of(splits["test"])) == {"apse indoor"}
    assert set(classes_of(splits["train"])) == {"apse indoor", "youth hostel"}


def test_sun397_in_the_folders_that_are_about_today(data):
    sizes = {"train": {"a_apse_indoor": 10, "Youth hostel": 10}, "test": {"apse_indoor": 3}, "valid": {"abbey": 2}}
    write_folders(data / "SUN397", sizes)
    dataset = task("SUN397")
    splits = check_splits(dataset, data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 20, "val": 2, "test": 3}
    assert set(classes_of(splits["train"]) + classes_of(splits["val"])) == {"apse indoor", "youth hostel", "abbey"}
    assert set(classes_of(splits["test"])) == {"apse indoor"}
    assert dataset.find(data) == sun.LAYOUTS[0]
    (data / "SUN397" / "test" / "apse_indoor").rename(data / "SUN397" / "test" / "moon")
    with pytest.raises(DataError, match="SUN397/test/moon is not the folder of one of its classes"):
        dataset.split("test", data)
    (data / "SUN397" / "testing").mkdir()
    with pytest.raises(DataError, match="SUN397 has two folders of 'test': test and testing"):
        dataset.split("test", data)


def test_dead_addresses_are_not_asked_and_the_error_says_where_people_get_the_data_today(data, offline):
    with published.asked(), pytest.raises(DataError, match=r"SUN397 is not below .*: there is no .*SUN397$") as caught:
        task("SUN397").split("test", data)
    assert not offline
    for part in ("hf:tanganke/sun397 --template SUN397", "SUN397/{train/*/*.jpg,test/*/*.jpg}", str(data)):
        assert part in caught.value.hint
    write_sun(data, lists=None)
    with published.asked(), pytest.raises(DataError, match=r"there is no .*SUN397/Testing_01\.txt"):
        task("SUN397").split("test", data)
    assert not offline


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
