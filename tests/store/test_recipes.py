"""Weights of recipes: in memory and from file to file, of parents that are recipes themselves, and of damaged ones."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from wisepatch.errors import StoreError
from wisepatch.store import recipes
from wisepatch.store.checkpoints import MANIFEST, WEIGHTS, Recipe, Store
from wisepatch.store.recipes import load_all, load_weights, merged_head, weights_file, weights_writer
from wisepatch.weights.methods import interpolate


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def weights(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(5, 4, generator=generator),
        "half": torch.randn(3, generator=generator).half(),
        "ids": torch.arange(3),
    }


def save(store, tensors, name, **more):
    return store.save(tensors, kind="zeroshot", name=name, model={"model": "demo", "pretrained": ""}, **more)


def save_recipe(store, start, end, alpha):
    return save(store, None, f"recipe {alpha}", recipe=Recipe("linear", (start.id, end.id), {"alpha": alpha}))


def test_weights_of_a_checkpoint_are_read(store):
    loaded = load_weights(store, save(store, weights(1), "start"))
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {n: t.tolist() for n, t in weights(1).items()}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_recipe_is_the_mix_of_its_parents_in_their_order(store, alpha):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    mixed = load_weights(store, save_recipe(store, start, end, alpha))
    expected = interpolate(weights(1), weights(2), alpha)
    assert set(mixed) == set(expected)
    assert all(torch.equal(mixed[name], expected[name]) for name in expected)


def test_recipes_may_be_mixed_from_recipes(store):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    middle = save_recipe(store, start, end, 0.5)
    nested = save_recipe(store, middle, save_recipe(store, end, start, 0.25), 0.75)
    expected = interpolate(interpolate(weights(1), weights(2), 0.5), interpolate(weights(2), weights(1), 0.25), 0.75)
    mixed = load_weights(store, nested)
    assert all(torch.equal(mixed[name], expected[name]) for name in expected)


def test_of_several_recipes_none_stays_in_memory_and_one_alone_does(store, monkeypatch):
    merged, original = [], recipes.merge_weights
    monkeypatch.setattr(recipes, "merge_weights", lambda *given: merged.append(1) or original(*given))
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    mixes = [save_recipe(store, start, end, alpha) for alpha in (0.25, 0.5, 0.75)]
    before = sorted(store.checkpoints.iterdir())
    loaded = list(load_all(store, [start, *mixes]))
    assert not merged  # in memory
    for one, checkpoint in zip(loaded, [start, *mixes], strict=True):
        expected = load_weights(store, checkpoint)
        assert all(torch.equal(one[name], expected[name]) for name in expected)
    assert sorted(store.checkpoints.iterdir()) == before
    merged.clear()
    list(load_all(store, [mixes[0], end]))
    assert len(merged) == 1
    monkeypatch.setattr(store, "can_be_written", lambda: False)
    list(load_all(store, mixes))
    assert len(merged) == 4


def test_a_recipe_whose_parent_is_gone_is_an_error(store):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    recipe = save_recipe(store, start, end, 0.5)
    (store.checkpoints / end.id / MANIFEST).unlink()
    with pytest.raises(StoreError) as caught:
        load_weights(store, recipe)
    assert caught.value.message == f"checkpoint {end.id} is not in the store {store.root}"
    assert caught.value.hint == "it was removed; make it again"


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_recipe_with_a_damaged_parent_is_an_error_even_where_it_would_not_count(store, alpha):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    recipe = save_recipe(store, start, end, alpha)
    file = store.checkpoints / end.id / WEIGHTS
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=rf"^checkpoint {end.id} \(end\) is damaged: "):
        load_weights(store, recipe)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_file_of_a_recipe_is_that_of_its_weights_and_is_hashed(store, tmp_path, alpha):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    recipe = save_recipe(store, start, end, alpha)
    with weights_writer(store, recipe, tmp_path) as write:
        digest = write(tmp_path / "w.safetensors")
    save_file(load_weights(store, recipe), tmp_path / "expected.safetensors", {"format": "pt"})
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()
    assert digest == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()


def test_a_checkpoint_with_weights_is_its_own_file_and_is_copied_by_name(store, tmp_path):
    saved = save(store, weights(1), "start")
    with weights_file(store, saved, tmp_path) as path:
        assert path == saved.home / WEIGHTS
    with weights_writer(store, saved, tmp_path) as write:
        write(tmp_path / "w.safetensors", keep=lambda name: name != "half")
    assert same(load_file(tmp_path / "w.safetensors"), {k: v for k, v in weights(1).items() if k != "half"})
    assert path.is_file()


def test_files_of_recipes_of_recipes_are_gone_afterwards(store, tmp_path):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    nested = save_recipe(store, save_recipe(store, start, end, 0.5), save_recipe(store, end, start, 0.25), 0.75)
    folder = tmp_path / "folder"
    folder.mkdir()
    with weights_file(store, nested, folder) as path:
        assert path.parent == folder
        assert same(load_file(path), load_weights(store, nested))
    assert not list(folder.iterdir())
    with pytest.raises(RuntimeError, match="stop"), weights_file(store, nested, folder):
        raise RuntimeError("stop")
    assert not list(folder.iterdir())


def test_the_file_of_a_recipe_with_a_damaged_parent_is_an_error(store, tmp_path):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    recipe = save_recipe(store, start, end, 0.5)
    file = end.home / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with (
        pytest.raises(StoreError, match=rf"^checkpoint {end.id} \(end\) is damaged: "),
        weights_file(store, recipe, tmp_path),
    ):
        pass


@pytest.mark.parametrize("params", [{"alpha": 0.4}, {"alphas": [0.5, -0.25]}])
def test_task_vectors_of_several_ends_are_added_in_memory_and_from_file_to_file(store, tmp_path, params):
    start, *ends = (save(store, weights(seed), f"end {seed}") for seed in (1, 2, 3))
    recipe = save(store, None, "sum", recipe=Recipe("task-arithmetic", (start.id, *(end.id for end in ends)), params))
    assert store.problem(recipe) == ""
    loaded, alphas = load_weights(store, recipe), params.get("alphas") or [params["alpha"]] * 2
    first, *others = (weights(seed)["w"].double() for seed in (1, 2, 3))
    expected = first + sum(alpha * (other - first) for alpha, other in zip(alphas, others, strict=True))
    assert torch.allclose(loaded["w"].double(), expected, rtol=0, atol=1e-6)
    with weights_writer(store, recipe, tmp_path) as write:
        write(tmp_path / "sum.safetensors")
    written = load_file(tmp_path / "sum.safetensors")
    assert set(written) == set(loaded)
    assert all(torch.equal(written[name], loaded[name]) for name in loaded)


def save_with_head(store, name, classes):
    head = {"task": name, "classes": list(classes)} if classes else None
    return save(store, weights(len(name)), name, head=head)


def test_the_head_of_a_merge_is_the_one_of_all_parents_or_of_the_only_one_that_has_any(store):
    plain, animals, same = (save_with_head(store, *each) for each in (("plain", ""), ("animals", "ab"), ("same", "ab")))
    assert merged_head([plain, plain]) is None
    assert merged_head([animals, same]) == animals.head
    assert merged_head([plain, animals, plain]) == animals.head


def test_a_merge_of_heads_of_other_classes_is_refused(store):
    plain, animals, plants = (
        save_with_head(store, *each) for each in (("plain", ""), ("animals", "ab"), ("plants", "cd"))
    )
    for parents, reason in (
        ([plain, animals, plants], "are of other classes: animals and plants"),
        ([plain, animals, animals], f"animals ({animals.id}) has a trained head, and plain ({plain.id}) has none"),
        ([plain, animals], f"animals ({animals.id}) has a trained head, and plain ({plain.id}) has none"),
    ):
        with pytest.raises(StoreError) as caught:
            merged_head(parents)
        assert caught.value.message.endswith(reason)
        assert caught.value.hint
