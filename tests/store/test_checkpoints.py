"""The checkpoint store: atomic, hashed, verified; found by name, kind, id or path."""

import json
import resource
import subprocess
import sys
from threading import Event, Thread

import pytest
import torch

from wisepatch.errors import DataError, StoreError, UnknownNameError
from wisepatch.files import PARTIAL, hash_tensors, sha256
from wisepatch.store.checkpoints import MANIFEST, WEIGHTS, Store, describe

MODEL = {"model": "demo", "pretrained": ""}
ANOTHER_FOLDER = "name another folder with --store or WISEPATCH_STORE, or free space there"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def tiny(value=1.0):
    return {
        "w": torch.full((2, 3), value),
        "half": torch.full((2,), value, dtype=torch.bfloat16),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False]),
    }


def save(store, value=1.0, kind="zeroshot", name="start", **more):
    return store.save(tiny(value), kind=kind, name=name, model=MODEL, **more)


def save_recipe(store, *parents, alpha=0.5, name="mixed", kind="interpolated"):
    return store.save(None, kind=kind, name=name, model=MODEL, parents=[p.id for p in parents], alpha=alpha)


def flip_bit(path, offset=-1):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def weights_file(store, checkpoint):
    return store.checkpoints / checkpoint.id / WEIGHTS


def test_naming_a_store_makes_no_folder(store):
    assert store.everything() == []
    assert store.collect_garbage() == []
    assert not store.root.exists()


def test_a_saved_checkpoint_is_found_and_read_bit_for_bit(store):
    saved = save(
        store,
        kind="finetuned",
        name="tuned",
        parents=["0" * 12],
        alpha=1.0,
        method="wiseft",
        config={"task": "Shapes", "lr": 1e-3},
        head={"task": "Shapes", "classes": 3},
    )
    assert store.find("tuned") == store.get(saved.id) == saved
    assert store.everything() == [saved]
    assert (saved.kind, saved.parents, saved.alpha, saved.method) == ("finetuned", ("0" * 12,), 1.0, "wiseft")
    assert (saved.config, saved.head, saved.model) == (
        {"task": "Shapes", "lr": 1e-3},
        {"task": "Shapes", "classes": 3},
        MODEL,
    )
    assert not saved.is_recipe
    assert store.problem(saved) == ""
    read = store.read(saved)
    assert set(read) == set(tiny())
    for name, tensor in tiny().items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_views_shared_and_strided_tensors_are_saved_by_value(store):
    base = torch.arange(12.0).reshape(3, 4)
    weights = {"whole": base, "same": base, "turned": base.T, "part": base[:, 1], "grad": base.clone().requires_grad_()}
    read = store.read(store.save(weights, kind="zeroshot", name="views", model=MODEL))
    assert all(torch.equal(read[name], tensor) for name, tensor in weights.items())


def test_the_manifest_names_the_sha256_and_the_versions(store):
    saved = save(store)
    manifest = json.loads((store.checkpoints / saved.id / MANIFEST).read_text())
    assert manifest["files"] == {WEIGHTS: sha256(weights_file(store, saved))}
    assert manifest["schema"] == 1
    assert set(manifest["versions"]) == {"wisepatch", "torch", "open_clip_torch"}
    assert json.loads(json.dumps(describe(saved))) == manifest


def test_nothing_but_whole_checkpoints_is_left_after_saving(store):
    saved = save(store)
    save(store)
    assert [path.name for path in store.checkpoints.iterdir()] == [saved.id]
    assert sorted(path.name for path in (store.checkpoints / saved.id).iterdir()) == [MANIFEST, WEIGHTS]


def test_the_same_content_keeps_its_id_and_becomes_the_newest(store):
    first = save(store, 1.0, name="one")
    second = save(store, 2.0, name="two")
    assert store.find("zeroshot").id == second.id
    again = save(store, 1.0, name="one")
    assert again.id == first.id
    assert again.created > second.created > first.created
    assert store.find("zeroshot").id == first.id
    assert [checkpoint.id for checkpoint in store.everything()] == [second.id, first.id]


