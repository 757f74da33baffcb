"""Decoded pixels kept in the store: bit for bit those of a fresh decoding, found again, made again when files change."""

import json
import pickle
from dataclasses import replace
from functools import partial
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tests.samples import write_mnist
from wisepatch import ModelConfig, Store, TrainConfig, evaluate, find_task, finetune, load_clip, predict_many, sweep
from wisepatch.datasets.folder import FileSamples
from wisepatch.errors import DataError, StoreError
from wisepatch.evaluation.pixels import Pixels, cached_images, cached_pixels


@pytest.fixture
def clip():
    return load_clip(ModelConfig("demo", ""))


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


def test_pixels_are_kept_and_are_those_of_the_images(shapes, tmp_path, clip, decoded):
    split, notes = find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels), Notes()
    store = Store(tmp_path / "store")
    found = cached_pixels(clip, split, store, progress=notes)
    assert len(decoded) == len(found) == len(split) == notes.total == notes.done == 12
    (said,) = notes.said
    assert said.startswith("keeping the pixels of shapes (train): 0 MB below ")
    again = cached_pixels(clip, split, store, progress=notes)
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


def test_changed_files_and_another_preprocessing_have_pixels_of_their_own(shapes, tmp_path, clip):
    store, task = Store(tmp_path / "store"), find_task(str(shapes))

    def folder(split="test", pixels=clip.pixels):
        return cached_pixels(clip, task.dataset.split(split, tmp_path, pixels), store).folder

    first = folder()
    assert folder() == first
    assert folder("val") != first
    other = replace(clip, transform=v2.Compose([v2.Resize(32), *clip.transform.transforms]))
    assert cached_pixels(other, task.dataset.split("test", tmp_path, other.pixels), store).folder != first
    path, _ = task.dataset.split("test", tmp_path).samples.files[0]
    Image.new("RGB", (64, 64)).save(path)
    assert folder() != first


def test_sets_of_one_layout_in_two_folders_are_not_taken_for_one_another(tmp_path, clip):
    """Torchvision's MNIST knows no fingerprint: its pixels tell."""
    store, found = Store(tmp_path / "store"), []
    for name in ("one", "two"):
        write_mnist(tmp_path / name)
        if name == "two":
            for path in (tmp_path / name).rglob("t10k-images*"):
                path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 255]))
        found.append(cached_pixels(clip, find_task("MNIST").dataset.split("test", tmp_path / name, clip.pixels), store))
    assert found[0].folder != found[1].folder


def test_evaluation_with_cached_images_is_the_same_and_decodes_once(run_store, finished, tmp_path, decoded):
    task, ends = find_task(str(finished[0] / "shapes")), [run_store.find("zeroshot"), run_store.find("finetuned")]
    (plain,) = predict_many(ends, [task], run_store, tmp_path, split="train")
    before = len(decoded)
    (first,), (again,) = (
        list(predict_many(ends, [task], run_store, tmp_path, split="train", cache_images=True)) for _ in range(2)
    )
    assert len(decoded) - before == len(plain.labels)
    for found in (first, again):
        assert np.array_equal(found.predicted, plain.predicted)
        assert np.array_equal(found.confidence, plain.confidence)
        assert np.array_equal(found.labels, plain.labels)


def test_broken_image_leaves_no_half_of_a_cache(shapes, tmp_path, clip):
    split = find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels)
    store = Store(tmp_path / "store")
    (broken,) = [path for path, _ in split.samples.files][-1:]
    broken.write_bytes(b"no image")
    split = find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels)
    with pytest.raises(DataError, match="cannot be read"):
        cached_pixels(clip, split, store)
    assert list(store.pixels.iterdir()) == []


def test_gc_removes_what_an_interrupted_run_left_and_all_that_is_kept_on_request(cli, shapes, tmp_path, clip):
    store = Store(tmp_path / "store")
    kept = cached_pixels(clip, find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels), store)
    left = store.pixels / ".partial-99999999-left"
    left.mkdir()
    assert cli("store", "gc", "--store", store.root).stdout.splitlines() == ["removed 1 files and folders", f"  {left}"]
    assert kept.folder.is_dir()
    assert not left.exists()
    result = cli("store", "gc", "--caches", "--store", store.root)
    assert result.stdout.splitlines() == ["removed 1 files and folders", f"  {kept.folder}"]
    assert not kept.folder.exists()


