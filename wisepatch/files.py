"""Files that are whole or not there: durable writes, and hashes of files and tensors."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wisepatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

    from wisepatch.errors import WisepatchError

    Tensors = Mapping[str, torch.Tensor]

PARTIAL = ".partial-"  # how the names of unfinished files and folders begin


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file and wait until the disk has it."""
    from safetensors.torch import save_file

    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path, {"format": "pt"}
    )
    path.chmod(0o644)  # safetensors writes files that only their owner can read
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step: whoever reads sees the old bytes or the new ones, also after a crash."""
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


@contextmanager
def refused(what: str, kind: type[WisepatchError], hint: str) -> Iterator[None]:
    """Turn an operating system's refusal to write into one line of that kind, which names what cannot be written and why."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what} cannot be written: {error.strerror or error}", hint) from error


def drawing(path: Path) -> AbstractContextManager[None]:
    """Raise :class:`UsageError` where the picture ``path`` cannot be written."""
    return refused(f"the picture {path}", UsageError, "name another with --output")


def is_running(process: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in ``folder``."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tensors(tensors: Tensors) -> str:
    """One sha256 over the hashes of names, types, shapes and bytes of some tensors, which every core helps to take."""
    import torch

    def one(name: str) -> bytes:
        tensor = tensors[name].detach().cpu().contiguous()
        digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.digest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib lets others run meanwhile
        return hashlib.sha256(b"".join(pool.map(one, sorted(tensors)))).hexdigest()
