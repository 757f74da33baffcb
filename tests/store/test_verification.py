"""`verify` names every kind of damage, and nothing that is read back is believed without its hash."""

import json

import numpy as np
import pytest
import torch

from wisepatch.errors import StoreError
from wisepatch.files import unseal
from wisepatch.store.cache import ENTRY, TENSORS
from wisepatch.store.checkpoints import MANIFEST, WEIGHTS, Recipe, Store
from wisepatch.store.manifests import identify, parse_manifest
from wisepatch.store.predictions import load_predictions, prediction_problems, save_predictions
from wisepatch.store.recipes import load_weights
from wisepatch.store.runs import Run, run_problems

MODEL = {"model": "demo", "pretrained": ""}
DIGEST = "a" * 32


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def save(store, value=1.0, name="start", **more):
    return store.save(
        {"visual.w": torch.full((3,), value), "classifier.weight": torch.full((2,), value)},
        kind="finetuned" if "trained_from" in more else "zeroshot", name=name, model=MODEL, **more,
    )  # fmt: skip


def save_recipe(store, method, parents, params, weights=None):
    recipe = Recipe(method, tuple(parents), params)
    return store.save(weights, kind="interpolated", name="mix", model=MODEL, recipe=recipe)


def flip(path, place, bit=0):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("method", "parents", "params", "reason"),
    [
        ("linear", 2, {"alpha": 7}, "alpha 7, which is not from 0 to 1"),
        ("fisher", 2, {"alpha": -0.1}, "alpha -0.1, which is not from 0 to 1"),
        ("linear", 2, {"alpha": float("nan")}, "alpha nan, which is no number up to 1,000,000"),
        ("linear", 2, {"alpha": True}, "alpha True, which is no number up to 1,000,000"),
        ("linear", 2, {"alpha": None}, "alpha None, which is no number up to 1,000,000"),
        ("linear", 1, {"alpha": 0.5}, "of 1 parents, and linear mixes two"),
        ("fisher", 3, {"alpha": 0.5}, "of 3 parents, and fisher mixes two"),
        ("linear", 0, {"alpha": 0.5}, "without parents"),
        ("task-arithmetic", 1, {"alpha": 0.5}, "of a start alone, and task-arithmetic adds ends to it"),
        ("task-arithmetic", 3, {}, "alpha None"),
        ("task-arithmetic", 3, {"alpha": float("inf")}, "alpha inf, which is no number up to 1,000,000"),
        ("task-arithmetic", 3, {"alphas": [0.5]}, "1 alphas for 2 ends"),
        ("task-arithmetic", 3, {"alphas": [0.5, "1"]}, "alphas [0.5, '1'], which are no numbers up to 1,000,000"),
        ("task-arithmetic", 3, {"alphas": 0.5}, "alphas 0.5, which are no numbers up to 1,000,000"),
        ("task-arithmetic", 2, {"alphas": [0.5], "alpha": 1}, "both alpha and alphas"),
        ("task-arithmetic", 2, {"alpha": 0.5, "scale": 1}, "scale, which task-arithmetic does not have"),
        ("task-arithmetic", 2, {"alpha": 0.5, "layers": {"visual": "1"}}, "layers {'visual': '1'}"),
        ("linear", 3, {"weights": [1, 2]}, "2 weights for 3 ends"),
        ("linear", 3, {"weights": [1, 2, -1]}, "weights -1, which is below 0"),
        ("linear", 2, {"weights": [0, 0]}, "weights that add up to nothing"),
        ("ties", 3, {"density": 2, "consensus": "mean", "scale": 1}, "density 2, which is not from 0 to 1"),
        ("ties", 3, {"density": 0.5, "consensus": "most", "scale": 1}, "consensus most, which is none of mean, sum"),
        ("ties", 3, {"density": 0.5, "scale": 1}, "without consensus"),
        ("dare", 3, {"drop": 0.5, "seed": 0.5, "scale": 1}, "seed 0.5, which is no whole number"),
        ("slerp", 3, {"alpha": 0.5}, "of 3 parents, and slerp merges 2"),
        ("model-stock", 2, {"scale": 1}, "of 1 ends, and model-stock merges 2 or more"),
        ("", 2, {"alpha": 0.5}, "without a method"),
    ],
)
@pytest.mark.parametrize("materialized", [False, True])
def test_a_recipe_that_cannot_be_is_named(store, method, parents, params, reason, materialized):
    start = save(store)
    weights = {"visual.w": torch.ones(3)} if materialized else None
    saved = save_recipe(store, method, [start.id] * parents, params, weights)
    assert store.problem(saved) == f"checkpoint {saved.id} (mix) is a recipe " + (
        reason if reason.startswith(("of", "without")) else f"with {reason}"
    )


