"""Decoded pixels in the cache: bit for bit those of a fresh decoding, found again, made again when something changes."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tests.samples import Notes, write_mnist
from wisepatch import ModelConfig, Store, find_task, load_clip, predict_many
from wisepatch.config import EvalConfig
from wisepatch.errors import DataError, StoreError
from wisepatch.evaluation import pixels as module
from wisepatch.evaluation.pixels import Pixels, cached_pixels, pixels_key
from wisepatch.store.cache import versions

PACKAGES = ("pillow", "torchvision", "open_clip_torch")


@pytest.fixture
def clip():
    return load_clip(ModelConfig("demo", ""))


@pytest.fixture
def split(shapes, tmp_path, clip):
    return find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def entries(store):
    return sorted(path for path in (store.root / "cache" / "pixels").glob("[!.]*"))


def test_pixels_are_kept_and_are_those_of_the_images(store, split, clip, decoded):
    notes = Notes()
    first = cached_pixels(clip, split, store, progress=notes)
    assert len(decoded) == len(first) == len(split) == notes.total == sum(notes.steps) == 12
    assert notes.notes == [f"keeping the pixels of shapes (train): 0 MB below {store.root}"]
    again = cached_pixels(clip, split, store, progress=notes)
    assert len(decoded) == 12
    assert len(notes.notes) == 1
    for index in range(12):
        pixels, label = again[index]
        image, truth = split[index]
        assert torch.equal(pixels, image)
        assert (pixels.dtype, label) == (torch.uint8, truth)


def test_pixels_are_mapped_from_a_file_also_where_a_worker_gets_them(store, split, clip):
    pixels = cached_pixels(clip, split, store)
    copied = pickle.loads(pickle.dumps(pixels))
    assert torch.equal(copied[3][0], pixels[3][0])
    assert len(pickle.dumps(pixels)) < 1000
    assert isinstance(copied.pixels, np.memmap)


def test_changed_files_and_another_preprocessing_have_pixels_of_their_own(shapes, tmp_path, clip):
    dataset = find_task(str(shapes)).dataset

    def key(name="test", model=clip):
        return pixels_key(model, dataset.split(name, tmp_path, model.pixels))

    first = key()
    assert key() == first
    other = replace(clip, transform=v2.Compose([v2.Resize(32), *clip.transform.transforms]))
    keys = {first, key("val"), key(model=other)}
    path, _ = dataset.split("test", tmp_path).samples.files[0]
    Image.new("RGB", (64, 64)).save(path)
    assert len({*keys, key()}) == 4


@pytest.mark.parametrize("package", ["wisepatch", *PACKAGES])
def test_another_version_of_what_decodes_is_another_key(split, clip, monkeypatch, package):
    before = pixels_key(clip, split)
    changed = {name: "0" if name == package else number for name, number in versions(*PACKAGES).items()}
    monkeypatch.setattr(module, "versions", lambda *names: {name: changed[name] for name in ("wisepatch", *names)})
    assert pixels_key(clip, split) != before


def test_sets_of_one_layout_in_two_folders_are_not_taken_for_one_another(tmp_path, clip):
    """Torchvision's MNIST knows no fingerprint: its pixels tell."""
    keys = []
    for name in ("one", "two"):
        write_mnist(tmp_path / name)
        if name == "two":
            for path in (tmp_path / name).rglob("t10k-images*"):
                path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 255]))
        keys.append(pixels_key(clip, find_task("MNIST").dataset.split("test", tmp_path / name, clip.pixels)))
    assert keys[0] != keys[1]


def test_evaluation_with_cached_images_is_the_same_and_decodes_once(run_store, tasks, tmp_path, decoded):
    ends = [run_store.find("zeroshot"), run_store.find("finetuned")]

    def predict(**settings):
        settings = EvalConfig(workers=0, **settings)
        (predictions,) = predict_many(ends, tasks[:1], run_store, tmp_path, split="train", settings=settings)
        return predictions

    plain = predict()
    before = len(decoded)
    first, again = predict(cache_images=True), predict(cache_images=True)
    assert len(decoded) - before == len(plain.labels)
    for cached in (first, again):
        assert np.array_equal(cached.predicted, plain.predicted)
        assert np.array_equal(cached.confidence, plain.confidence)
        assert np.array_equal(cached.labels, plain.labels)
    assert len(entries(run_store)) == 1