@pytest.mark.parametrize("name", ["pixels.npy", "labels.npy"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_kept_pixels_that_cannot_be_read_are_made_again(shapes, tmp_path, clip, decoded, name, content):
    split, store = find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels), Store(tmp_path / "store")
    first = cached_pixels(clip, split, store)
    broken = first.folder / name
    broken.write_bytes(content) if content is not None else broken.unlink()
    again = cached_pixels(clip, split, store)
    assert len(decoded) == 24
    assert torch.equal(again[5][0], split[5][0])


def test_store_that_cannot_be_written_says_so(shapes, tmp_path, clip):
    split = find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        cached_pixels(clip, split, Store(tmp_path / "file"))


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
    apart = [next(predict_many(ends, [task], run_store, tmp_path)) for task in (one, two)]
    assert len(decoded) == 2 * len(lines)
    notes = Notes()
    together = list(predict_many(ends, [one, two], run_store, tmp_path, progress=notes))
    assert len(decoded) == 3 * len(lines)
    assert notes.total == notes.done == 2 * len(lines)
    for alone, shared, task in zip(apart, together, (one, two), strict=True):
        assert shared.task == task
        assert np.array_equal(alone.predicted, shared.predicted)
        assert np.array_equal(alone.labels, shared.labels)
    assert not np.array_equal(together[0].predicted, together[1].predicted)
    rows = evaluate(ends, [one, two], run_store, tmp_path, record=False)
    assert [row["task"] for row in rows] == ["one", "one", "two", "two"]


def test_training_on_kept_images_is_training_on_the_images(shapes, tmp_path, decoded):
    """The same weights to the bit, and no image is decoded again by a second run."""
    config = {"task": str(shapes), "steps": 6, "batch_size": 4, "lr": 1e-3, "warmup": 1, "seed": 3}
    ends, counts = [], []
    for store, cache in (("plain", False), ("cached", True), ("cached", True)):
        before = len(decoded)
        done = finetune(
            TrainConfig(**config), ModelConfig("demo", ""), Store(tmp_path / store), tmp_path, cache_images=cache
        )
        counts.append(len(decoded) - before)
        ends.append(done.finetuned.files)
    assert ends[0] == ends[1] == ends[2]
    assert counts == [24, 12, 0]


def test_whole_images_are_kept_as_they_are(shapes, tmp_path, decoded):
    Image.new("RGB", (31, 77), (1, 2, 3)).save(shapes / "circle" / "tall.png")
    split, notes, store = find_task(str(shapes)).dataset.split("train", tmp_path), Notes(), Store(tmp_path / "store")
    found = cached_images(split, store, progress=notes)
    assert len(decoded) == len(found) == notes.total == notes.done == len(split)
    assert notes.said[0].startswith("keeping the pixels of shapes (train): about 0 MB below ")
    again = pickle.loads(pickle.dumps(cached_images(split, store)))
    assert len(decoded) == len(split)
    for index in range(len(split)):
        assert again[index][0].tobytes() == split[index][0].tobytes()
        assert again[index][0].size == split[index][0].size
        assert again[index][1] == split[index][1]


@pytest.mark.parametrize("name", ["bytes.bin", "ends.npy", "sizes.npy", "labels.npy"])
def test_whole_images_that_are_damaged_are_made_again(shapes, tmp_path, decoded, name):
    split, store = find_task(str(shapes)).dataset.split("train", tmp_path), Store(tmp_path / "store")
    path = cached_images(split, store).folder / name
    path.write_bytes(path.read_bytes()[:-8])
    again = cached_images(split, store)
    assert len(decoded) == 24
    assert again[11][0].tobytes() == split[11][0].tobytes()


def test_process_that_is_later_keeps_what_a_quicker_one_has_written(shapes, tmp_path, clip):
    split, store = find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels), Store(tmp_path / "store")
    folder = cached_pixels(clip, split, store).folder
    folder.rename(tmp_path / "quicker")
    (tmp_path / "quicker" / "by another process").touch()

    class Quicker(Notes):
        def start(self, what, total):
            (tmp_path / "quicker").rename(folder)

    later = cached_pixels(clip, split, store, progress=Quicker())
    assert (folder / "by another process").exists()
    assert torch.equal(later[7][0], split[7][0])
    assert [path.name for path in store.pixels.iterdir()] == [folder.name]