@pytest.mark.parametrize(("method", "parents", "alpha"), [("linear", 2, 0), ("linear", 2, 1), ("of-a-plugin", 5, 1.5)])
def test_a_recipe_that_can_be_is_whole(store, method, parents, alpha):
    start = save(store)
    assert store.problem(save_recipe(store, method, [start.id] * parents, {"alpha": alpha})) == ""


def test_parents_that_are_not_in_the_store_are_named(store):
    start = save(store)
    lost = save_recipe(store, "linear", [start.id, "f" * 12], {"alpha": 0.5})
    assert f"checkpoint {'f' * 12} is not in the store {store.root}" in store.problem(lost)
    tuned = save(store, 2.0, "tuned", trained_from=["f" * 12])
    assert store.problem(tuned).endswith(f"was trained from {'f' * 12}, which is not in the store {store.root}")
    assert torch.equal(load_weights(store, start)["visual.w"], torch.ones(3))


@pytest.mark.parametrize("field", ["recipe", "trained_from"])
def test_one_that_is_its_own_parent_is_named(store, field):
    start = save(store)
    saved = save(store, 2.0, "tuned", trained_from=[start.id])
    data = unseal((saved.home / MANIFEST).read_bytes())
    own = {"method": "linear", "parents": [saved.id, start.id], "params": {"alpha": 0.5}}
    data |= (
        {"trained_from": [saved.id]} if field == "trained_from" else {"recipe": own, "files": {}, "trained_from": []}
    )
    (saved.home / MANIFEST).write_text(json.dumps(data))
    problem = store.problem(store.get(saved.id))
    assert "merged from itself" in problem if field == "recipe" else "content that its id names" in problem


def test_neither_weights_nor_a_recipe_is_named(store):
    saved = save(store)
    data = unseal((saved.home / MANIFEST).read_bytes()) | {"files": {}}
    (saved.home / MANIFEST).write_text(json.dumps(data))
    assert store.problem(store.get(saved.id)).endswith("has neither weights nor a recipe")


def test_every_flipped_bit_in_a_manifest_is_found(store):
    saved = save(store, head={"classes": ["ä", "b"]})
    whole = (saved.home / MANIFEST).read_bytes()
    found = 0
    for place in range(len(whole)):
        for bit in range(8):
            broken = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            with pytest.raises(StoreError, match=r"is not a manifest of this version|newer wisepatch"):
                parse_manifest(broken, saved.home)
            found += 1
    assert found == 8 * len(whole)


@pytest.mark.parametrize("field", ["versions", "created"])
def test_what_the_id_leaves_out_is_hashed_too(store, field):
    saved = save(store)
    path = saved.home / MANIFEST
    data = json.loads(path.read_text()) | {field: {"wisepatch": "9"} if field == "versions" else "2999"}
    path.write_text(json.dumps(data, indent=2))
    assert "does not have the sha256 that it names" in store.unreadable()[0].message


def test_a_store_written_before_there_were_seals_is_whole_and_found(store):
    start = save(store)
    tuned = save(store, 2.0, "tuned", trained_from=[start.id])
    mixed = save_recipe(store, "linear", [start.id, tuned.id], {"alpha": 0.5})
    store.cache.tensors("heads", DIGEST, lambda: {"weight": torch.ones(3)})
    for path in (*(each.home / MANIFEST for each in (start, tuned, mixed)), *store.root.glob(f"cache/*/*/{ENTRY}")):
        path.write_text(json.dumps(unseal(path.read_bytes()), indent=2))
    assert store.unreadable() == []
    assert list(store.problems(store.everything()).values()) == [""] * 3
    assert store.cache.problems() == []
    assert store.find("latest") == tuned
    assert store.find("mix") == mixed
    assert [identify(each) == each.id for each in store.everything()] == [True] * 3
    assert save(store).id == start.id
    assert store.find("zeroshot").created > tuned.created


def fill_cache(store, kind):
    store.cache.tensors(kind, DIGEST, lambda: {"weight": torch.ones(3)})
    return store.root / "cache" / kind / DIGEST


# Each kind of what is read back: how it is written, and how it is read; cached ones are made again, with a note.
def written_weights(store):
    saved = save(store)
    return saved.home / WEIGHTS, lambda _: store.read(saved)


def written_part(store):
    saved = save(store)
    path = saved.home / WEIGHTS
    return path, lambda _: store.read_part(saved, "classifier")


