"""Tasks of the finished run, a linear probe, spies on what is decoded and what is read."""

import shutil

import pytest

from wisepatch import ModelConfig, Store, TrainConfig, find_tasks, finetune
from wisepatch.datasets import demo
from wisepatch.datasets.image_files import FileSamples


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 40, "val": 40, "test": 40})


@pytest.fixture
def tasks(finished):
    return find_tasks([str(finished[0] / "shapes"), "Colors@val"])


@pytest.fixture(scope="session")
def finished_probe(finished, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("probe") / "store")
    config = TrainConfig.with_defaults(
        str(finished[0] / "shapes"), freeze_encoder=True, steps=20, batch_size=8, lr=1.0, warmup=0
    )
    finetune(config, ModelConfig("demo", ""), store, store.root)
    return store


@pytest.fixture
def probe(finished_probe, tmp_path):
    """A store with a linear probe: the image tower as published, the head trained."""
    shutil.copytree(finished_probe.root, tmp_path / "probe")
    return Store(tmp_path / "probe")


@pytest.fixture
def decoded(monkeypatch):
    """The indices of images that are decoded."""
    indices, original = [], FileSamples.__getitem__
    monkeypatch.setattr(FileSamples, "__getitem__", lambda self, i: indices.append(i) or original(self, i))
    return indices


@pytest.fixture
def weights_read(monkeypatch):
    """The ids of checkpoints whose whole weights are read, which are verified first."""
    ids, original = [], Store.weights_path
    monkeypatch.setattr(Store, "weights_path", lambda self, each: ids.append(each.id) or original(self, each))
    return ids
