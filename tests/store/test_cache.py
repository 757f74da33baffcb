"""The cache: hashed when it is read, made by one process, made again where it is damaged."""

import json
import subprocess
import sys
from threading import Event, Thread

import pytest
import torch

from wisepatch.errors import DataError, StoreError
from wisepatch.files import sha256, unseal
from wisepatch.store.cache import ENTRY, TENSORS, versions
from wisepatch.store.checkpoints import Store
from wisepatch.store.sharing import MARK

HEAD = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


class Maker:
    """Makes a head, and counts how often."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return {"weight": HEAD.T}


def head(store, make, notes=None):
    return store.cache.tensors("heads", "h", make, note=notes.append if notes is not None else None)["weight"]


def flip_bit(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_tensors_are_made_once_and_read_back(store):
    make = Maker()
    assert store.cache.find("heads", "h") is None
    assert all(torch.equal(head(store, make), HEAD.T) for _ in range(3))
    assert make.count == 1
    folder = store.root / "cache" / "heads" / "h"
    assert store.cache.find("heads", "h") == folder
    assert sorted(path.name for path in folder.iterdir()) == [ENTRY, TENSORS]
    assert [path.name for path in folder.parent.iterdir()] == ["h"]
    assert unseal((folder / ENTRY).read_bytes()) == {"files": {TENSORS: sha256(folder / TENSORS)}, "about": {}}
    assert (store.root / MARK).is_file()
    assert store.cache.problems() == []


@pytest.mark.parametrize("name", [TENSORS, ENTRY])
@pytest.mark.parametrize("offset", [0, 30, 60, -1])
def test_one_flipped_bit_is_noticed_and_the_entry_is_made_again(store, name, offset):
    make, notes = Maker(), []
    head(store, make)
    path = store.root / "cache" / "heads" / "h" / name
    flip_bit(path, offset)
    if store.cache.find("heads", "h"):  # white space of the JSON
        pytest.skip("the bit carries nothing")
    (problem,) = store.cache.problems()
    assert str(path.parent) in problem
    assert torch.equal(head(store, make, notes), HEAD.T)
    assert (make.count, notes) == (2, [f"{problem}: it is made again"])
    assert store.cache.problems() == []
    assert [each.name for each in path.parent.parent.iterdir()] == ["h"]


@pytest.mark.parametrize(
    "content", [b"", b"rubbish" * 20, b"\xff" * 100, b"[]", b'{"files": {}}', b'{"files": 7}', None]
)
@pytest.mark.parametrize("name", [TENSORS, ENTRY])
def test_an_entry_that_is_not_whole_is_made_again(store, name, content):
    make = Maker()
    head(store, make)
    path = store.root / "cache" / "heads" / "h" / name
    path.write_bytes(content) if content is not None else path.unlink()
    assert torch.equal(head(store, make), HEAD.T)
    assert make.count == 2
    assert torch.equal(head(store, make), HEAD.T)
    assert make.count == 2


def test_the_folders_of_older_stores_are_not_read(store):
    (store.root / "heads").mkdir(parents=True)
    (store.root / "heads" / "h.safetensors").write_bytes(b"from before")
    assert torch.equal(head(store, Maker()), HEAD.T)
    assert (store.root / "heads" / "h.safetensors").exists()


def test_a_folder_is_built_and_its_files_are_hashed(store):
    def build(folder):
        (folder / "a.bin").write_bytes(b"a")
        (folder / "b.bin").write_bytes(b"b")

    folder = store.cache.folder("pixels", "p", build, about={"split": "val"})
    entry = json.loads((folder / ENTRY).read_text())
    assert (set(entry["files"]), entry["about"]) == ({"a.bin", "b.bin"}, {"split": "val"})
    assert store.cache.folder("pixels", "p", pytest.fail) == folder
    assert store.cache.removable() == [folder]
    flip_bit(folder / "b.bin", 0)
    assert store.cache.find("pixels", "p") is None


def test_two_runs_at_once_make_an_entry_once(store):
    """The second one waits, says so, and takes what the first one has made."""
    begun, waited, made, results = Event(), Event(), [], []

    def make():
        made.append(True)
        begun.set()
        assert waited.wait(300)
        return {"weight": torch.ones(2)}

    def run(waiting=None):
        results.append(store.cache.tensors("heads", "h", make, waiting)["weight"])

    first = Thread(target=run)
    first.start()
    assert begun.wait(300)
    run(waiting=waited.set)
    first.join()
    assert made == [True]
    assert torch.equal(results[0], results[1])
    assert [path.name for path in (store.root / "cache" / "heads").iterdir()] == ["h"]


def test_a_lost_race_takes_the_whole_entry_that_is_there(store):
    """Where a lock does not hold (some file systems), the quicker process wins, and the slower one takes its entry."""
    folder = store.root / "cache" / "heads" / "h"

    def make():
        head(Store(store.root.parent / "elsewhere"), Maker())
        (store.root.parent / "elsewhere" / "cache" / "heads" / "h").rename(folder)
        (folder / "by another process").touch()
        return {"weight": HEAD.T}

    assert torch.equal(head(store, make), HEAD.T)
    assert (folder / "by another process").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["h"]


def test_a_process_that_is_killed_while_others_wait_gives_way(store):
    script = """
import sys, time
from wisepatch import Store

with Store(sys.argv[1]).cache.lock("heads", "h"):
    print("in", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline().strip() == b"in"
        tensors = store.cache.tensors("heads", "h", lambda: {"weight": torch.ones(2)}, waiting=other.kill)
    assert torch.equal(tensors["weight"], torch.ones(2))


def test_a_failure_leaves_nothing_and_lets_others_try(store):
    def fail():
        raise DataError("broken.jpg cannot be read")

    for _ in range(2):
        with pytest.raises(DataError):
            store.cache.tensors("features", "f", fail)
    assert list((store.root / "cache" / "features").iterdir()) == []


def test_fisher_information_is_named_by_digest_and_sha256(store):
    for digest in ("a" * 32, "b" * 32):
        store.cache.tensors("fisher", digest, Maker(), about={"examples": 8})
    files = [[digest, store.cache.sha256("fisher", digest)] for digest in ("a" * 32, "b" * 32)]
    paths = store.cache.fisher_paths(files)
    assert paths == tuple(store.root / "cache" / "fisher" / digest / TENSORS for digest, _ in files)
    flip_bit(paths[1], -1)
    with pytest.raises(StoreError, match=rf"{paths[1]} is not what the mix was made with") as caught:
        store.cache.fisher_paths(files)
    assert "interpolate --method fisher" in caught.value.hint
    paths[1].unlink()
    with pytest.raises(StoreError, match="is gone"):
        store.cache.fisher_paths(files)


def test_fisher_information_of_older_stores_is_found(store):
    path = store.root / "fisher" / f"{'a' * 32}.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"older")
    assert store.cache.fisher_paths([["a" * 32, sha256(path)]]) == (path,)
    store.cache.tensors("fisher", "a" * 32, Maker())  # another file of that name changes nothing
    assert store.cache.fisher_paths([["a" * 32, sha256(path)]]) == (path,)


def test_versions_are_those_of_wisepatch_and_the_named_packages():
    assert set(versions("pillow", "torchvision")) == {"wisepatch", "pillow", "torchvision"}
