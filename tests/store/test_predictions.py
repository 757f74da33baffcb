"""Per-image answers: written with their metadata, verified when they are read."""

import json
import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from wisepatch.errors import StoreError
from wisepatch.store import predictions
from wisepatch.store.checkpoints import Recipe, Store
from wisepatch.store.predictions import load_predictions, prediction_problems, save_predictions

ABOUT = {"spec": "typo:Shapes@val", "precision": "no", "fingerprint": "abc"}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def checkpoint(store):
    recipe = Recipe("linear", ("0" * 12, "1" * 12), {"alpha": 0.5})
    return store.save(None, kind="interpolated", name="mixed", model={}, recipe=recipe)


def answers(shift=0):
    return {
        "image": [f"circle/{index}.png" for index in range(5)],
        "label": np.arange(5) % 3,
        "answer": (np.arange(5) + shift) % 3,
        "confidence": np.linspace(0.5, 0.9, 5, dtype=np.float32),
    }


def save(store, checkpoint, task="typo:Shapes", split="val", shift=0, **about):
    return save_predictions(store, checkpoint, task, split, answers(shift), ABOUT | about)


def test_answers_read_back_with_their_metadata(store, checkpoint):
    path = save(store, checkpoint)
    assert path.parent == store.predictions / checkpoint.id
    assert path.name.startswith("typo_Shapes-val-")
    frame = load_predictions(store, checkpoint, "typo:Shapes", "val")
    assert list(frame.columns) == ["image", "label", "answer", "confidence"]
    for name, values in answers().items():
        assert list(frame[name]) == list(values)
    assert frame["confidence"].dtype == np.float32
    assert frame.attrs == {**ABOUT, "checkpoint": checkpoint.id, "task": "typo:Shapes", "split": "val"}
    assert list(store.predictions.rglob("*")) == [path.parent, path]
    assert prediction_problems(store) == []


def test_a_frame_may_be_given_and_other_programs_can_read_the_file(store, checkpoint):
    path = save_predictions(store, checkpoint, "A", "test", pd.DataFrame(answers()), {})
    assert len(pd.read_parquet(path)) == 5
    details = json.loads(pq.read_schema(path).metadata[b"wisepatch"])
    assert set(details) == {"checkpoint", "task", "split", "sha256"}


def test_nothing_saved_is_nothing_found(store, checkpoint):
    assert load_predictions(store, checkpoint, "Shapes", "val") is None
    save(store, checkpoint)
    assert load_predictions(store, checkpoint, "typo:Shapes", "test") is None
    assert load_predictions(store, checkpoint, "typo?Shapes", "val") is None
    assert load_predictions(store, checkpoint, "typo:Shapes", "val", ABOUT | {"precision": "bf16"}) is None


def test_other_data_and_another_precision_have_files_of_their_own(store, checkpoint):
    paths = [save(store, checkpoint), save(store, checkpoint, precision="bf16", shift=1)]
    paths.append(save(store, checkpoint, fingerprint="other", shift=2))
    assert len(set(paths)) == 3
    for seconds, path in enumerate(paths):  # the clock of a file system may tick once in ten milliseconds
        os.utime(path, (seconds, seconds))
    assert list(load_predictions(store, checkpoint, "typo:Shapes", "val")["answer"]) == [2, 0, 1, 2, 0]  # the newest
    first = load_predictions(store, checkpoint, "typo:Shapes", "val", ABOUT)
    assert list(first["answer"]) == [0, 1, 2, 0, 1]
    assert save(store, checkpoint) in paths


@pytest.mark.parametrize("task", ["x" * 300, "ä/ö", "../..", ".hidden", "", "a*[b]?"])
def test_tasks_of_any_name_can_be_saved(store, checkpoint, task):
    path = save(store, checkpoint, task=task)
    assert path.parent == store.predictions / checkpoint.id
    assert load_predictions(store, checkpoint, task, "val").attrs["task"] == task


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PAR1", None])
def test_a_file_that_is_no_parquet_is_an_error_that_names_it(store, checkpoint, content):
    path = save(store, checkpoint)
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    with pytest.raises(StoreError) as caught:
        load_predictions(store, checkpoint, "typo:Shapes", "val")
    assert caught.value.message.startswith(f"the predictions {path} are damaged: ")
    assert prediction_problems(store) == [caught.value.message]


def test_every_flipped_bit_is_found(store, checkpoint):
    path = save(store, checkpoint)
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert len(prediction_problems(store)) == 1, place


def test_files_that_hash_their_values_alone_are_read(store, checkpoint):
    """wisepatch 0.1.0 wrote them."""
    path = save(store, checkpoint)
    table = pq.read_table(path)
    details = json.loads(table.schema.metadata[b"wisepatch"])
    del details["sha256"]
    details["sha256"] = predictions._hash_values(table, details)
    pq.write_table(table.replace_schema_metadata({b"wisepatch": json.dumps(details).encode()}), path)
    assert list(load_predictions(store, checkpoint, "typo:Shapes", "val")["answer"]) == list(answers()["answer"])
    details["precision"] = "fp16"
    pq.write_table(table.replace_schema_metadata({b"wisepatch": json.dumps(details).encode()}), path)
    assert len(prediction_problems(store)) == 1


def test_changed_answers_or_metadata_are_noticed(store, checkpoint):
    path = save(store, checkpoint)
    table = pq.read_table(path)
    changed = answers(1)["answer"]
    pq.write_table(table.set_column(2, "answer", [changed]), path)
    with pytest.raises(StoreError, match="does not have the sha256"):
        load_predictions(store, checkpoint, "typo:Shapes", "val")
    details = json.loads(table.schema.metadata[b"wisepatch"]) | {"precision": "fp16"}
    pq.write_table(table.replace_schema_metadata({b"wisepatch": json.dumps(details).encode()}), path)
    with pytest.raises(StoreError, match="does not have the sha256"):
        load_predictions(store, checkpoint, "typo:Shapes", "val")


def test_a_store_that_cannot_be_written_is_an_error(store, checkpoint):
    store.predictions.write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        save(store, checkpoint)


def test_names_of_images_that_are_no_utf_8_are_kept_written_out(store, checkpoint):
    names = [
        os.fsdecode(b"\xff\xfe.png"),
        "猫.png",
        "猫.png".encode().decode("ascii", "surrogateescape"),
        "\ud800",
        "4",
    ]
    save_predictions(store, checkpoint, "A", "test", answers() | {"image": names}, {})
    frame = load_predictions(store, checkpoint, "A", "test")
    assert list(frame["image"]) == ["\\xff\\xfe.png", "猫.png", "猫.png", "\\ud800", "4"]
