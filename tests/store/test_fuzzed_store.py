"""A store in which anything may stand: manifests, recipes, names and results give a value or an error for users."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import changed, damaged, or_an_error_for_users, texts
from wisepatch import Store
from wisepatch.config import ModelConfig
from wisepatch.evaluation.endpoints import Endpoints, mixes_of
from wisepatch.reports.plots import sweep_table
from wisepatch.store.checkpoints import MANIFEST, WEIGHTS, Recipe, describe
from wisepatch.store.manifests import read_manifest
from wisepatch.store.recipes import load_weights
from wisepatch.store.results import pick_runs, read
from wisepatch.store.wide_records import to_wide

MODEL = {"model": "demo", "pretrained": ""}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two small checkpoints, Fisher information of both, and a place for a third."""
    store = Store(tmp_path_factory.mktemp("fuzzed") / "store")
    tensors = {"visual.w": torch.ones(2, 2), "logit_scale": torch.ones(1)}
    for name, kind in (("start", "zeroshot"), ("end", "finetuned")):
        store.save(tensors, kind=kind, name=name, model=MODEL, training="paint")
    return store


@pytest.fixture(scope="module")
def ids(store):
    return [checkpoint.id for checkpoint in store.everything()]


def use(store, folder):
    """Read a manifest and do with it what commands do."""
    checkpoint = read_manifest(folder)
    describe(checkpoint)
    ModelConfig.from_json(checkpoint.model)
    assert isinstance(store.problem(checkpoint), str)
    store.size(checkpoint), store.children(checkpoint)
    mixes_of([checkpoint], Endpoints(store, torch.device("cpu")))
    load_weights(store, checkpoint)


def forget_others(store):
    """Remove what an input before has left: a store of thousands takes long to look through."""
    for folder in store.checkpoints.iterdir():
        if folder.is_dir() and not (folder / WEIGHTS).is_file():
            shutil.rmtree(folder)


def write(store, content):
    """A checkpoint whose manifest is ``content``, under its id where that can be told."""
    identity = content.get("id") if isinstance(content, dict) else None
    known = isinstance(identity, str) and len(identity) == 12 and identity.isalnum() and identity.isascii()
    forget_others(store)
    folder = store.checkpoints / (identity if known else "0123456789ab")
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps(content))
    return folder


manifest = {
    "id": "0123456789ab", "name": "third", "kind": "finetuned", "model": MODEL, "training": "paint", "recipe": None,
    "trained_from": ["aaaaaaaaaaaa"], "config": {"task": "Shapes", "lr": 0.1}, "head": {"task": "Shapes", "classes": ["a", "b"]},
    "files": {WEIGHTS: "0" * 64}, "parts": {"visual": "0" * 32}, "versions": {"torch": "2"},
    "created": "2026-01-01T00:00:00+00:00",
    "schema": 2,
}  # fmt: skip


@settings(max_examples=settings.default.max_examples // 2)
@given(st.just(manifest).flatmap(changed))
def test_fuzzed_manifests_give_a_checkpoint_or_an_error(store, content):
    folder = write(store, content)
    with or_an_error_for_users:
        use(store, folder)
    assert {"start", "end"} <= {checkpoint.name for checkpoint in store.everything()}


@settings(max_examples=settings.default.max_examples // 2)
@given(st.just(json.dumps(manifest).encode()).flatmap(damaged))
def test_fuzzed_bytes_of_manifests_give_a_checkpoint_or_an_error(store, data):
    folder = store.checkpoints / "0123456789ab"
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_bytes(data)
    with or_an_error_for_users:
        use(store, folder)
    store.everything(), store.unreadable()


@settings(max_examples=settings.default.max_examples // 2)
@given(st.data())
def test_fuzzed_recipes_give_weights_or_an_error(store, ids, data):
    """Recipes that are whole by their ids: whoever wrote them knows how ids are made."""
    recipe = {"method": "linear", "parents": ids, "params": {"alpha": 0.5, "fisher": {"files": [["aa", "0" * 64]] * 2}}}
    content = data.draw(changed(manifest | {"recipe": recipe, "files": {}, "trained_from": [], "head": None}))
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), dict):
        content = manifest | {"recipe": data.draw(changed(recipe)), "files": {}, "trained_from": []}
    with or_an_error_for_users:
        use(store, write(store, content))
        return
    fields = content.get("recipe")
    if (
        isinstance(fields, dict)
        and set(fields) == {"method", "parents", "params"}
        and isinstance(fields["parents"], list)
    ):
        parents = tuple(each for each in fields["parents"] if isinstance(each, str))
        with or_an_error_for_users:
            saved = store.save(
                None, kind="patched", name="x", model=MODEL, recipe=Recipe(fields["method"], parents, fields["params"])
            )
            use(store, saved.home)


names = texts | st.sampled_from(
    ["zeroshot", "latest", "start", "../start", "START", "start,end", "0123", "checkpoints", "%s", "*", "[a]", "\\"]
)


@given(names | st.binary(max_size=14).map(lambda name: name.decode(errors="surrogateescape")))
def test_fuzzed_names_find_a_checkpoint_or_give_an_error(store, name):
    with or_an_error_for_users:
        assert store.find(name).id
    with or_an_error_for_users:
        store.get(name)


TIDY = {
    "time": "2026-01-01", "run": "r", "run_name": "", "checkpoint": "abc", "model": "demo", "pretrained": "", "training": "paint",
    "method": "linear", "alpha": 0.5, "params": {}, "task": "Shapes", "split": "test", "metric": "top1", "value": 0.75, "n": 100,
    "ci_low": 0.6, "ci_high": 0.8, "seed": 0, "version": "1", "role": "patching", "patching": "Shapes", "chosen": True,
    "selected_on": "val",
}  # fmt: skip
WIDE = {"alpha": 0.5, "model": "demo", "train_dataset": "MNIST", "MNIST:top1": 0.9, "CIFAR10:top1": 0.5, "n": 100}
records = st.sampled_from([TIDY, TIDY | {"alpha": 1.0}, TIDY | {"task": "Colors", "role": "supported"}, WIDE])
lines = records.flatmap(changed).map(lambda record: json.dumps(record).encode()) | records.map(
    lambda record: json.dumps(record).encode()
).flatmap(damaged)


@settings(max_examples=settings.default.max_examples // 5)  # pandas takes its time
@given(st.lists(lines, min_size=1, max_size=3), st.lists(records, max_size=2))
@pytest.mark.filterwarnings("ignore")  # of pandas and matplotlib, about odd values
def test_fuzzed_results_are_read_and_drawn_or_give_an_error(tmp_path_factory, odd, good):
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_bytes(b"\n".join([*odd, *(json.dumps(record).encode() for record in good)]))
    with or_an_error_for_users:
        frame, problems = read(path)
        assert all(isinstance(problem, str) for problem in problems)
        to_wide(frame.to_dict("records"))
        with or_an_error_for_users:
            sweep_table(pick_runs(frame, ["all"]))
        sweep_table(pick_runs(frame, ["newest"]))
