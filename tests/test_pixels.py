"""Decoded pixels kept in the store: bit for bit those of a fresh decoding, found again, made again when files change."""

import json
import pickle

import numpy as np
import pytest
import torch

from wisepatch import ModelConfig, Store, evaluate, find_task, load_encoder, predict
from wisepatch.datasets.folder import FileSamples
from wisepatch.datasets.loading import MOST_WORKERS, WORTH, worker_count
from wisepatch.errors import DataError, StoreError
from wisepatch.pixels import Pixels, cached_pixels


@pytest.fixture
def encoder():
    return load_encoder(ModelConfig("demo", ""))


@pytest.fixture
def decoded(monkeypatch):
    """The indices of images that are decoded."""
    seen, original = [], FileSamples.__getitem__

    def spy(self, index):
        seen.append(index)
        return original(self, index)

    monkeypatch.setattr(FileSamples, "__getitem__", spy)
    return seen


class Notes:
    def __init__(self):
        self.said, self.total, self.done = [], 0, 0

    def start(self, what, total):
        self.total += total

    def advance(self, steps=1, detail=""):
        self.done += steps

    def finish(self):
        pass

    def note(self, text):
        self.said.append(text)


def test_pixels_are_kept_and_are_those_of_the_images(shapes, tmp_path, encoder, decoded):
    split, notes = find_task(str(shapes)).dataset.split("train", tmp_path, encoder.pixels), Notes()
    store = Store(tmp_path / "store")
    found = cached_pixels(encoder, split, store, progress=notes)
    assert len(decoded) == len(found) == len(split) == notes.total == notes.done == 12
    (said,) = notes.said
    assert said.startswith("keeping the pixels of shapes (train): 0 MB below ")
    again = cached_pixels(encoder, split, store, progress=notes)
    assert len(decoded) == 12
    assert len(notes.said) == 1
    for index in range(12):
        pixels, label = again[index]
        image, truth = split[index]
        assert torch.equal(pixels, image)
        assert (pixels.dtype, label) == (torch.uint8, truth)
    assert isinstance(np.load(found.folder / "pixels.npy", mmap_mode="r"), np.memmap)
    copied = pickle.loads(pickle.dumps(again))  # as it is sent to a worker
    assert torch.equal(copied[3][0], again[3][0])
    assert len(pickle.dumps(again)) < 1000


def test_changed_files_and_another_preprocessing_have_pixels_of_their_own(shapes, tmp_path, encoder, decoded):
    store, task = Store(tmp_path / "store"), find_task(str(shapes))
    first = cached_pixels(encoder, task.dataset.split("test", tmp_path, encoder.pixels), store)
    path = next(iter(shapes.glob("circle/*.png")))
    path.touch()
    second = cached_pixels(encoder, task.dataset.split("test", tmp_path, encoder.pixels), store)
    third = cached_pixels(encoder, task.dataset.split("val", tmp_path, encoder.pixels), store)
    assert len({first.folder, second.folder, third.folder}) >= 2
    assert len({first.folder, third.folder}) == 2


def test_evaluation_with_cached_images_is_the_same_and_decodes_once(run_store, finished, tmp_path, decoded):
    task, ends = find_task(str(finished[0] / "shapes")), [run_store.find("zeroshot"), run_store.find("finetuned")]
    (plain,) = predict(ends, [task], run_store, tmp_path, split="train")
    before = len(decoded)
    (first,), (again,) = (
        list(predict(ends, [task], run_store, tmp_path, split="train", cache_images=True)) for _ in range(2)
    )
    assert len(decoded) - before == len(plain.labels)
    for found in (first, again):
        assert np.array_equal(found.predicted, plain.predicted)
        assert np.array_equal(found.confidence, plain.confidence)
        assert np.array_equal(found.labels, plain.labels)


def test_broken_image_leaves_no_half_of_a_cache(shapes, tmp_path, encoder):
    split = find_task(str(shapes)).dataset.split("train", tmp_path, encoder.pixels)
    store = Store(tmp_path / "store")
    (broken,) = [path for path, _ in split.samples.files][-1:]
    broken.write_bytes(b"no image")
    split = find_task(str(shapes)).dataset.split("train", tmp_path, encoder.pixels)
    with pytest.raises(DataError, match="cannot be read"):
        cached_pixels(encoder, split, store)
    assert list(store.pixels.iterdir()) == []


def test_store_that_cannot_be_written_says_so(shapes, tmp_path, encoder):
    split = find_task(str(shapes)).dataset.split("train", tmp_path, encoder.pixels)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        cached_pixels(encoder, split, Store(tmp_path / "file"))


def test_command_keeps_pixels_on_request_alone(cli, shapes, tmp_path):
    for options, kept in (((), 0), (("--cache-images",), 1), (("--cache-images", "--mixed-precision", "bf16"), 1)):
        result = cli("zeroshot", "--model", "demo", "--task", shapes, *options, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout.splitlines()[0])["n"] == 3
        folders = [path.parent for path in tmp_path.rglob("pixels.npy")]
        assert len(folders) == kept
    assert "keeping the pixels of shapes (test)" not in result.stderr
    assert len(Pixels(folders[0])) == 3


def test_neighbouring_tasks_with_the_same_images_share_one_pass(run_store, shapes, tmp_path, decoded):
    """Other names for the classes, another order of them, the same files: each image is decoded and encoded once."""
    lines = [f"{path},{path.parent.name},test" for path in sorted(shapes.rglob("*.png"))]
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label,split", *lines]))
    one = find_task(str(tmp_path / "one.csv"))
    two = find_task(str(tmp_path / "two.csv"), classnames=("ring", "box", "hat"))
    ends = [run_store.find("zeroshot"), run_store.find("finetuned")]
    apart = [next(predict(ends, [task], run_store, tmp_path)) for task in (one, two)]
    assert len(decoded) == 2 * len(lines)
    notes = Notes()
    together = list(predict(ends, [one, two], run_store, tmp_path, progress=notes))
    assert len(decoded) == 3 * len(lines)
    assert notes.total == notes.done == 2 * len(lines)
    for alone, shared, task in zip(apart, together, (one, two), strict=True):
        assert shared.task == task
        assert np.array_equal(alone.predicted, shared.predicted)
        assert np.array_equal(alone.labels, shared.labels)
    assert not np.array_equal(together[0].predicted, together[1].predicted)
    rows = evaluate(ends, [one, two], run_store, tmp_path, record=False)
    assert [row["task"] for row in rows] == ["one", "one", "two", "two"]


@pytest.mark.parametrize(
    ("asked", "images", "cores", "expected"),
    [
        (None, 10 * WORTH, 2, 2), (None, 10 * WORTH, 1, 0), (None, WORTH - 1, 64, 0), (None, 2 * WORTH, 64, 2),
        (None, 100 * WORTH, 64, MOST_WORKERS), (0, 100 * WORTH, 64, 0), (5, 1, 1, 5),
    ],
)  # fmt: skip
def test_workers_suit_the_machine_and_the_number_of_images(monkeypatch, asked, images, cores, expected):
    from wisepatch.datasets import loading

    monkeypatch.setattr(loading.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert worker_count(asked, images) == expected
