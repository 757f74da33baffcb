"""The checkpoint store: atomic, hashed, verified."""

import json
import os
import resource
import shutil

import pytest
import torch
from safetensors.torch import save_file

from wisepatch.errors import StoreError, UnknownNameError
from wisepatch.files import PARTIAL, hash_tensors, sha256, unseal
from wisepatch.locks import locked
from wisepatch.store.checkpoints import MANIFEST, WEIGHTS, Recipe, Store, describe
from wisepatch.store.sharing import MARK

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
    recipe = Recipe("linear", tuple(parent.id for parent in parents), {"alpha": alpha})
    return store.save(None, kind=kind, name=name, model=MODEL, training="paint", recipe=recipe)


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
    start = save(store)
    saved = save(
        store,
        kind="finetuned",
        name="tuned",
        trained_from=[start.id],
        training="wise-ft",
        config={"task": "Shapes", "lr": 1e-3},
        head={"task": "Shapes", "classes": 3},
    )
    assert store.find("tuned") == store.get(saved.id) == saved
    assert store.everything() == [start, saved]
    assert (saved.kind, saved.training, saved.trained_from) == ("finetuned", "wise-ft", (start.id,))
    assert (saved.parents, saved.recipe, saved.alpha, saved.method) == ((start.id,), None, None, "")
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
    manifest = unseal((store.checkpoints / saved.id / MANIFEST).read_bytes())
    assert manifest["files"] == {WEIGHTS: sha256(weights_file(store, saved))}
    assert manifest["schema"] == 2
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
        {"recipe": Recipe("linear", ("0" * 12,), {"alpha": 0.5})},
        {"training": "paint"},
        {"config": {"lr": 1}},
        {"head": {"task": "A"}},
        {"trained_from": ["0" * 12]},
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
    assert (recipe.parents, recipe.alpha, recipe.method, recipe.files) == ((start.id, end.id), 0.3, "linear", {})
    assert [path.name for path in (store.checkpoints / recipe.id).iterdir()] == [MANIFEST]
    assert store.size(recipe) == 0
    assert store.size(start) == weights_file(store, start).stat().st_size
    assert store.children(start) == store.children(end) == [recipe]
    assert store.problem(recipe) == ""


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
    assert store.problem(recipe) == (
        f"checkpoint {recipe.id} (mixed) is a recipe, and checkpoint {end.id} is not in the store {store.root}"
    )


def test_a_folder_without_a_manifest_is_invisible_and_only_partial_ones_are_collected(store):
    saved = save(store)
    foreign = store.checkpoints / "lightning_run_7"
    foreign.mkdir()
    (foreign / "epoch=9.ckpt").write_bytes(b"another tool's")
    half = store.checkpoints / "0123456789ab"
    half.mkdir()
    partial = store.checkpoints / f"{PARTIAL}0123abcd"
    partial.mkdir()
    inner = store.checkpoints / saved.id / f"{PARTIAL}0123abce"
    inner.write_text("half a manifest")
    lock = store.checkpoints / f".{saved.id}.lock"
    lock.touch()
    (store.checkpoints / ".ours.lock").touch()
    assert store.everything() == [saved]
    with pytest.raises(UnknownNameError):
        store.find("0123456789ab")
    with locked(store.checkpoints / f".{'a' * 12}.lock"):
        assert sorted(store.collect_garbage(caches=True)) == sorted([partial, inner, lock])
    left = sorted(path.name for path in store.checkpoints.iterdir())
    assert left == sorted([saved.id, foreign.name, half.name, ".ours.lock"])
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
    assert store.collect_garbage() == [store.checkpoints / recipe.id]
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
    assert store.remove([start]) == [start]
    assert store.everything() == [end]
    assert not (store.checkpoints / start.id).exists()


