"""Checkpoints by a word: kind, name, beginning of an id, or path."""

import json

import pytest
import torch

from tests.store.test_checkpoints import save, save_recipe, tiny
from wisepatch.errors import StoreError, UnknownNameError
from wisepatch.store import references
from wisepatch.store.checkpoints import MANIFEST, Store, describe


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_name_means_the_newest_of_that_name(store):
    save(store, 1.0, name="same")
    newest = save(store, 2.0, name="same")
    assert store.find("same") == newest


def test_kinds_mean_the_newest_of_their_kind(store):
    save(store, 0.0, kind="zeroshot", name="z1")
    zeroshot = save(store, 0.1, kind="zeroshot", name="z2")
    finetuned = save(store, 0.2, kind="finetuned", name="f")
    assert store.find("latest") == finetuned
    patched = save(store, 0.3, kind="patched", name="p")
    interpolated = save(store, 0.4, kind="interpolated", name="i")
    assert store.find("zeroshot") == zeroshot
    assert store.find("finetuned") == finetuned
    assert store.find("patched") == store.find("latest") == patched
    assert store.find("interpolated") == interpolated


def test_ids_may_be_shortened_to_three_characters(store):
    saved = save(store)
    assert store.find(saved.id) == store.find(saved.id[:3]) == saved
    with pytest.raises(UnknownNameError):
        store.find(saved.id[:2])


def test_a_prefix_of_two_ids_names_both(store):
    saved = save(store)
    twin = store.checkpoints / (saved.id[:6] + ("f" if saved.id[6] != "f" else "0") * 6)
    twin.mkdir()
    manifest = describe(saved) | {"id": twin.name, "name": "twin"}
    (twin / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StoreError) as caught:
        store.find(saved.id[:6])
    assert caught.value.message.startswith(f"{saved.id[:6]!r} begins 2 ids: ")
    assert saved.id in caught.value.message
    assert twin.name in caught.value.message
    assert caught.value.hint == "give more of the id"
    assert store.find(saved.id[:7]) == saved


def test_a_path_of_a_checkpoints_folder_names_it(store):
    saved = save(store)
    found = store.find(str(store.checkpoints / saved.id))
    assert found == saved
    assert torch.equal(store.read(found)["w"], tiny()["w"])


def test_a_checkpoint_named_by_a_path_in_another_store_can_be_read(store, tmp_path):
    other = Store(tmp_path / "other")
    saved = save(other, 3.0)
    found = store.find(str(other.checkpoints / saved.id))
    assert torch.equal(store.read(found)["w"], tiny(3.0)["w"])


@pytest.mark.parametrize(
    ("reference", "described", "step"),
    [
        ("zeroshot", "zero-shot", "run `wisepatch zeroshot --task TASK`"),
        ("finetuned", "fine-tuned", "run `wisepatch finetune --task TASK`"),
        ("latest", "fine-tuned", "run `wisepatch finetune --task TASK`"),
        ("patched", "patched", "run `wisepatch patch --task TASK --supported TASKS`"),
    ],
)
def test_a_kind_of_which_there_is_none_names_the_command_that_makes_one(store, reference, described, step):
    with pytest.raises(StoreError) as caught:
        store.find(reference)
    assert caught.value.message == f"no {described} checkpoint in the store {store.root} yet"
    assert caught.value.hint == f"{step} first, or name a store with --store"


def test_no_interpolated_checkpoint_names_the_command_that_makes_one(store):
    with pytest.raises(StoreError) as caught:
        store.find("interpolated")
    assert caught.value.message == f"no interpolated checkpoint in the store {store.root} yet"
    assert "`wisepatch interpolate" in caught.value.hint


def test_an_unknown_name_proposes_close_ones(store):
    save(store, name="demo/Digits/finetuned")
    with pytest.raises(UnknownNameError) as caught:
        store.find("demo/Digit/finetuned")
    assert (
        caught.value.message
        == "unknown checkpoint 'demo/Digit/finetuned'; did you mean demo/Digits/finetuned or finetuned?"
    )
    assert caught.value.hint == "`wisepatch store list` lists the names and ids there are"


def test_an_id_that_is_gone_is_an_error(store):
    with pytest.raises(StoreError) as caught:
        store.get("0123456789ab")
    assert caught.value.message == f"checkpoint 0123456789ab is not in the store {store.root}"
    assert caught.value.hint == "it was removed; make it again"


@pytest.mark.parametrize(
    "identity", ["../" + "a" * 12, "/" + "a" * 12, "..", "", "a" * 11, "g" * 12, "checkpoints", "0" * 300]
)
def test_only_an_id_is_looked_up_as_one(store, identity):
    save(store)
    with pytest.raises(StoreError, match="is not in the store"):
        store.get(identity)


def test_names_are_free_text_and_references_of_any_length_are_unknown_names(store):
    name = "ä/../ " * 60
    saved = save(store, name=name)
    assert store.find(name) == saved
    for reference in ("x" * 300, "x" * 5000, "a/" * 3000, "nul\0", "\udcff", ""):
        with pytest.raises(UnknownNameError):
            store.find(reference)


def test_look_ups_parse_what_they_return(store, monkeypatch):
    start, end = save(store, 0.0), save(store, 1.0, kind="finetuned", name="tuned")
    for number in range(8):
        save_recipe(store, start, end, alpha=number / 8, name=f"alpha={number / 8}")
    parse, parsed = references.parse_manifest, []
    monkeypatch.setattr(
        references, "parse_manifest", lambda content, folder: parsed.append(folder) or parse(content, folder)
    )
    assert store.find("latest") == end
    assert store.find("alpha=0.5").alpha == 0.5
    assert store.find("interpolated").alpha == 0.875
    assert len(parsed) == 3


def test_the_newest_whose_manifest_can_be_read_is_found(store):
    older, newer = save(store, 1.0, name="same"), save(store, 2.0, name="same")
    (newer.home / MANIFEST).write_bytes((newer.home / MANIFEST).read_bytes()[:-2])
    assert store.find("same") == store.find("zeroshot") == older