def test_a_broken_image_leaves_no_half_of_a_cache(shapes, store, split, tmp_path, clip):
    Path(split.samples.files[-1][0]).write_bytes(b"no image")
    split = find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels)
    with pytest.raises(DataError, match="cannot be read"):
        cached_pixels(clip, split, store)
    assert entries(store) == []


@pytest.mark.parametrize("name", ["pixels.npy", "labels.npy"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None, "one bit"])
def test_damaged_pixels_are_noticed_and_made_again(store, split, clip, decoded, name, content):
    broken, notes = cached_pixels(clip, split, store).folder / name, Notes()
    if content == "one bit":
        content = bytearray(broken.read_bytes())
        content[-9] ^= 1
    broken.write_bytes(content) if content is not None else broken.unlink()
    again = cached_pixels(clip, split, store, progress=notes)
    assert len(decoded) == 24
    assert notes.notes[0].startswith("the cache entry ")
    assert all(torch.equal(again[index][0], split[index][0]) for index in range(12))
    assert [again[index][1] for index in range(12)] == [split[index][1] for index in range(12)]


def test_a_store_that_cannot_be_written_is_an_error(split, tmp_path, clip):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        cached_pixels(clip, split, Store(tmp_path / "file"))


def test_pixels_that_the_disk_has_no_room_for_are_not_begun(store, split, clip, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(StoreError, match=r"the pixels of shapes \(train\) need .*0\.0 GB; .* has 0\.0"):
        cached_pixels(clip, split, store)
    assert entries(store) == []


def test_two_runs_at_once_decode_each_image_once(store, split, clip, decoded):
    notes, begun, waiting = Notes(), Event(), Event()

    class First(Notes):
        def start(self, what, total):
            begun.set()
            assert waiting.wait(300)

    class Second(Notes):
        def note(self, text):
            notes.note(text)
            waiting.set()

    first = Thread(target=cached_pixels, args=(clip, split, store), kwargs={"progress": First()})
    first.start()
    assert begun.wait(300)
    pixels = cached_pixels(clip, split, store, progress=Second())
    first.join()
    assert notes.notes == ["another process keeps the pixels of shapes (train): waiting for it"]
    assert sorted(decoded) == list(range(12))
    assert len(pixels) == 12
    assert entries(store) == [pixels.folder]


def test_command_keeps_pixels_on_request_alone(cli, shapes, tmp_path):
    for options, count in (((), 0), (("--cache-images",), 1), (("--cache-images", "--mixed-precision", "bf16"), 1)):
        result = cli("zeroshot", "--model", "demo", "--task", shapes, *options, "--again", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout.splitlines()[0])["n"] == 3
        folders = [path.parent for path in tmp_path.rglob("pixels.npy")]
        assert len(folders) == count
    assert "keeping the pixels of shapes (test)" not in result.stderr
    assert len(Pixels(folders[0])) == 3


def test_patch_keeps_the_pixels_of_what_is_measured(cli, shapes, tmp_path):
    result = cli(
        "patch", "--model", "demo", "--task", shapes, "--steps", 2, "--batch-size", 4, "--alpha", "0,1", "--cache-images",
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.rglob("pixels.npy"))) == 2  # val and test


def test_gc_removes_what_an_interrupted_run_left_and_pixels_on_request(cli, store, split, clip):
    folder = cached_pixels(clip, split, store).folder
    left = folder.with_name(".wisepatch-partial-0123abcd")
    left.mkdir()
    assert cli("store", "gc", "--store", store.root).stdout.splitlines() == ["removed 1 file or folder", f"  {left}"]
    assert folder.is_dir()
    assert not left.exists()
    result = cli("store", "gc", "--caches", "--store", store.root)
    assert result.stdout.splitlines() == ["removed 1 file or folder", f"  {folder}"]
    assert not folder.exists()
