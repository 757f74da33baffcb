"""A folder that many processes share as a store: its mark, its lock, and leases on what running processes use.

Each process has a lease, a file ``in-use/<random>`` that it holds locked until it ends, with one line for each checkpoint (its id)
and each cache entry (``kind/digest``) that it uses. Whatever publishes or removes holds the lock of the store meanwhile.
"""

from __future__ import annotations

import atexit
import errno
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wisepatch.errors import StoreError
from wisepatch.files import refused, seal, unseal, write_durably
from wisepatch.locks import LOCK, acquire, check_locks, locked, release

SCHEMA = 2
MARK = "wisepatch-store.json"  # in the root of a store
LEASES = "in-use"
HINT = "name another folder with --store or WISEPATCH_STORE, or free space there"
# A store that can be read and not written, and a full disk, are no reason not to read.
NO_LEASE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class NewerStoreError(StoreError):
    """A store or manifest that a newer wisepatch wrote."""


def check_schema(path: Path, schema: object) -> None:
    """Raise :class:`NewerStoreError` where a file names a newer schema."""
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerStoreError(f"{path} was written by a newer wisepatch (schema {schema})", "upgrade wisepatch")


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Make and mark the store ``root``, and turn a refusal to write into a :class:`StoreError` that names it.

    Raises :class:`NewerStoreError` for a store of a newer schema, and :class:`StoreError` where files cannot be locked.
    """
    with refused(f"the store {root}", StoreError, HINT):
        if not is_marked(root):
            root.mkdir(parents=True, exist_ok=True)
            check_locks(root.resolve())
            write_durably(root / MARK, seal({"schema": SCHEMA}))
        check_locks(root.resolve())
        yield


def is_marked(root: Path) -> bool:
    """Tell whether a folder is marked as a store. Raises :class:`NewerStoreError` for a mark of a newer schema."""
    try:
        mark = unseal((root / MARK).read_bytes())
    except (OSError, ValueError, RecursionError):  # a damaged mark is written again
        return False
    check_schema(root / MARK, mark.get("schema"))
    return True


@contextmanager
def store_lock(root: Path) -> Iterator[None]:
    """Let no other process publish or remove anything in the store meanwhile."""
    with locked(root / LOCK, keep=True):
        yield


def next_moment(root: Path) -> str:
    """Return a time that grows from call to call in this store, also where the clocks of hosts differ; hold the store's lock."""
    now = datetime.now(UTC)
    with suppress(ValueError, TypeError, OverflowError):  # empty, or cut short
        now = max(now, datetime.fromisoformat((root / LOCK).read_text()) + timedelta(microseconds=1))
    (root / LOCK).write_text(now.isoformat())
    return now.isoformat()


@dataclass
class Lease:
    """Hold the open file that names what this process uses in one store."""

    path: Path
    handle: int
    names: set[str] = field(default_factory=set)

    def is_there(self) -> bool:
        """Tell whether the file is still in the store."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(self.handle), self.path.stat())
        return False


_leases: dict[Path, Lease] = {}  # of this process, by the root of the store
os.register_at_fork(after_in_child=_leases.clear)


@atexit.register
def _end_leases() -> None:
    for lease in _leases.values():
        with suppress(OSError):
            lease.path.unlink()
        release(lease.handle)
    _leases.clear()


def use(root: Path, name: str) -> None:
    """Keep ``rm`` and ``gc`` of other processes from removing a checkpoint or cache entry until this process ends.

    What was removed a moment before is gone: look afterwards. Raises :class:`StoreError` where files cannot be locked; in a
    store that cannot be written nothing is held.
    """
    root = root.resolve()
    lease = _leases.get(root)
    if (lease and name in lease.names and lease.is_there()) or not _may_be_written(root):
        return
    try:
        with store_lock(root):
            add_to_lease(root, name)
    except OSError as error:
        if error.errno not in NO_LEASE:
            raise StoreError(f"the store {root} cannot be written: {error.strerror or error}", HINT) from error


def _may_be_written(root: Path) -> bool:
    """Tell whether a folder is a store of this schema: a checkpoint may lie in any folder, which is not to be touched."""
    try:
        return is_marked(root)
    except NewerStoreError:
        return False


def add_to_lease(root: Path, name: str) -> None:
    """Do what :func:`use` does, for a caller that holds the lock of the store."""
    root = root.resolve()
    lease = _leases.get(root)
    if lease is None or not lease.is_there():
        lease = _leases[root] = _new_lease(root)
    if name not in lease.names:
        os.lseek(lease.handle, 0, os.SEEK_END)
        os.write(lease.handle, f"{name}\n".encode())
        lease.names.add(name)


def _new_lease(root: Path) -> Lease:
    path = root / LEASES / secrets.token_hex(8)
    path.parent.mkdir(exist_ok=True)
    handle = acquire(path)
    assert handle is not None
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return Lease(path, handle)


def used_by_others(root: Path) -> dict[str, str]:
    """Return what other running processes use, and which process does; leases of those that ended are removed.

    Hold the lock of the store meanwhile.
    """
    root = root.resolve()
    own = _leases.get(root)
    used: dict[str, str] = {}
    for path in (root / LEASES).glob("[!.]*"):
        if own is None or path != own.path:
            with locked(path, wait=False) as ended:
                if not ended:
                    holder, *names = path.read_text(encoding="utf-8", errors="replace").splitlines() or ["a process"]
                    used |= dict.fromkeys(names, holder)
    return used
