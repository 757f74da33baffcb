"""Locks between processes, on ``flock`` alone: a lock is held as long as the process that took it lives, and not longer."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from wisepatch.errors import StoreError

LOCK = ".lock"  # ends the names of lock files

_handles: set[int] = set()


def _let_go() -> None:
    """Close the locks of the parent in a process that it forked: they would outlive the parent."""
    for handle in _handles:
        with suppress(OSError):
            os.close(handle)
    _handles.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(
    path: Path, waiting: Callable[[], object] | None = None, *, wait: bool = True, keep: bool = False
) -> Iterator[bool]:
    """Hold the lock file ``path``, calling ``waiting`` where another process has it; one that ends lets go, however it ends.

    Without ``wait``, yield ``False`` where another has it. The file is removed at the end, but for ``keep``. Raises
    :class:`StoreError` where the file system has no locks, and :class:`OSError` where the file cannot be opened.
    """
    handle = acquire(path, waiting, wait=wait)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        if not keep:
            with suppress(OSError):  # a lock file that nobody holds is no harm
                path.unlink()
        release(handle)


def acquire(path: Path, waiting: Callable[[], object] | None = None, *, wait: bool = True) -> int | None:
    """Return a handle that holds the lock file ``path``; see :func:`locked`, and :func:`release`."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            if not _take(handle, path, wait=False):
                if not wait:
                    return None
                if waiting:
                    waiting()
                _take(handle, path, wait=True)
            if _is_file_at(handle, path):
                _handles.add(handle)
                return handle
        finally:
            if handle not in _handles:
                os.close(handle)
        # Its last holder has removed it meanwhile: another process may hold a new file of that name.


def release(handle: int) -> None:
    """Let go of a lock."""
    _handles.discard(handle)
    with suppress(OSError):  # a process that was forked meanwhile holds none
        os.close(handle)


@cache
def check_locks(folder: Path) -> None:
    """Raise :class:`StoreError` where locks do not work in ``folder``: two processes could write one file at once."""
    path = folder / f".wisepatch-partial-{secrets.token_hex(4)}{LOCK}"
    with locked(path):
        check_held(path)


def check_held(path: Path) -> None:
    """Raise :class:`StoreError` where the lock file ``path``, which this process holds, does not keep others out."""
    other = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if _take(other, path, wait=False):
            raise _no_locks(path, "a lock that is held does not keep others out")
    finally:
        os.close(other)


def _take(handle: int, path: Path, *, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _no_locks(path, error.strerror or str(error)) from error
    return True


def _no_locks(path: Path, reason: str) -> StoreError:
    hint = "name a folder on a file system that knows flock"
    return StoreError(f"files in {path.parent} cannot be locked: {reason}", hint)


def _is_file_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False