@pytest.mark.parametrize(
    "change",
    [
        {"value": 2.0},
        {"name": "other"},
        {"kind": "finetuned"},
        {"alpha": 0.5},
        {"method": "paint"},
        {"config": {"lr": 1}},
        {"head": {"task": "A"}},
        {"parents": ["p"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_content_has_another_id(store, change):
    assert save(store).id != save(store, **change).id


def test_another_store_gives_the_same_content_the_same_id(store, tmp_path):
    assert save(store).id == save(Store(tmp_path / "other")).id


def test_a_recipe_is_a_manifest_and_nothing_else(store):
    start, end = save(store, 0.0), save(store, 1.0, kind="finetuned", name="end")
    recipe = save_recipe(store, start, end, alpha=0.3)
    assert recipe.is_recipe
    assert (recipe.parents, recipe.alpha, recipe.files) == ((start.id, end.id), 0.3, {})
    assert [path.name for path in (store.checkpoints / recipe.id).iterdir()] == [MANIFEST]
    assert store.size(recipe) == 0
    assert store.size(start) == weights_file(store, start).stat().st_size
    assert store.children(start) == store.children(end) == [recipe]
    assert store.problem(recipe) == ""


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
    twin = store.checkpoints / (saved.id[:6] + "zzzzzz")
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
    assert caught.value.message == "unknown checkpoint 'demo/Digit/finetuned'; did you mean demo/Digits/finetuned?"
    assert caught.value.hint == "`wisepatch store list` lists the names and ids there are"


def test_an_id_that_is_gone_is_an_error(store):
    with pytest.raises(StoreError) as caught:
        store.get("0123456789ab")
    assert caught.value.message == f"checkpoint 0123456789ab is not in the store {store.root}"
    assert caught.value.hint == "it was removed; make it again"


@pytest.mark.parametrize("offset", [0, 20, -1])
def test_one_flipped_bit_is_found_and_never_loaded(store, offset):
    saved = save(store)
    flip_bit(weights_file(store, saved), offset)
    problem = f"checkpoint {saved.id} (start) is damaged: {WEIGHTS} does not have the sha256 that its manifest names"
    assert store.problem(saved) == problem
    with pytest.raises(StoreError) as caught:
        store.read(saved)
    assert (caught.value.message, caught.value.hint) == (
        problem,
        "remove it with `wisepatch store rm` and make it again",
    )


def test_lost_weights_are_an_error(store):
    saved = save(store)
    weights_file(store, saved).unlink()
    assert store.problem(saved) == f"checkpoint {saved.id} (start) has lost {WEIGHTS}"
    assert store.size(saved) == 0
    with pytest.raises(StoreError, match=f"has lost {WEIGHTS}"):
        store.read(saved)


@pytest.mark.parametrize("damage", [flip_bit, lambda path: path.unlink()], ids=["flipped", "lost"])
def test_saving_a_damaged_checkpoint_again_mends_it(store, damage):
    saved = save(store)
    damage(weights_file(store, saved))
    again = save(store)
    assert again.id == saved.id
    assert torch.equal(store.read(again)["w"], tiny()["w"])


def test_a_recipe_whose_parent_is_gone_is_a_problem(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    (store.checkpoints / end.id / MANIFEST).unlink()
    assert store.problem(recipe) == f"checkpoint {recipe.id} (mixed) is a recipe and its parent {end.id} is gone"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"parents": []}', '{"parents": [], "telepathy": 1}'])
def test_a_manifest_of_something_else_is_an_error_that_names_it(store, text):
    folder = store.checkpoints / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(text)
    with pytest.raises(StoreError) as caught:
        store.get("0123456789ab")
    assert caught.value.message.startswith(f"{folder / MANIFEST} is not a manifest of this version: ")
    assert caught.value.hint == f"remove {folder}"


def test_a_folder_without_a_manifest_is_invisible_until_it_is_collected(store):
    saved = save(store)
    half = store.checkpoints / "0123456789ab"
    half.mkdir()
    (half / WEIGHTS).write_bytes(b"half")
    partial = store.checkpoints / f"{PARTIAL}x"
    partial.mkdir()
    assert store.everything() == [saved]
    with pytest.raises(UnknownNameError):
        store.find("0123456789ab")
    assert sorted(store.collect_garbage()) == sorted([half, partial])
    assert [path.name for path in store.checkpoints.iterdir()] == [saved.id]
    assert torch.equal(store.read(saved)["w"], tiny()["w"])


def test_saving_over_a_half_written_folder_makes_it_whole(store):
    saved = save(store)
    (store.checkpoints / saved.id / MANIFEST).unlink()
    weights_file(store, saved).write_bytes(b"half")
    assert store.everything() == []
    assert save(store).id == saved.id
    assert torch.equal(store.read(store.get(saved.id))["w"], tiny()["w"])


def test_garbage_includes_recipes_whose_parents_are_gone(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    (store.checkpoints / end.id / MANIFEST).unlink()
    assert sorted(store.collect_garbage()) == sorted([store.checkpoints / end.id, store.checkpoints / recipe.id])
    assert store.everything() == [start]


def test_garbage_includes_recipes_of_recipes_whose_parents_are_gone(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    save_recipe(store, start, recipe, name="mixed again")
    (store.checkpoints / end.id / MANIFEST).unlink()
    store.collect_garbage()
    assert store.everything() == [start]


def test_a_checkpoint_without_recipes_is_removed(store):
    start, end = save(store, 0.0), save(store, 1.0)
    assert store.remove(start) == [start]
    assert store.everything() == [end]
    assert not (store.checkpoints / start.id).exists()


def test_a_recipe_is_removed_and_its_parents_stay(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    assert store.remove(recipe) == [recipe]
    assert store.everything() == [start, end]


def test_a_checkpoint_that_recipes_need_is_not_removed(store):
    start, end = save(store, 0.0), save(store, 1.0)
    save_recipe(store, start, end, alpha=0.25, name="a")
    save_recipe(store, start, end, alpha=0.5, name="b")
    with pytest.raises(StoreError) as caught:
        store.remove(start)
    assert caught.value.message == f"2 recipes are mixed from {start.id} (start), such as a"
    assert caught.value.hint == "give --recipes to remove them with it"
    assert len(store.everything()) == 4


def test_recipes_go_with_what_they_need_if_asked(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    assert store.remove(start, with_recipes=True) == [recipe, start]
    assert store.everything() == [end]


def test_recipes_of_recipes_go_with_what_they_need_if_asked(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    nested = save_recipe(store, start, recipe, name="mixed again")
    gone = store.remove(end, with_recipes=True)
    assert {checkpoint.id for checkpoint in gone} == {nested.id, recipe.id, end.id}
    assert store.everything() == [start]


def test_a_store_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(StoreError) as caught:
        save(store)
    assert caught.value.message == f"the store {store.root} cannot be written: Not a directory"
    assert caught.value.hint == ANOTHER_FOLDER
    with pytest.raises(StoreError, match="cannot be written"):
        store.cache("heads", "h", {"weight": torch.ones(2)})


def test_weights_that_do_not_fit_on_the_disk_are_an_error_and_leave_nothing(store):
    store.checkpoints.mkdir(parents=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(StoreError) as caught:
            store.save({"w": torch.zeros(100_000)}, kind="zeroshot", name="big", model=MODEL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.message.startswith(f"the store {store.root} cannot be written: ")
    assert caught.value.hint == ANOTHER_FOLDER
    assert list(store.checkpoints.iterdir()) == []


def test_the_hash_of_tensors_ignores_their_order_and_layout():
    base = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": base, "b": torch.tensor(1)}
    assert hash_tensors(tensors) == hash_tensors(dict(reversed(tensors.items())))
    assert hash_tensors({"a": base.T.contiguous().T, "b": torch.tensor(1)}) == hash_tensors(tensors)
    assert len(hash_tensors(tensors)) == 64


def test_the_hash_of_tensors_depends_on_names_types_shapes_and_bytes():
    zeros = torch.zeros(2, 3)
    different = [
        {},
        {"w": zeros},
        {"v": zeros},
        {"w": zeros.to(torch.int32)},
        {"w": zeros.half()},
        {"w": zeros.bfloat16()},
        {"w": zeros.reshape(3, 2)},
        {"w": zeros.reshape(6)},
        {"w": -zeros},
        {"w": zeros.bool()},
        {"w": torch.zeros(0)},
        {"w": torch.tensor(0.0)},
        {"w": zeros, "v": zeros},
    ]
    assert len({hash_tensors(tensors) for tensors in different}) == len(different)


def test_a_cached_head_reads_back(store):
    head = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert not store.cached("heads", "h", "weight")
    store.cache("heads", "h", {"weight": head.T})
    assert torch.equal(store.cached("heads", "h", "weight")["weight"], head.T)
    assert not store.cached("heads", "other", "weight")
    assert [path.name for path in store.heads.iterdir()] == ["h.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 30, -1])
def test_a_head_that_was_cut_short_is_built_again(store, keep):
    store.cache("heads", "h", {"weight": torch.ones(4, 3)})
    path = store.heads / "h.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert not store.cached("heads", "h", "weight")


@pytest.mark.parametrize("content", [b"rubbish" * 20, b"\xff" * 100])
def test_a_head_file_of_something_else_is_built_again(store, content):
    store.cache("heads", "h", {"weight": torch.ones(4, 3)})
    (store.heads / "h.safetensors").write_bytes(content)
    assert not store.cached("heads", "h", "weight")
    store.cache("heads", "h", {"weight": torch.ones(4, 3)})
    assert torch.equal(store.cached("heads", "h", "weight")["weight"], torch.ones(4, 3))


def test_two_runs_at_once_make_a_thing_once(store):
    """The second one waits, says so, and takes what the first one has made."""
    begun, waited, made, found = Event(), Event(), [], []

    def make():
        made.append(True)
        begun.set()
        assert waited.wait(60)
        return {"weight": torch.ones(2), "beside": torch.zeros(1)}

    def run(waiting=None):
        found.append(store.get_tensors("heads", "h", make, ("weight",), waiting))

    first = Thread(target=run)
    first.start()
    assert begun.wait(60)
    run(waiting=waited.set)
    first.join()
    assert made == [True]
    assert [list(each) for each in found] == [["weight"], ["weight"]]
    assert torch.equal(found[0]["weight"], found[1]["weight"])
    assert [path.name for path in store.heads.iterdir()] == ["h.safetensors"]


def test_run_that_is_killed_while_others_wait_gives_way(store):
    script = """
import sys, time
from wisepatch import Store

with Store(sys.argv[1]).alone("heads", "h"):
    print("in", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline().strip() == b"in"
        found = store.get_tensors("heads", "h", lambda: {"weight": torch.ones(2)}, ("weight",), waiting=other.kill)
    assert torch.equal(found["weight"], torch.ones(2))


def test_what_fails_leaves_nothing_and_lets_others_try(store):
    def fail():
        raise DataError("broken.jpg cannot be read")

    for _ in range(2):
        with pytest.raises(DataError):
            store.get_tensors("features", "f", fail, ("features",))
    assert list(store.features.iterdir()) == []
