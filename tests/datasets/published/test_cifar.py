"""CIFAR and its reproductions in their publishers' formats."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.published.layouts import classes_of, task
from wisepatch.datasets.prompts import TEMPLATES
from wisepatch.datasets.published import cifar
from wisepatch.datasets.samples import labels_of
from wisepatch.errors import DataError


def cifar_batch(path, labels, key):
    """One batch as its publisher pickles it: rows of 3072 bytes, red first."""
    rows = np.zeros((len(labels), 3, 32, 32), np.uint8)
    for row, label in zip(rows, labels, strict=True):
        row[0] = label
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"data": rows.reshape(len(labels), -1), key: list(labels)}))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "below", "key", "meta_key"),
    [
        ("CIFAR10", "cifar-10-batches-py", "labels", "label_names"),
        ("CIFAR100", "cifar-100-python", "fine_labels", "fine_label_names"),
    ],
)
def test_cifar_is_read_from_its_batches(data, monkeypatch, name, below, key, meta_key):
    from torchvision import datasets

    published = getattr(datasets, name)
    lists = {}
    for which, size in (("train_list", 8), ("test_list", 4)):
        lists[which] = [
            [file, cifar_batch(data / below / file, [i % 10 for i in range(size)], key)]
            for file, _ in getattr(published, which)
        ]
        monkeypatch.setattr(published, which, lists[which])
    meta = data / below / published.meta["filename"]
    classes = cifar.TEN if name == "CIFAR10" else cifar.HUNDRED
    meta.write_bytes(pickle.dumps({meta_key: [c.replace(" ", "_") for c in classes]}))
    monkeypatch.setattr(published, "meta", published.meta | {"md5": hashlib.md5(meta.read_bytes()).hexdigest()})
    split = task(name).split("test", data)
    assert len(split) == 4
    image, label = split[3]
    assert (image.getpixel((0, 0)), label) == ((3, 0, 0), 3)


def test_cifar10_1_is_version_6_and_test_images_alone(data):
    root = data / "CIFAR-10.1"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.save(root / "cifar10.1_v6_data.npy", pixels)
    np.save(root / "cifar10.1_v6_labels.npy", np.array([3, 0, 9, 9, 1], np.int32))
    dataset = task("CIFAR101")
    assert (dataset.name, dataset.classes, dataset.available_splits) == ("CIFAR10.1", cifar.TEN, ("test",))
    split = dataset.split("test", data)
    assert classes_of(split) == ["cat", "airplane", "truck", "truck", "automobile"]
    assert (np.asarray(split[2][0]) == pixels[2]).all()
    assert dataset.split("test", data, np.asarray)[4][0].shape == (32, 32, 3)
    before = split.fingerprint()
    np.save(root / "cifar10.1_v6_labels.npy", np.array([3, 0, 9, 9, 2], np.int32))
    assert dataset.split("test", data).fingerprint() != before
    with pytest.raises(DataError, match=r"task 'CIFAR10\.1' has no 'train' split"):
        dataset.split("train", data)


def write_cifar102(data, **more):
    """Each split as its publisher saved it: ``np.save`` of a dict."""
    root = data / "CIFAR-10.2"
    root.mkdir(exist_ok=True)
    for split, size in (("train", 20), ("test", 5)):
        images = np.zeros((size, 32, 32, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(size) + (100 if split == "test" else 0)
        found = {
            "images": images,
            "labels": np.arange(size) % 10,
            "label_names": list(cifar.TEN),
            "ti_indices": np.arange(size),
            "keywords": ["tabby cat", np.str_("été")] * size,
        }
        np.save(root / f"cifar102_{split}.npy", found | more, allow_pickle=True)
    return root


def test_cifar10_2_is_read_without_running_its_pickle(data):
    write_cifar102(data)
    dataset = task("CIFAR102")
    assert (dataset.name, dataset.classes, dataset.templates) == ("CIFAR10.2", cifar.TEN, TEMPLATES["CIFAR10"])
    splits = {name: dataset.split(name, data) for name in dataset.available_splits}
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "val": 2, "test": 5}
    reds = {name: {split[i][0].getpixel((0, 0))[0] for i in range(len(split))} for name, split in splits.items()}
    assert reds["train"] | reds["val"] == set(range(20))
    assert reds["test"] == set(range(100, 105))
    assert [splits["test"][i][1] for i in range(5)] == labels_of(splits["test"].samples) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("protocol", range(5))  # np.save has never used the fifth
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_cifar10_2_of_any_numpy_is_read(data, protocol, core):
    root = write_cifar102(data)
    path = root / "cifar102_test.npy"
    header = path.read_bytes()[:128]
    array = np.load(path, allow_pickle=True)
    pickled = pickle.dumps(array, protocol=protocol)
    if protocol < 4:  # names are written as lines, not with their length
        pickled = pickled.replace(b"numpy._core", core)
    path.write_bytes(header + pickled)
    assert len(task("CIFAR10.2").split("test", data)) == 5


class Called:
    """What a pickle runs when it is loaded by someone who trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Evaluated(Called):
    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({str(self.path)!r})",)


