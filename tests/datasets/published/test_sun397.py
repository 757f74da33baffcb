"""SUN397 as published and in the papers' folders."""

import hashlib
import io
import zipfile
from pathlib import Path

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
    with pytest.raises(DataError, match=r"Testing_01\.txt is missing and could not be downloaded") as caught:
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
