"""Locks: held by one process, for as long as it lives; refused where the file system has none."""

import errno
import fcntl
import os
import subprocess
import sys
from threading import Event, Thread

import pytest

from wisepatch.errors import StoreError
from wisepatch.locks import acquire, check_locks, locked, release
from wisepatch.store.checkpoints import Store

HOLD = "import sys; from pathlib import Path; from wisepatch.locks import acquire; acquire(Path(sys.argv[1]));"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.lock"


def test_a_lock_is_held_by_one_and_its_file_is_gone_afterwards(path):
    with locked(path) as taken:
        assert taken
        assert acquire(path, wait=False) is None
        with locked(path, wait=False) as again:
            assert not again
        assert path.exists()
    assert not path.exists()
    with locked(path, keep=True):
        pass
    assert path.exists()


def test_a_file_that_is_removed_while_others_wait_for_it_is_no_lock(path):
    """The one that waited holds the file that is there, not the one that is gone."""
    first, waits, held = acquire(path), Event(), []

    def wait():
        held.append(acquire(path, waits.set))

    waiter = Thread(target=wait)
    waiter.start()
    assert waits.wait(300)
    path.unlink()
    other = acquire(path, wait=False)  # a third one comes between
    assert other is not None
    release(first)
    waiter.join(0.1)
    assert held == []
    release(other)
    waiter.join(300)
    assert os.path.samestat(os.fstat(held[0]), path.stat())
    assert acquire(path, wait=False) is None
    release(held[0])


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_process_that_ends_lets_go(path, end):
    with subprocess.Popen([sys.executable, "-c", f"{HOLD} print(1, flush=True); input()", path],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # fmt: skip
        other.stdout.readline()
        assert acquire(path, wait=False) is None
        getattr(other, end)()
    release(acquire(path, wait=False))


def test_a_process_that_was_forked_does_not_hold_the_locks_of_its_parent(path):
    fork = f"{HOLD} import os, time; os.fork() or print(os.getpid(), flush=True) or time.sleep(600); input()"
    with subprocess.Popen([sys.executable, "-c", fork, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        child = int(other.stdout.readline())
        assert acquire(path, wait=False) is None
        other.kill()
        other.wait()
        try:
            release(acquire(path, wait=False))
        finally:
            os.kill(child, 9)


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_is_refused_by_name(tmp_path, monkeypatch, reason):
    def flock(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError) as caught:
        check_locks(tmp_path)
    assert caught.value.message == f"files in {tmp_path} cannot be locked: {os.strerror(reason)}"
    assert "flock" in caught.value.hint


@pytest.mark.parametrize("work", [
    lambda store: store.save(lambda _: pytest.fail("work"), kind="zeroshot", name="a", model={}),
    lambda store: store.cache.tensors("heads", "h", lambda: pytest.fail("work")),
])  # fmt: skip
def test_locks_that_keep_nobody_out_are_refused_before_any_work(tmp_path, monkeypatch, work):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with pytest.raises(StoreError, match="cannot be locked: a lock that is held does not keep others out"):
        work(Store(tmp_path / "store"))
    assert list((tmp_path / "store").rglob("*")) == []


def test_a_link_is_no_lock_file(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        acquire(path)
    assert not (tmp_path / "elsewhere").exists()