@pytest.mark.parametrize(("kind", "asked"), [(Called, r"(posix|nt)\.mkdir"), (Evaluated, r"builtins\.eval")])
def test_cifar10_2_refuses_a_pickle_that_runs_code(data, tmp_path, kind, asked):
    write_cifar102(data, images=kind(tmp_path / "owned"))
    with pytest.raises(
        DataError, match=rf"cifar102_test\.npy is not what was published: it asks for {asked}"
    ) as caught:
        task("CIFAR10.2").split("test", data)
    assert "fetch it again from https://github.com/modestyachts/cifar-10.2" in caught.value.hint
    assert not (tmp_path / "owned").exists()
    with (data / "CIFAR-10.2" / "cifar102_test.npy").open("rb") as file:  # the same file does harm where it is trusted
        np.load(file, allow_pickle=True).item()
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: np.save(path, np.zeros(3)), "it holds an array, not a dict"),
        (lambda path: np.save(path, [{"images": 1}], allow_pickle=True), "it holds an array, not a dict"),
        (lambda path: np.save(path, {"images": 1}, allow_pickle=True), "no dict with images and labels"),
        (lambda path: np.save(path, np.array(None), allow_pickle=True), "no dict with images and labels"),
        (lambda path: np.save(path, {"images": np.zeros((2, 3)), "labels": [1, 2]}, allow_pickle=True), "float64"),
        (lambda path: path.write_bytes(path.read_bytes()[:400]), "not what was published"),
        (lambda path: path.write_bytes(b"<html>"), "not what was published"),
        (lambda path: path.write_bytes(b""), "not what was published"),
        (lambda path: path.write_bytes(path.read_bytes()[:128] + b"(cnumpy\nndarray\n."), "not what was published"),
    ],
)
def test_cifar10_2_that_is_not_what_was_published_is_an_error(data, write, message):
    write(write_cifar102(data) / "cifar102_test.npy")
    with pytest.raises(DataError, match=message):
        task("CIFAR10.2").split("test", data)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((2, 32, 32, 3)), np.array([1, 2]), "images of float64"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([1]), r"labels \(1,\)"),
        (np.zeros((1, 32, 32, 3), np.uint8), np.array([10]), "labels from 10 to 10"),
        (
            np.zeros((1, 32, 32, 3), np.uint8),
            np.array([None]),
            "labels.npy is not what was published: it holds no array of numbers",
        ),
    ],
)
def test_cifar10_1_that_is_not_what_was_published_is_an_error(data, pixels, labels, message):
    root = data / "CIFAR-10.1"
    root.mkdir()
    np.save(root / "cifar10.1_v6_data.npy", pixels)
    np.save(root / "cifar10.1_v6_labels.npy", labels, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        task("CIFAR10.1").split("test", data)


@pytest.mark.parametrize(("name", "file"), [("CIFAR10.1", "cifar10.1_v6_data.npy"), ("CIFAR10.2", "cifar102_test.npy")])
def test_reproductions_of_cifar_are_downloaded_whole_or_not_at_all(data, monkeypatch, offline, name, file):
    import torchvision.datasets.utils as utils

    with pytest.raises(DataError, match=rf"{file} is missing and could not be downloaded: no route") as caught:
        task(name).split("test", data)
    assert f"{cifar.FOLDERS[name][0]}/{{" in caught.value.hint
    assert cifar.SOURCES[name] in caught.value.hint
    assert offline[0].endswith(f"/raw/master/{'datasets/' if name == 'CIFAR10.1' else ''}{file}")

    source = data / "elsewhere"
    source.mkdir()
    write_cifar102(source)
    np.save(source / "cifar10.1_v6_data.npy", np.zeros((2, 32, 32, 3), np.uint8))
    np.save(source / "cifar10.1_v6_labels.npy", np.array([1, 2]))
    folder = data / cifar.FOLDERS[name][0]

    def half(url, path):
        Path(path).write_bytes(b"half")
        raise OSError("connection lost")

    monkeypatch.setattr(utils, "_urlretrieve", half)
    with pytest.raises(DataError, match="connection lost"):
        task(name).split("test", data)
    assert not (folder / file).exists()
    fetched = {path.name: path.read_bytes() for path in source.rglob("*.npy")}
    monkeypatch.setattr(
        utils, "_urlretrieve", lambda url, path: Path(path).write_bytes(fetched[url.rpartition("/")[2]])
    )
    assert len(task(name).split("test", data)) == (2 if name == "CIFAR10.1" else 5)
    assert task(name).find(data) is None or name == "CIFAR10.1"