@pytest.mark.parametrize("whole", [False, True])
def test_two_runs_at_once_decode_each_image_once(shapes, tmp_path, clip, decoded, whole):
    split = find_task(str(shapes)).dataset.split("train", tmp_path, None if whole else clip.pixels)
    store, notes, begun, waiting = Store(tmp_path / "store"), Notes(), Event(), Event()
    keep = partial(cached_images, split, store) if whole else partial(cached_pixels, clip, split, store)

    class First(Notes):
        def start(self, what, total):
            begun.set()
            assert waiting.wait(60)

    def note(text):
        notes.said.append(text)
        waiting.set()

    notes.note = note
    first = Thread(target=keep, kwargs={"progress": First()})
    first.start()
    assert begun.wait(60)
    found = keep(progress=notes)
    first.join()
    assert notes.said == ["another process keeps the pixels of shapes (train): waiting for it"]
    assert sorted(decoded) == list(range(12))
    assert len(found) == 12
    assert [path.name for path in store.pixels.iterdir()] == [found.folder.name]


def test_pixels_that_the_disk_has_no_room_for_are_not_begun(shapes, tmp_path, clip, monkeypatch):
    import wisepatch.evaluation.pixels

    store = Store(tmp_path / "store")
    monkeypatch.setattr(wisepatch.evaluation.pixels.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    for split, make in (
        (find_task(str(shapes)).dataset.split("train", tmp_path, clip.pixels), lambda s: cached_pixels(clip, s, store)),
        (find_task(str(shapes)).dataset.split("train", tmp_path), lambda s: cached_images(s, store)),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=r"the pixels of shapes \(train\) need .*0\.0 GB; .* has 0\.0"):
            make(split)
    assert list(store.pixels.iterdir()) == []


def test_misspelt_setting_is_an_error_and_not_ignored(run_store, finished, tmp_path):
    task = find_task(str(finished[0] / "shapes"))
    with pytest.raises(TypeError, match="no setting batchsize; there are batch_size, workers"):
        evaluate([run_store.find("zeroshot")], [task], run_store, tmp_path, batchsize=8)
    with pytest.raises(TypeError, match="no setting alpha"):
        sweep(run_store, tmp_path, alpha=[0.5])


def test_patch_keeps_images_for_training_and_pixels_for_evaluation(cli, shapes, tmp_path):
    result = cli(
        "patch", "--model", "demo", "--task", shapes, "--steps", 2, "--batch-size", 4, "--alpha", "0,1", "--cache-images",
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.rglob("bytes.bin"))) == 1
    assert len(list(tmp_path.rglob("pixels.npy"))) == 2  # val and test


def test_images_that_are_drawn_anew_each_epoch_are_not_kept(tmp_path):
    notes, store = Notes(), Store(tmp_path / "store")
    assert cached_images(find_task("typo:Shapes").dataset.split("val", tmp_path), store, progress=notes) is None
    assert notes.said == ["the images of typo:Shapes are drawn anew each epoch: none are kept"]
    assert not store.pixels.exists()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(500, 375), (100, 130), (224, 224), (30, 20)])
def test_resizing_of_tensors_is_off_by_little_and_crops_the_same(mode, size):
    pixels = Compose([*image_transform_v2(PreprocessCfg(size=224), is_train=False).transforms[:-2], PILToTensor()])
    coarse = np.random.default_rng(3).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    exact, fast = pixels(image), on_tensors(pixels)(image)
    assert (fast.shape, fast.dtype, fast.is_contiguous()) == ((3, 224, 224), torch.uint8, True)
    off = (exact.int() - fast.int()).abs()
    assert off.max() <= 2
    assert off.float().mean() < 0.1


def test_a_transform_with_other_steps_stays_as_it_is():
    other = Compose([CenterCropOrPad(224), PILToTensor()])
    assert on_tensors(other) is other


def test_pixels_and_features_that_were_decoded_fast_are_told_apart(tmp_path, clip):
    """Also of a task whose images are no files."""
    store, cpu = Store(tmp_path / "store"), torch.device("cpu")
    opened = [find_task("Shapes@val").dataset.split("val", tmp_path, p) for p in (clip.pixels, clip.fast_pixels)]
    for fast, split in enumerate(opened):
        cached_pixels(clip, split, store, fast=bool(fast))
        split_features(clip, split, store, cpu, fast=bool(fast))
    assert len(list(store.pixels.glob("[!.]*"))) == 2
    assert len(list(store.features.glob("[!.]*"))) == 2
