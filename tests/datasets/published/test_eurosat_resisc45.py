"""EuroSAT and RESISC45 as published and in the papers' folders."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.published.layouts import (
    check_splits,
    classes_of,
    picture,
    places,
    task,
    write_folders,
)
from wisepatch.datasets.published import eurosat_resisc45 as satellite
from wisepatch.errors import DataError


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
    assert task("RESISC45").find(data) == satellite.RESISC_LAYOUTS[0]


def test_resisc45_that_is_missing_or_not_whole_says_so(data):
    with pytest.raises(DataError, match=r"RESISC45 is not below .*resisc45/resisc45-test\.txt is missing") as caught:
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
