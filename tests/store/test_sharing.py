"""Leases: what a running process uses is removed by no other; stores that cannot be written are read."""

import errno
import os
import shutil
import subprocess
import sys

import pytest
import torch

from wisepatch.errors import StoreError
from wisepatch.store import sharing
from wisepatch.store.checkpoints import MANIFEST, Recipe, Store

MODEL = {"model": "demo", "pretrained": ""}
USE = """
import sys
from wisepatch.store.checkpoints import Store

store = Store(sys.argv[1])
{}
print("uses it", flush=True)
input()
"""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def save(store, value=1.0, name="start", **more):
    return store.save({"w": torch.full((3,), value)}, kind="zeroshot", name=name, model=MODEL, **more)


def mix(store, *parents, name="mix"):
    recipe = Recipe("linear", tuple(parent.id for parent in parents), {"alpha": 0.5})
    return store.save(None, kind="interpolated", name=name, model=MODEL, recipe=recipe)


def using(store, code):
    process = subprocess.Popen(
        [sys.executable, "-c", USE.format(code), str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "uses it\n"
    return process


@pytest.mark.parametrize("word", ["start", "zeroshot", "id", "path"])
def test_a_checkpoint_that_a_running_process_uses_is_not_removed(store, word):
    start = save(store)
    reference = {"id": start.id[:5], "path": str(start.home)}.get(word, word)
    with using(store, f"store.find({reference!r})") as other:
        with pytest.raises(StoreError) as caught:
            store.remove([start])
        assert caught.value.message.startswith(f"{start.id} (start) is used by process {other.pid} on ")
        assert "wait" in caught.value.hint
        assert store.everything() == [start]
        other.kill()
    assert store.remove([start]) == [start]
    assert store.everything() == []


def test_what_a_recipe_in_use_is_mixed_from_stays_with_it(store):
    start, end = save(store), save(store, 2.0, "end")
    recipe = mix(store, start, end)
    with using(store, "store.find('mix')") as other:
        with pytest.raises(StoreError, match=rf"{recipe.id} \(mix\) is used by process"):
            store.remove([start], with_recipes=True)
        assert len(store.everything()) == 3
        other.communicate("\n")
    assert len(store.remove([start], with_recipes=True)) == 2
    assert list((store.root / sharing.LEASES).iterdir()) == [sharing._leases[store.root].path]


def test_what_a_process_has_saved_is_in_use_until_it_ends(store):
    save(store)
    code = "store.save(None, kind='x', name='new', model={}, recipe=__import__('wisepatch').Recipe('m', ('0' * 12,)))"
    with using(store, code) as other:
        with pytest.raises(StoreError, match="is used by process"):
            store.remove([store.look_up("new")])
        assert store.collect_garbage() == []  # its parents are gone
        other.communicate("\n")
    assert len(store.collect_garbage()) == 1


def test_a_cache_entry_that_a_running_process_uses_is_not_collected(store):
    for digest in ("a" * 32, "b" * 32):
        for kind in ("features", "fisher"):
            store.cache.tensors(kind, digest, lambda: {"w": torch.ones(2)})
    with using(store, "store.cache.find('features', 'a' * 32); store.cache.find('fisher', 'a' * 32)") as other:
        gone = store.collect_garbage(caches=True)
        assert {path.name for path in gone} == {"b" * 32}
        assert len(gone) == 2
        other.communicate("\n")
    assert {path.name for path in store.collect_garbage(caches=True)} == {"a" * 32}


def test_looking_up_what_is_to_be_removed_is_no_use_of_it(store):
    start = save(store)
    with using(store, "store.look_up('start'); store.everything(); store.look_up_damaged('start')"):
        assert store.remove([start]) == [start]


def test_one_that_is_removed_between_look_up_and_use_is_not_found(store, monkeypatch):
    start, end = save(store), save(store, 2.0, "end")
    use = sharing.use

    def removed_before(root, name):
        if name == end.id and end.home.exists():
            shutil.rmtree(end.home)
        use(root, name)

    monkeypatch.setattr("wisepatch.store.references.use", removed_before)
    assert store.find("zeroshot") == start


def test_nothing_is_written_beside_a_checkpoint_that_lies_in_no_store(store, tmp_path):
    start = save(store)
    copy = shutil.copytree(start.home, tmp_path / "elsewhere" / "deep" / start.id)
    assert store.find(str(copy)).home == copy
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*") if path.is_dir()] == ["deep", start.id]


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_store_that_cannot_be_written_is_read(store, monkeypatch, reason):
    start = save(store)
    sharing._end_leases()

    def refuse(*_, **__):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(sharing, "acquire", refuse)
    assert store.find("start") == start
    monkeypatch.undo()
    monkeypatch.setattr(sharing, "write_durably", refuse)
    monkeypatch.setattr("wisepatch.files.write_durably", refuse)
    (store.root / sharing.MARK).unlink()
    assert store.remove([start]) == [start]  # a full disk can be emptied


def test_a_disk_that_fails_is_an_error(store, monkeypatch):
    save(store)
    sharing._end_leases()

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sharing, "_new_lease", fail)
    with pytest.raises(StoreError, match="cannot be written: Input/output error"):
        store.find("start")


def test_a_store_that_was_replaced_under_a_process_is_leased_again(store):
    start = save(store)
    shutil.rmtree(store.root)
    save(store)
    assert (store.root / sharing.LEASES / sharing._leases[store.root].path.name).read_text().split("\n")[1] == start.id


def test_a_damaged_mark_is_written_again_and_no_newer_schema(store):
    save(store)
    mark = store.root / sharing.MARK
    sealed = mark.read_bytes()
    for bit in range(8):
        place = sealed.index(b"2")
        mark.write_bytes(sealed[:place] + bytes([sealed[place] ^ 1 << bit]) + sealed[place + 1 :])
        assert not sharing.is_marked(store.root)
    save(store, 3.0)
    assert mark.read_bytes() == sealed
    assert (store.look_up("start").home / MANIFEST).is_file()


def test_the_newest_is_the_last_that_was_saved_whatever_the_clocks_of_the_hosts(store):
    save(store, 1.0, "first")
    (store.root / ".lock").write_text("2999-01-01T00:00:00+00:00")  # by a host whose clock is ahead
    for value in (2.0, 3.0, 4.0):
        saved = save(store, value, "later")
        assert store.find("zeroshot") == saved
    assert saved.created == "2999-01-01T00:00:00.000003+00:00"


@pytest.mark.parametrize(
    "content", [b"", b"2026-11", b"\xff", b"9999-12-31T23:59:59.999999+00:00", b"2026-01-01T00:00:00"]
)
def test_a_lock_that_says_nothing_of_the_time_stops_nothing(store, content):
    save(store)
    (store.root / ".lock").write_bytes(content)
    assert save(store, 2.0).created > "2026"
