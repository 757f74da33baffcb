"""What `rm` and `gc` remove, and what they leave alone."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from wisepatch.errors import StoreError
from wisepatch.store.checkpoints import MANIFEST, Recipe, Store
from wisepatch.store.predictions import save_predictions

MODEL = {"model": "demo", "pretrained": ""}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def save(store, value=1.0, name="start"):
    return store.save({"w": torch.full((3,), value)}, kind="zeroshot", name=name, model=MODEL)


def fisher_mix(store, digests, name="weighed"):
    start, end = save(store), save(store, 2.0, "end")
    for digest in digests:
        store.cache.tensors("fisher", digest, lambda: {"w": torch.ones(3)})
    files = [[digest, store.cache.sha256("fisher", digest)] for digest in digests]
    recipe = Recipe("fisher", (start.id, end.id), {"alpha": 0.5, "fisher": {"files": files}})
    return store.save(None, kind="interpolated", name=name, model=MODEL, recipe=recipe)


def predict(store, checkpoint):
    columns = {"image": ["a"], "label": np.zeros(1), "answer": np.zeros(1), "confidence": np.ones(1)}
    return save_predictions(store, checkpoint, "Shapes", "val", columns, {})


def test_fisher_information_that_no_recipe_names_is_garbage(store):
    named, unnamed = ["a" * 32, "b" * 32], "c" * 32
    recipe = fisher_mix(store, named)
    store.cache.tensors("fisher", unnamed, lambda: {"w": torch.ones(3)})
    store.cache.tensors("heads", unnamed, lambda: {"w": torch.ones(3)})
    older = store.root / "fisher"
    older.mkdir()
    for name in (f"{named[0]}.safetensors", f"{unnamed}.safetensors", f"{unnamed}.json", "mine.safetensors"):
        (older / name).touch()
    entries = store.root / "cache" / "fisher"
    assert store.collect_garbage() == [entries / unnamed, older / f"{unnamed}.json", older / f"{unnamed}.safetensors"]
    assert store.problem(recipe) == ""
    store.remove([recipe])
    assert set(store.collect_garbage()) == {*(entries / name for name in named), older / f"{named[0]}.safetensors"}
    assert [path.name for path in older.iterdir()] == ["mine.safetensors"]


def test_fisher_information_stays_while_a_manifest_that_may_name_it_cannot_be_read(store):
    recipe = fisher_mix(store, ["a" * 32])
    (recipe.home / MANIFEST).write_text("{")
    assert store.collect_garbage() == []
    store.remove([store.look_up_damaged(recipe.id)])
    assert [path.name for path in store.collect_garbage()] == ["a" * 32]


def test_predictions_of_removed_checkpoints_are_garbage(store):
    kept, gone = save(store), save(store, 2.0, "gone")
    files = [predict(store, each) for each in (kept, gone)]
    (store.predictions / "notes.txt").touch()
    (store.predictions / "mine").mkdir()
    assert store.collect_garbage() == []
    store.remove([gone])
    mine = files[1].with_name("mine.parquet")
    mine.touch()
    assert store.collect_garbage() == [files[1]]
    assert mine.exists()
    mine.unlink()
    assert store.collect_garbage() == []
    assert sorted(path.name for path in store.predictions.iterdir()) == sorted([kept.id, "mine", "notes.txt"])


def test_predictions_of_another_stores_checkpoint_stay_as_long_as_that(store, tmp_path):
    save(store)
    other = Store(tmp_path / "other")
    theirs = save(other, 3.0)
    path = predict(store, theirs)
    assert store.collect_garbage() == []
    other.remove([theirs])
    assert store.collect_garbage() == [path]


@pytest.mark.parametrize("name", ["notes.txt", "epoch=9.ckpt", ".wisepatch-partial-mine", "manifest.json/mine"])
def test_a_folder_with_what_wisepatch_did_not_write_is_not_removed(store, name):
    start, end = save(store), save(store, 2.0, "end")
    if "/" in name:
        (end.home / MANIFEST).unlink()
        (end.home / MANIFEST).mkdir()
    (end.home / name).write_text("mine")
    with pytest.raises(StoreError, match="was not written by wisepatch") as caught:
        store.remove([start, store.look_up_damaged(end.id)])
    assert str(end.home) in caught.value.message + caught.value.hint
    assert (end.home / name).read_text() == "mine"
    assert store.look_up("start") == start


def test_an_orphan_with_what_wisepatch_did_not_write_is_no_garbage(store):
    recipe = fisher_mix(store, [])
    (recipe.home / "notes.txt").write_text("mine")
    shutil.rmtree(store.look_up("end").home)
    assert store.collect_garbage() == []
    assert (recipe.home / "notes.txt").read_text() == "mine"


def test_a_manifest_that_a_failing_disk_does_not_give_stops_every_removal(store, monkeypatch):
    """It may be of a recipe of what is to go."""
    recipe, read_bytes = fisher_mix(store, []), Path.read_bytes
    start = store.look_up("start")

    def fail(path):
        if path.parent == recipe.home:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    for remove in (lambda: store.remove([start], with_recipes=True), store.collect_garbage):
        with pytest.raises(StoreError, match="cannot be read: Input/output error"):
            remove()
    monkeypatch.undo()
    assert len(store.everything()) == 3


def test_a_manifest_that_may_not_be_read_stops_nothing(store, monkeypatch):
    start, locked, read_bytes = save(store), save(store, 2.0, "locked"), Path.read_bytes

    def refuse(path):
        if path.parent == locked.home:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert store.everything() == [start]
    assert [error.hint for error in store.unreadable()] == ["look at its permissions"]
    assert store.collect_garbage() == []
    assert store.remove([start]) == [start]


def test_a_checkpoint_that_is_gone_already_is_an_error_that_says_so(store):
    start, end = save(store), save(store, 2.0, "end")
    store.remove([start])
    with pytest.raises(StoreError, match=f"checkpoint {start.id} is not in the store") as caught:
        store.remove([start, end])
    assert "another process" in caught.value.hint
    assert store.everything() == [end]


def test_a_flipped_schema_is_damage_and_a_newer_one_is_not(store):
    start, end = save(store), save(store, 2.0, "end")
    path = end.home / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"schema": 2', b'"schema": 3'))
    assert "does not have the sha256" in store.unreadable()[0].message
    assert store.remove([start]) == [start]
    path.write_text(json.dumps({"schema": 3}))
    with pytest.raises(StoreError, match="newer wisepatch"):
        store.remove([end])
