"""Files and folders that are whole or not there: durable writes, publication by rename, locks, hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from wisepatch.errors import UsageError, WisepatchError

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

PARTIAL = ".partial-"  # begins the names of unfinished files and folders; the writer's process number follows
PARTIAL_NAME = re.compile(r"\.partial-(\d+)-.+")


def expanded(path: Path | str) -> Path:
    """Return a path with the home folder for ``~``. Raises :class:`UsageError` for that of a user who is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path} names the home folder of a user who is not there", "write out the path") from error


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file and wait until the disk has it."""
    from safetensors.torch import save_file

    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(copies, path, {"format": "pt"})
    path.chmod(0o644)  # safetensors writes files that only their owner can read
    sync_file(path)


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces ``path`` in one step at the end: a reader sees the old bytes or the new, also after a crash."""
    partial = partial_path(path.parent)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder for something unfinished, which is removed at the end unless it was renamed."""
    folder = partial_path(parent)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def partial_path(folder: Path) -> Path:
    """Return a new name in ``folder`` for something unfinished, ``.partial-<process>-<random>``."""
    return folder / f"{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}"


def is_leftover(path: Path) -> bool:
    """Tell whether ``path`` has the name of something unfinished and no other living process of this machine writes it."""
    match = PARTIAL_NAME.fullmatch(path.name)
    return match is not None and (int(match[1]) == os.getpid() or not is_running(int(match[1])))


def publish(partial: Path, folder: Path, is_whole: Callable[[], bool]) -> bool:
    """Rename a finished folder into place; return ``False`` where a whole one was there already, which is kept.

    One that is not whole is moved aside by a rename, and removed at the end. Hold a lock meanwhile.
    """
    published = True
    try:
        partial.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        published = not is_whole()
        if published:
            aside = partial_path(folder.parent)
            folder.rename(aside)
            published = publish(partial, folder, is_whole)
            remove(aside)
    sync_folder(folder.parent)
    return published


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; one that is gone already is no error."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def locked(path: Path, waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``, calling ``waiting`` where another process has it; one that ends lets go, however it ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting:
            waiting()
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def remove_stale_lock(path: Path) -> bool:
    """Remove a lock file that no process holds; return whether it is gone now."""
    from filelock import FileLock, Timeout

    with suppress(Timeout), FileLock(path, timeout=0):
        path.unlink(missing_ok=True)
        return True
    return False


@contextmanager
def refused(what: str, kind: type[WisepatchError], hint: str) -> Iterator[None]:
    """Turn an operating system's refusal to write into an error of class ``kind`` that names what cannot be written and why."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise kind(f"{what} cannot be written: {getattr(error, 'strerror', None) or error}", hint) from error


def drawing(path: Path) -> AbstractContextManager[None]:
    """Raise :class:`UsageError` where the picture ``path`` cannot be written."""
    return refused(f"the picture {path}", UsageError, "name another with --output")


def is_running(process: int) -> bool:
    """Tell whether a process of this machine lives."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError, PermissionError) as error:
        return isinstance(error, PermissionError)  # another user's
    return True


def sync_file(path: Path) -> None:
    """Wait until the disk has the bytes of a file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in ``folder``."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hash the bytes of a file; hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tensors(tensors: Tensors) -> str:
    """Hash names, types, shapes and bytes of tensors, on every core; hexadecimal."""
    import torch

    def hash_one(name: str) -> bytes:
        tensor = tensors[name].detach().cpu().contiguous()
        digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.digest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib lets other threads run meanwhile
        return hashlib.sha256(b"".join(pool.map(hash_one, sorted(tensors)))).hexdigest()
