"""Tests of the installed plugin, on small files in the published format."""

import bz2
from importlib.metadata import entry_points

import pytest

import wisepatch as wp
from wisepatch.testing import check_plugin


def write_usps(folder, train=20, test=10):
    """LIBSVM lines as in usps.bz2: label 1 to 10, then index:value with values in [-1, 1]; image i has row i white."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("usps.bz2", train), ("usps.t.bz2", test)):
        lines = []
        for number in range(size):
            label = number % 10
            pixels = " ".join(f"{i + 1}:{1.0 if i // 16 == label else -1.0}" for i in range(256))
            lines.append(f"{label + 1} {pixels} \n")
        (folder / name).write_bytes(bz2.compress("".join(lines).encode()))


def test_entry_point_is_installed():
    assert "usps" in entry_points(group="wisepatch").names


def test_contract_is_kept(tmp_path):
    write_usps(tmp_path, train=40)
    assert [dataset.name for dataset in check_plugin("usps", tmp_path)] == ["USPS"]


@pytest.mark.parametrize("below", ["", "usps"])
def test_splits_are_read_from_published_files(tmp_path, below):
    write_usps(tmp_path / below)
    dataset = wp.find_task("usps").dataset
    sizes = {split: len(dataset.split(split, tmp_path)) for split in dataset.available_splits}
    assert sizes == {"train": 18, "val": 2, "test": 10}
    image, label = dataset.split("test", tmp_path)[3]
    assert (image.mode, image.size, label) == ("RGB", (16, 16), 3)
    assert image.getpixel((0, 3)) == (255, 255, 255)
    assert image.getpixel((0, 4)) == (0, 0, 0)


def test_missing_files_say_where_to_get_them(tmp_path, monkeypatch):
    import torchvision.datasets.utils

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", refuse)
    with pytest.raises(wp.WisepatchError, match=r"USPS is not below .* no route to host") as caught:
        wp.find_task("USPS").dataset.split("test", tmp_path)
    assert "csie.ntu.edu.tw" in caught.value.hint


def test_file_that_is_something_else_is_named(tmp_path):
    (tmp_path / "usps.t.bz2").write_bytes(b"<html>")
    with pytest.raises(wp.WisepatchError, match=r"usps\.t\.bz2 is not the published file"):
        wp.find_task("USPS").dataset.split("test", tmp_path)
