"""Manifests: what schema 2 holds, and a store of schema 1 as it was written before."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wisepatch.errors import StoreError
from wisepatch.files import sha256, unseal
from wisepatch.store.checkpoints import MANIFEST, WEIGHTS, Recipe, Store, describe
from wisepatch.store.manifests import identify, read_manifest
from wisepatch.store.recipes import load_weights
from wisepatch.store.results import read

FIXTURE = Path(__file__).parents[1] / "data" / "store-schema-1"  # written by version 0.1.0, without its weights
START, END, MIXED, PATCHED, WEIGHED = "2bd24e8cae46", "8b048d24a74c", "39496d960f96", "61ad13809fc6", "bcbd050bbb33"
FISHER = ("4554e40ab6b3278486791199426a29a2", "d9faca6fe678ec829c6f64e1977b5506")


def write_weights(path, value):
    save_file({"visual.w": torch.full((2, 2), value), "logit_scale": torch.ones(1)}, path)
    return sha256(path)


def edit(folder, change):
    data = unseal((folder / MANIFEST).read_bytes())
    change(data)
    (folder / MANIFEST).write_text(json.dumps(data))


@pytest.fixture
def store(tmp_path):
    """The fixture with small weights and Fisher information, under the names that version 0.1.0 gave them."""
    store = Store(shutil.copytree(FIXTURE, tmp_path / "store"))
    for identity, value in ((START, 0.0), (END, 1.0)):
        digest = write_weights(store.checkpoints / identity / WEIGHTS, value)
        edit(store.checkpoints / identity, lambda data, digest=digest: data.update(files={WEIGHTS: digest}))
    files = []
    for digest, value in zip(FISHER, (1.0, 3.0), strict=True):
        path = store.root / "fisher" / f"{digest}.safetensors"
        save_file({"visual.w": torch.full((2, 2), value)}, path)
        files.append([digest, sha256(path)])
    edit(store.checkpoints / WEIGHED, lambda data: data["config"]["fisher"].update(files=files))
    return store


def test_checkpoints_of_schema_1_are_listed_and_whole(store):
    assert [checkpoint.id for checkpoint in store.everything()] == [START, END, MIXED, PATCHED, WEIGHED]
    assert store.unreadable() == []
    assert [store.problem(checkpoint) for checkpoint in store.everything()] == [""] * 5
    assert {checkpoint.schema for checkpoint in store.everything()} == {1}


def test_training_and_recipe_of_schema_1_are_told_apart(store):
    start, end, mixed, patched, weighed = store.everything()
    assert [checkpoint.training for checkpoint in store.everything()] == ["zeroshot"] + ["paint"] * 4
    assert (start.recipe, start.parents, end.recipe, end.trained_from) == (None, (), None, (START,))
    assert mixed.recipe == patched.recipe == Recipe("linear", (START, END), {"alpha": 0.5})
    assert (weighed.recipe.method, weighed.parents, weighed.alpha) == ("fisher", (START, END), 0.5)
    assert [digest for digest, _ in weighed.recipe.fisher_files] == list(FISHER)
    assert weighed.recipe.params["fisher"]["examples"] == 8
    assert "fisher" not in weighed.config
    assert weighed.config["task"] == "Shapes"
    assert json.loads(json.dumps(describe(weighed))) == describe(weighed)


@pytest.mark.parametrize(
    ("method", "config", "training", "merge"),
    [
        ("wiseft", {}, "wise-ft", "linear"),
        ("linear", {}, "linear-probe", "linear"),
        ("fisher", {"head": "trained"}, "wise-ft", "fisher"),
        ("fisher", {"head": "trained", "freeze_encoder": True}, "linear-probe", "fisher"),
    ],
)
def test_every_method_of_schema_1_has_its_training_and_its_merge(store, method, config, training, merge):
    def change(data):
        data["method"] = method
        data["config"] |= config

    edit(store.checkpoints / MIXED, change)
    mixed = store.get(MIXED)
    assert (mixed.training, mixed.method) == (training, merge)


@pytest.mark.parametrize(
    ("reference", "identity"),
    [("zeroshot", START), ("finetuned", END), ("patched", PATCHED), ("latest", PATCHED), ("interpolated", WEIGHED),
     ("demo/Shapes/alpha=0.5", MIXED), ("bcb", WEIGHED)],
)  # fmt: skip
def test_checkpoints_of_schema_1_are_found(store, reference, identity):
    assert store.find(reference).id == identity


def test_recipes_of_schema_1_are_merged(store):
    assert torch.equal(load_weights(store, store.get(MIXED))["visual.w"], torch.full((2, 2), 0.5))
    assert torch.equal(load_weights(store, store.get(WEIGHED))["visual.w"], torch.full((2, 2), 0.75))
    assert store.fisher_paths(store.get(WEIGHED)) == tuple(store.root / "fisher" / f"{d}.safetensors" for d in FISHER)


def test_recipes_of_schema_1_may_be_parents_of_new_ones_and_are_removed_with_them(store):
    new = store.save(
        None, kind="interpolated", name="new", model={}, recipe=Recipe("linear", (START, MIXED), {"alpha": 0.5})
    )
    assert store.problem(new) == ""
    with pytest.raises(StoreError, match="1 recipe is mixed from"):
        store.remove([store.get(MIXED)])
    with pytest.raises(StoreError, match="was trained from"):
        store.remove([store.get(START)], with_recipes=True)
    assert store.collect_garbage() == []
    assert len(store.remove([store.get(START), store.get(END)], with_recipes=True)) == 6


def test_lost_fisher_information_of_schema_1_makes_its_recipe_garbage(store):
    (store.root / "fisher" / f"{FISHER[0]}.safetensors").unlink()
    assert "is gone" in store.problem(store.get(WEIGHED))
    unnamed = [f"{FISHER[0]}.json", f"{FISHER[1]}.json", f"{FISHER[1]}.safetensors"]
    assert store.collect_garbage() == [store.checkpoints / WEIGHED, *(store.root / "fisher" / name for name in unnamed)]


def test_commands_work_on_a_store_of_schema_1(cli, store):
    listed = [json.loads(line) for line in cli("store", "list", "--store", store.root, "--json").stdout.splitlines()]
    assert [record["id"] for record in listed] == [START, END, MIXED, PATCHED, WEIGHED]
    assert cli("store", "verify", "--store", store.root).exit_code == 0
    assert cli("store", "gc", "--store", store.root, "--caches").stdout.startswith("removed 0 files and folders")
    assert cli("plot", "--store", store.root, "--run", "all", "--output", "picture.png").exit_code == 0


def test_results_of_schema_1_tell_training_from_method(store):
    frame, problems = read(store.results)
    assert problems == []
    linear, fisher = frame[frame["run"] == "interpolate-linear"], frame[frame["run"] == "interpolate-fisher"]
    assert set(linear["method"]) == {"linear"}
    assert set(linear["training"]) == {"zeroshot", "paint"}
    assert set(fisher["method"]) == {"fisher"}
    assert fisher["training"].isna().all()


def save(store, **fields):
    return store.save({"w": torch.ones(1)}, kind="zeroshot", name="start", model={"model": "demo"}, **fields)


def test_a_manifest_of_schema_2_reads_back(tmp_path):
    store = Store(tmp_path)
    start = save(store)
    recipe = Recipe("ties", (start.id, start.id), {"alpha": 0.3, "density": 0.2})
    merged = store.save(
        None,
        kind="interpolated",
        name="merged",
        model={},
        training="paint",
        recipe=recipe,
        config={"tasks": ["a", "b"]},
    )
    assert read_manifest(merged.home) == merged
    assert (merged.recipe, merged.alpha, merged.method, merged.schema) == (recipe, 0.3, "ties", 2)
    assert merged.recipe.fisher_files == ()
    assert identify(merged) == merged.id
    assert describe(merged)["recipe"] == {"method": "ties", "parents": [start.id] * 2, "params": recipe.params}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"telepathy": 1, "clairvoyance": 2}, "unknown fields clairvoyance, telepathy"),
        ({"name": 7}, "name cannot be 7"),
        ({"recipe": []}, r"recipe cannot be \[\]"),
        ({"recipe": {"method": "linear", "parents": ["../.."], "params": {}}}, r"'\.\./\.\.' is not an id"),
        ({"recipe": {"method": "linear", "parents": [], "params": {"fisher": {"files": [["../x", "0"]]}}}}, "digest"),
        ({"recipe": {"method": "linear", "parents": [], "params": {"fisher": 7}}}, ""),
        ({"schema": 0}, "there is no schema 0"),
        ({"schema": True}, "there is no schema true"),
        ({"schema": 1.5}, "there is no schema 1.5"),
        ({"files": {"other": "0"}}, f"files other than {WEIGHTS}"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_named(tmp_path, change, reason):
    saved = save(Store(tmp_path))
    edit(saved.home, lambda data: data.update(change))
    with pytest.raises(StoreError, match=f"is not a manifest of this version: .*{reason}") as caught:
        read_manifest(saved.home)
    assert caught.value.hint == f"remove it with `wisepatch store rm {saved.id}`"


def test_a_manifest_that_lacks_a_field_names_it(tmp_path):
    saved = save(Store(tmp_path))
    edit(saved.home, lambda data: data.pop("kind"))
    with pytest.raises(StoreError, match="no kind"):
        read_manifest(saved.home)
