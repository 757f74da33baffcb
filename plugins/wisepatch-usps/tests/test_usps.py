"""Tests of the installed plugin, on small files in the published format."""

import bz2
import hashlib
from importlib.metadata import entry_points

import pytest
import torchvision.datasets

import wisepatch as wp


def write_usps(folder, monkeypatch, sizes=(20, 10)):
    """LIBSVM lines as in usps.bz2: label 1 to 10, then index:value with values in [-1, 1]."""
    folder.mkdir(parents=True, exist_ok=True)
    published = dict(torchvision.datasets.USPS.split_list)
    for (split, (url, name, _)), size in zip(published.items(), sizes, strict=True):
        lines = []
        for number in range(size):
            label = number % 10
            pixels = " ".join(f"{i + 1}:{1.0 if i // 16 == label else -1.0}" for i in range(256))
            lines.append(f"{label + 1} {pixels} \n")
        data = bz2.compress("".join(lines).encode())
        (folder / name).write_bytes(data)
        monkeypatch.setitem(torchvision.datasets.USPS.split_list, split, [url, name, hashlib.md5(data).hexdigest()])


def test_entry_point_is_installed():
    assert "usps" in entry_points(group="wisepatch").names


@pytest.mark.parametrize("below", ["", "usps"])
def test_splits_are_read_from_published_files(tmp_path, monkeypatch, below):
    write_usps(tmp_path / below, monkeypatch)
    dataset = wp.find_task("usps").dataset
    sizes = {split: len(dataset.split(split, tmp_path)) for split in dataset.offered}
    assert sizes == {"train": 18, "val": 2, "test": 10}
    image, label = dataset.split("test", tmp_path)[3]
    assert (image.mode, image.size, label) == ("RGB", (16, 16), 3)
    assert image.getpixel((0, 3)) == (255, 255, 255)
    assert image.getpixel((0, 4)) == (0, 0, 0)


def test_missing_files_say_where_to_get_them(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.usps, "download_url", refuse)
    with pytest.raises(wp.WisepatchError, match=r"USPS is not below .* no route to host") as caught:
        wp.find_task("USPS").dataset.split("test", tmp_path)
    assert "csie.ntu.edu.tw" in caught.value.hint