def test_a_recipe_is_removed_and_its_parents_stay(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    assert store.remove([recipe]) == [recipe]
    assert store.everything() == [start, end]


def test_a_checkpoint_that_recipes_need_is_not_removed(store):
    start, end = save(store, 0.0), save(store, 1.0)
    save_recipe(store, start, end, alpha=0.25, name="a")
    save_recipe(store, start, end, alpha=0.5, name="b")
    with pytest.raises(StoreError) as caught:
        store.remove([start])
    assert caught.value.message == f"2 recipes are mixed from {start.id} (start), such as a"
    assert caught.value.hint == "give --recipes to remove them with it"
    assert len(store.everything()) == 4


def test_recipes_go_with_what_they_need_if_asked(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    assert store.remove([start], with_recipes=True) == [recipe, start]
    assert store.everything() == [end]


def test_recipes_of_recipes_go_with_what_they_need_if_asked(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    nested = save_recipe(store, start, recipe, name="mixed again")
    gone = store.remove([end], with_recipes=True)
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
        store.cache.tensors("heads", "h", lambda: {"weight": torch.ones(2)})


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


def test_the_parts_of_weights_are_hashed_by_name(store):
    weights = {"visual.w": torch.ones(2), "classifier.weight": torch.ones(3), "logit_scale": torch.ones(1)}
    parts = store.save(weights, kind="finetuned", name="f", model=MODEL).parts
    assert parts == {
        "visual": hash_tensors({"w": torch.ones(2)}),
        "classifier": hash_tensors({"classifier.weight": torch.ones(3)}),
        "text": hash_tensors({"logit_scale": torch.ones(1)}),
    }

    def write(path):
        save_file(weights, path)
        return sha256(path)

    other = weights | {"visual.w": torch.zeros(2)}
    assert store.save(write, kind="finetuned", name="g", model=MODEL).parts == parts
    assert store.save(other, kind="finetuned", name="h", model=MODEL).parts["text"] == parts["text"]
    assert save(store).parts.keys() == {"text"}


def test_a_store_is_marked_when_it_is_made(store):
    save(store)
    assert unseal((store.root / MARK).read_bytes()) == {"schema": 2}


def test_a_store_of_a_newer_schema_is_not_written(store):
    start, end = save(store, 0.0), save(store, 1.0)
    recipe = save_recipe(store, start, end)
    (store.checkpoints / end.id / MANIFEST).unlink()
    (store.root / MARK).write_text('{"schema": 3}')
    before = sorted(store.root.rglob("*"))
    for write in (lambda: save(store, 2.0), lambda: store.remove([recipe]), store.collect_garbage):
        with pytest.raises(StoreError, match=r"was written by a newer wisepatch \(schema 3\)") as caught:
            write()
        assert caught.value.hint == "upgrade wisepatch"
    assert sorted(store.root.rglob("*")) == before


def test_a_manifest_of_a_newer_schema_is_named_and_nothing_beside_it_is_touched(store):
    start, end = save(store, 0.0), save(store, 1.0, kind="finetuned", name="tuned")
    recipe = save_recipe(store, start, end)
    path = store.checkpoints / end.id / MANIFEST
    path.write_text(json.dumps(unseal(path.read_bytes()) | {"schema": 3, "telepathy": 1}))
    assert [error.message for error in store.unreadable()] == [f"{path} was written by a newer wisepatch (schema 3)"]
    with pytest.raises(StoreError, match=r"no fine-tuned checkpoint .* can be read: .*newer") as caught:
        store.find("finetuned")
    assert caught.value.hint == "upgrade wisepatch"
    before = path.read_bytes()
    for write in (
        lambda: store.remove([recipe]),
        store.collect_garbage,
        lambda: save(store, 1.0, "finetuned", "tuned"),
    ):
        with pytest.raises(StoreError, match=r"newer wisepatch \(schema 3\)"):
            write()
    assert path.read_bytes() == before
    assert (store.checkpoints / recipe.id).is_dir()
    assert store.find("zeroshot") == start


def test_garbage_of_a_folder_that_is_no_store_is_refused(tmp_path):
    ours = tmp_path / "project" / "checkpoints" / ".partial-99999999-x"
    ours.mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "project").collect_garbage(caches=True)
    assert caught.value.message == f"the folder {tmp_path / 'project'} is not a store of wisepatch"
    assert ours.is_dir()


def test_a_store_without_a_mark_is_known_by_its_manifests(store):
    saved = save(store)
    (store.root / MARK).unlink()
    assert store.collect_garbage() == []
    assert store.remove([saved]) == [saved]


@pytest.mark.parametrize("identity", ["../../victim", "", ".", "0123456789AB", "0123456789ab", 7, None, "a" * 300])
def test_an_id_that_is_not_the_name_of_its_folder_makes_a_manifest_unreadable(store, tmp_path, identity):
    victim = tmp_path / "victim"
    victim.mkdir()
    saved = save(store)
    recipe = save_recipe(store, saved, saved)
    for folder in (saved.id, recipe.id):
        path = store.checkpoints / folder / MANIFEST
        path.write_text(json.dumps(unseal(path.read_bytes()) | {"id": identity}))
    assert store.everything() == []
    assert len(store.unreadable()) == 2
    assert store.collect_garbage(caches=True) == []
    assert victim.is_dir()
    assert len(list(store.checkpoints.iterdir())) == 2


def spoil(text):
    return lambda path: path.write_text(text)


def put_folder_there(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [spoil("{"), spoil("[]"), spoil('{"schema": 2}'), spoil("[" * 100_000), put_folder_there,
     lambda p: p.write_bytes(b"\xff\xfe\x00"),
     lambda p: p.write_text(json.dumps(unseal(p.read_bytes()) | {"created": None})),
     lambda p: p.write_text(json.dumps(unseal(p.read_bytes()) | {"files": {"../x": "0"}})),
     lambda p: p.write_text(json.dumps(unseal(p.read_bytes()) | {"trained_from": ["../.."]})),
     lambda p: p.write_text(json.dumps(unseal(p.read_bytes()) | {"recipe": {"method": "linear"}})),],
)  # fmt: skip
def test_one_bad_manifest_blocks_nothing_else(store, damage):
    good, bad = save(store, 0.0), save(store, 1.0, name="bad")
    damage(store.checkpoints / bad.id / MANIFEST)
    assert store.everything() == [good]
    (error,) = store.unreadable()
    assert str(store.checkpoints / bad.id / MANIFEST) in error.message
    assert error.hint == f"remove it with `wisepatch store rm {bad.id}`"
    assert store.find("zeroshot") == store.find(good.name) == store.find(good.id) == good
    assert store.collect_garbage(caches=True) == []
    assert (store.checkpoints / bad.id).is_dir()
    damaged = store.look_up_damaged(bad.id)
    assert store.remove([damaged, good]) == [damaged, good]
    assert list(store.checkpoints.iterdir()) == []


def edit_manifest(store, checkpoint, **fields):
    path = store.checkpoints / checkpoint.id / MANIFEST
    path.write_text(json.dumps(unseal(path.read_bytes()) | fields))  # without a seal, as before there were any
    return store.get(checkpoint.id)


@pytest.mark.parametrize(
    "fields", [{"name": "other"}, {"training": "x"}, {"parts": {}}, {"trained_from": ["a" * 12]}, {"config": {"lr": 1}}]
)
def test_a_manifest_whose_content_its_id_does_not_name_is_a_problem(store, fields):
    saved = save(store)
    assert store.problem(saved) == ""
    assert "does not have the content that its id names" in store.problem(edit_manifest(store, saved, **fields))


@pytest.mark.parametrize(
    ("method", "parents", "params", "reason"),
    [
        ("linear", 2, {"alpha": float("nan")}, "alpha nan"),
        ("linear", 2, {"alpha": float("inf")}, "alpha inf"),
        ("linear", 2, {"alpha": "half"}, "alpha half"),
        ("", 2, {"alpha": 0.5}, "without a method"),
        ("linear", 0, {"alpha": 0.5}, "without parents"),
        ("fisher", 2, {"alpha": 0.5, "fisher": {"files": [["a" * 32, "0"]]}}, "Fisher information .* is gone"),
        (
            "regmean",
            2,
            {"reduction": 0.9, "images": 8, "gram": {"files": [["a" * 32, "0"]]}},
            "Gram matrices .* are gone",
        ),
    ],
)
def test_a_recipe_that_cannot_be_right_is_a_problem(store, method, parents, params, reason):
    start = save(store)
    recipe = Recipe(method, (start.id,) * parents, params)
    saved = store.save(None, kind="interpolated", name="odd", model=MODEL, recipe=recipe)
    with pytest.raises(AssertionError, match=f"is a recipe.* {reason}"):
        raise AssertionError(store.problem(saved))


def test_recipes_that_are_merged_from_themselves_are_a_problem_and_no_endless_loop(store):
    start = save(store)
    one, two = save_recipe(store, start, start, alpha=0.1), save_recipe(store, start, start, alpha=0.2)
    first = edit_manifest(
        store, one, recipe={"method": "linear", "parents": [start.id, two.id], "params": {"alpha": 0.5}}
    )
    edit_manifest(store, two, recipe={"method": "linear", "parents": [start.id, one.id], "params": {"alpha": 0.5}})
    outer = save_recipe(store, start, first, alpha=0.3)
    for recipe in (first, outer):
        assert "merged from itself" in store.problem(recipe)
        with pytest.raises(StoreError, match="merged from itself"):
            store.parents(recipe)
    assert {gone.id for gone in store.remove([start], with_recipes=True)} == {start.id, one.id, two.id, outer.id}


def test_recipes_may_share_parents_many_levels_deep(store):
    start, end = save(store, 0.0), save(store, 1.0)
    for level in range(40):
        start, end = (save_recipe(store, start, end, alpha=alpha, name=f"{level}") for alpha in (0.3, 0.6))
    assert store.problem(end) == ""


def test_several_are_removed_at_once_or_none(store, tmp_path):
    start = save(store, 0.0)
    end = save(store, 1.0, kind="finetuned", name="tuned", trained_from=[start.id])
    recipe = save_recipe(store, start, end, kind="patched")
    other = save(Store(tmp_path / "other"), 3.0)
    with pytest.raises(StoreError, match="lies in another store"):
        store.remove([recipe, end, other], with_recipes=True)
    assert len(store.everything()) == 3
    assert len(Store(tmp_path / "other").everything()) == 1
    assert store.remove([end, recipe, end], with_recipes=True) == [recipe, end]
    assert store.everything() == [start]


def test_what_a_training_began_with_is_removed_only_with_it(store):
    start = save(store, 0.0)
    end = save(store, 1.0, kind="finetuned", name="tuned", trained_from=[start.id])
    with pytest.raises(StoreError) as caught:
        store.remove([start], with_recipes=True)
    assert caught.value.message == f"{end.id} (tuned) was trained from {start.id} (start)"
    assert caught.value.hint == "remove tuned first, or name both"
    assert store.everything() == [start, end]
    assert store.remove([start, end]) == [end, start]


def test_room_is_looked_for_before_weights_are_written(store, monkeypatch):
    save(store)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    monkeypatch.setattr("wisepatch.store.checkpoints.write_tensors", lambda *_: pytest.fail("written"))
    with pytest.raises(StoreError, match=f"{store.root} needs 0 MB, and its disk has 0 MB free"):
        save(store, 2.0)
    with pytest.raises(StoreError, match="needs 0 MB"):
        store.cache.tensors("features", "f", lambda: {"features": torch.ones(3)})
    assert len(store.everything()) == 1


def test_a_store_whose_name_is_no_utf_8_is_refused_before_any_work(tmp_path):
    with pytest.raises(StoreError, match=r"the store .*/caf\\xe9: its name is not in UTF-8") as caught:
        Store(tmp_path / os.fsdecode(b"caf\xe9"))
    assert "--store" in caught.value.hint
    assert Store(tmp_path / "café").root.name == "café"
