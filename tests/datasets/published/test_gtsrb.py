"""GTSRB in its publisher's format."""

import pytest

from tests.datasets.published.layouts import BENCHMARKS, save, task
from wisepatch.errors import DataError

pytestmark = pytest.mark.usefixtures("no_downloads")


def write_gtsrb(data, per_class=2, test=(14, 0, 42)):
    """Training images in folders, test images in one, and the table of their labels."""
    base = data / "gtsrb"
    for label in range(43):
        for index in range(per_class):
            save(base / f"GTSRB/Training/{label:05d}/00000_{index:05d}.ppm", color=(label, index, 0))
    table = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for index, label in enumerate(test):
        save(base / f"GTSRB/Final_Test/Images/{index:05d}.ppm", color=(label, 99, 0))
        table.append(f"{index:05d}.ppm;12;8;1;1;10;6;{label}")
    (base / "GT-final_test.csv").write_text("\n".join(table) + "\n")
    return data


def test_gtsrb_is_read_from_folders_and_table(data):
    write_gtsrb(data)
    dataset = task("GTSRB")
    opened = {split: dataset.split(split, data) for split in ("train", "val", "test")}
    assert {split: len(each) for split, each in opened.items()} == {"train": 78, "val": 8, "test": 3}
    for split in opened.values():
        for index, label in enumerate(split.samples.labels):
            image, found = split[index]
            assert (image.mode, found, image.getpixel((0, 0))[0]) == ("RGB", label, label)
    signs = [opened["test"].classes[label] for label in opened["test"].samples.labels]
    assert signs == [BENCHMARKS["classes"]["GTSRB"][label] for label in (14, 0, 42)]
    assert dataset.find(data) == dataset.layouts[0]
    assert (dataset.expected("train"), dataset.expected("val"), dataset.expected("test")) == (23976, 2664, 12630)


def test_gtsrb_transforms_its_images(data):
    write_gtsrb(data)
    assert task("GTSRB").split("test", data, lambda image: image.size)[1] == ((12, 8), 0)


def test_gtsrb_that_is_not_there_says_where_it_goes(data):
    with pytest.raises(DataError, match=r"GTSRB is not below .* could not be downloaded: the network is off") as caught:
        task("GTSRB").split("test", data)
    assert "benchmark.ini.rub.de" in caught.value.hint
    assert str(data) in caught.value.hint


def test_gtsrb_without_one_class_folder_is_refused_before_labels_shift(data):
    write_gtsrb(data)
    for image in (data / "gtsrb/GTSRB/Training/00007").iterdir():
        image.unlink()
    (data / "gtsrb/GTSRB/Training/00007").rmdir()
    with pytest.raises(DataError, match="Training holds 42 class folders, not 43"):
        task("GTSRB").split("train", data)


@pytest.mark.parametrize(
    "table",
    ["Filename;Width;Height\n00000.ppm;12;8\n", "Filename;ClassId\n00000.ppm;stop\n", "Filename;ClassId\n00000.ppm\n"],
)
def test_gtsrb_table_without_labels_is_named(data, table):
    (write_gtsrb(data) / "gtsrb/GT-final_test.csv").write_text(table)
    with pytest.raises(DataError, match=r"GTSRB: its files below .* are not what was published") as caught:
        task("GTSRB").split("test", data)
    assert "benchmark.ini.rub.de" in caught.value.hint


def test_gtsrb_without_its_table_names_it(data):
    (write_gtsrb(data) / "gtsrb/GT-final_test.csv").unlink()
    with pytest.raises(DataError, match=r"GT-final_test\.csv"):
        task("GTSRB").split("test", data)
