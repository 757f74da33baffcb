"""Batches from this process and from workers."""

from types import SimpleNamespace

import pytest
import torch

from tests.samples import broken_png
from wisepatch.datasets import loading
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.loading import checked, loader
from wisepatch.errors import DataError


def test_undecodable_image_is_named_also_from_a_worker(shapes, tmp_path):
    broken_png(shapes / "circle" / "0.png")
    samples = FileSamples(((shapes / "circle" / "0.png", 0),))
    with pytest.raises(DataError, match=r"circle/0\.png cannot be read: "):
        samples[0]
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"circle/0\.png cannot be read: "):
            [checked(batch) for batch in loader(samples, 1, workers=workers)]


@pytest.mark.parametrize(
    ("size", "images", "expected"),
    [(64, 150, [64, 64, 22]), (5, 11, [5, 5, 1]), (128, 300, [128, 128, 44]), (97, 200, [96, 96, 8]), (512, 70, [70])],
)
def test_batches_are_joined_from_pieces_in_order(size, images, expected, monkeypatch):
    class Numbers:
        def __len__(self):
            return images

        def __getitem__(self, index):
            return torch.full((3,), index), -index

    asked = []
    original = loading.loader
    monkeypatch.setattr(loading, "loader", lambda *args, **more: asked.append(args[1]) or original(*args, **more))
    found = list(loading.batches_on(Numbers(), size, torch.device("cpu"), workers=2))
    assert asked == [min(size, 64) if size != 97 else 48]
    assert [len(batch.labels) for batch in found] == expected
    assert [batch.first for batch in found] == [int(batch.images[0, 0]) for batch in found]
    assert torch.cat([batch.images[:, 0] for batch in found]).tolist() == list(range(images))
    assert torch.cat([batch.labels for batch in found]).tolist() == [-index for index in range(images)]
    assert len(next(loading.batches_on(Numbers(), size, torch.device("cpu"))).labels) == min(size, images)
    assert asked[1] == size  # nobody hands anything over


@pytest.mark.parametrize(
    ("asked", "worth", "cores", "expected"),
    [
        (None, 10, 2, 2), (None, 10, 1, 0), (None, 0.9, 64, 0), (None, 2, 64, 2), (None, 100, 64, 16), (0, 100, 64, 0),
        (5, 0.1, 1, 5),
    ],
)  # fmt: skip
def test_workers_suit_the_machine_and_the_number_of_images(monkeypatch, asked, worth, cores, expected):
    images = int(worth * loading.IMAGES_PER_WORKER)
    assert loading.MAX_WORKERS == 16
    monkeypatch.setattr(loading.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(loading.sys, "platform", "linux")
    monkeypatch.setattr(loading.multiprocessing, "get_start_method", lambda allow_none: None)
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda _: SimpleNamespace(free=64e9))
    assert loading.worker_count(asked, images, 30_000_000) == expected
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert loading.worker_count(asked, images, 30_000_000) == (
        expected if asked is not None else min(expected, cores // 2)
    )
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda _: SimpleNamespace(free=64 << 20))
    assert loading.worker_count(asked, images, 30_000_000) == (asked or 0)
    monkeypatch.setattr(loading.multiprocessing, "get_start_method", lambda allow_none: "spawn")
    assert loading.worker_count(asked, images, 30_000_000) == (asked or 0)
