"""Describable Textures as published and in the papers' folders."""

import pytest

from tests.datasets.published.layouts import check_splits, classes_of, picture, places, task, write_folders
from wisepatch.datasets.splits import cut_validation
from wisepatch.errors import DataError


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


def test_dtd_in_the_papers_folders_tests_on_val_and_cuts_train(data):
    write_folders(data / "dtd", {"train": {"banded": 12, "woven": 8}, "val": {"banded": 2, "woven": 3}})
    write_dtd(data / "dtd" / "dtd")  # who makes the folders wants them
    splits = check_splits(task("DTD"), data)
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "val": 2, "test": 5}
    assert classes_of(splits["test"]) == ["banded"] * 2 + ["woven"] * 3
    assert all("/dtd/train/" in path for path in places(splits["val"]) + places(splits["train"]))
    everything = cut_validation(range(20), "val").indices
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
    with pytest.raises(DataError, match=r"DTD is not below .*train1\.txt is missing"):
        task("DTD").split("train", data)