def written_parent(store):
    start = save(store)
    mixed = save_recipe(store, "linear", [start.id, save(store, 2.0, "end").id], {"alpha": 0.5})
    return start.home / WEIGHTS, lambda _: load_weights(store, mixed)


def written_fisher(store):
    path = fill_cache(store, "fisher") / TENSORS
    start = save(store)
    files = [[DIGEST, store.cache.sha256("fisher", DIGEST)]] * 2
    mixed = save_recipe(store, "fisher", [start.id] * 2, {"alpha": 0.5, "fisher": {"files": files}})
    return path, lambda _: load_weights(store, mixed)


def written_entry(kind, file):
    def write(store):
        make = lambda: {"weight": torch.ones(3)}  # noqa: E731
        return fill_cache(store, kind) / file, lambda note: store.cache.tensors(kind, DIGEST, make, note=note)

    return write


def written_pixels(store):
    def build(folder):
        np.save(folder / "pixels.npy", np.zeros((2, 3, 4, 4), np.uint8))
        np.save(folder / "labels.npy", np.zeros(2, np.int64))

    def read(note):
        return store.cache.folder("pixels", DIGEST, build, note=note)

    return read(None) / "pixels.npy", read


def written_predictions(store):
    saved = save(store)
    columns = {"image": ["a"], "label": np.zeros(1), "answer": np.zeros(1), "confidence": np.ones(1)}
    path = save_predictions(store, saved, "Shapes", "val", columns, {})
    return path, lambda note: load_predictions(store, saved, "Shapes", "val", note=note)


CACHED = {
    "head": written_entry("heads", TENSORS), "features": written_entry("features", TENSORS), "pixels": written_pixels,
    "measured Fisher information": written_entry("fisher", TENSORS), "entry": written_entry("heads", ENTRY),
    "predictions": written_predictions,
}  # fmt: skip
ERRORS = {
    "weights": written_weights, "part of weights": written_part, "parent of a recipe": written_parent,
    "Fisher information of a recipe": written_fisher,
}  # fmt: skip


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("kind", CACHED)
def test_what_is_damaged_and_can_be_made_again_is_said_and_made_again(store, kind, place):
    path, read = CACHED[kind](store)
    notes = []
    read(notes.append)
    assert notes == []
    flip(path, place)
    assert [*store.cache.problems(), *prediction_problems(store)] != []
    again = read(notes.append)
    assert (again is None) == (kind == "predictions")
    assert len(notes) == 1
    assert "made again" in notes[0]
    assert str(path if kind == "predictions" else path.parent) in notes[0]


def keep_state(run, step):
    folder = run.new_state()
    (folder / "weights").write_bytes(bytes(100))
    run.keep_state(folder, step, {"step": step})


def test_a_state_whose_removal_was_cut_short_is_no_damage(store, monkeypatch):
    run = Run(store.root, {"config": {"task": "Shapes"}}, "fingerprint of the images")

    def die(folder):
        (folder / "weights").unlink()
        raise KeyboardInterrupt

    with run.lock():
        run.begin()
        keep_state(run, 1)
        keep_state(run, 2)
        monkeypatch.setattr("wisepatch.files.shutil.rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            keep_state(run, 3)
        monkeypatch.undo()
    assert run_problems(store.root) == []
    assert [state.name[-1] for state in run.states()] == ["2", "3"]
    assert store.collect_garbage() != []


@pytest.mark.parametrize(
    "file", ["run.json", "finished.json", "state-000000003/weights", "state-000000003/position.json"]
)
def test_damage_to_what_a_training_left_is_named(store, file):
    run = Run(store.root, {"config": {"task": "Shapes"}}, "fingerprint of the images")
    with run.lock():
        run.begin()
        keep_state(run, 3)
        if file == "finished.json":
            run.finish({"finetuned": "a" * 12})
    assert run_problems(store.root) == []
    flip(run.folder / file, 5)
    (problem,) = run_problems(store.root)
    assert str((run.folder / file).parent) in problem


@pytest.mark.parametrize("place", [-1, -9])
@pytest.mark.parametrize("kind", ERRORS)
def test_what_is_damaged_and_cannot_be_made_again_is_an_error(store, kind, place):
    path, read = ERRORS[kind](store)
    read(None)
    flip(path, -20 if kind == "part of weights" else place)  # the classifier's numbers come first
    with pytest.raises(StoreError, match=r"damaged|is not what the mix was made with"):
        read(None)
    assert any(store.problems(store.everything()).values())


def test_a_checkpoint_that_is_removed_meanwhile_is_not_called_damaged(store):
    start, end = save(store), save(store, 2.0, "end")
    everything = store.everything()
    store.remove([end])
    assert store.problems(everything) == {start.id: ""}
