"""Files and folders that are whole or not there: durable writes, publication by rename, seals, hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from wisepatch.errors import StoreError, UsageError, WisepatchError
from wisepatch.locks import LOCK, locked

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

PARTIAL = ".wisepatch-partial-"  # begins the names of unfinished files and folders
PARTIAL_NAME = re.compile(r"\.wisepatch-partial-[0-9a-f]{8}")
OLDER_PARTIAL_NAME = re.compile(r"\.partial-\d+-[0-9a-f]{8}")  # of 0.1.0, in stores alone
SEAL = "sha256"
HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # of characters; the others stand for bytes of a file's name


def expanded(path: Path | str) -> Path:
    """Return a path with the home folder for ``~``. Raises :class:`UsageError` for that of a user who is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path} names the home folder of a user who is not there", "write out the path") from error


def in_utf8(name: str) -> str:
    r"""Return the name of a file, or a word of the command line, as the text that it is in UTF-8, whatever the locale.

    Bytes that are none, and halves of characters, are written out as Python does: ``caf\xe9``.
    """
    try:
        return name if name.isascii() else os.fsencode(name).decode()
    except UnicodeError:
        errors = "backslashreplace" if HALVES.search(name) else "surrogateescape"
        return name.encode(errors=errors).decode(errors="backslashreplace")


def as_file_name(text: str) -> str:
    """Encode a name anew, so that functions of ``os`` open the file whose name is ``text`` in UTF-8, whatever the locale."""
    return text if text.isascii() else os.fsdecode(text.encode(errors="surrogateescape"))


def is_utf8(name: str) -> bool:
    """Tell whether the bytes of the name of a file are UTF-8."""
    return as_file_name(in_utf8(name)) == name


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file and wait until the disk has it; copied in memory are only tensors that share some."""
    from safetensors.torch import save_file

    written: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in places:  # which safetensors refuses
            own = own.clone()
        places.add(own.untyped_storage().data_ptr())
        written[name] = own
    save_file(written, path, {"format": "pt"})
    path.chmod(0o644)  # safetensors writes files that only their owner can read
    sync_file(path)


def set_aside(tensors: Tensors, folder: Path) -> Tensors:
    """Return the same tensors as pages of a file in ``folder``, which the system may take from memory; nobody else sees the file.

    Where none can be written they stay as they are.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    with suppress(OSError, SafetensorError), partial_path(folder) as path:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return load_file(path)
    return tensors


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step; see :func:`replacing`."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that replaces ``path`` in one step at the end: a reader sees the old bytes or the new, also after a crash."""
    with partial_path(path.parent) as partial:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    sync_folder(path.parent)


@contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder for something unfinished, which is removed at the end unless it was renamed."""
    with partial_path(parent) as folder:
        folder.mkdir()
        yield folder


@contextmanager
def partial_path(folder: Path) -> Iterator[Path]:
    """Yield a new name in ``folder`` for something unfinished; what still has it at the end is removed.

    A lock file beside it is held meanwhile, so that :func:`remove_leftovers` in another process, container or host leaves it alone.
    """
    path = folder / f"{PARTIAL}{secrets.token_hex(4)}"
    with locked(_lock_of(path)):
        try:
            yield path
        finally:
            with suppress(OSError):
                remove(path)


def _lock_of(partial: Path) -> Path:
    return partial.with_name(partial.name + LOCK)


def remove_leftovers(folder: Path, *, older: bool = False) -> list[Path]:
    """Remove what writers that ended have left unfinished in ``folder``, and return it; what is being written is locked and stays.

    ``older`` takes the names of wisepatch 0.1.0 for leftovers too, which other programs may use.
    """
    gone = []
    names = {name.removesuffix(LOCK) for name in os.listdir(folder)} if folder.is_dir() else set()  # noqa: PTH208 -- faster
    for path in (folder / name for name in sorted(names) if name.startswith((PARTIAL, ".partial-"))):
        if PARTIAL_NAME.fullmatch(path.name) or (older and OLDER_PARTIAL_NAME.fullmatch(path.name)):
            with locked(_lock_of(path), wait=False) as taken:
                if taken:
                    gone.append(path if os.path.lexists(path) else _lock_of(path))
                    remove(path)
    return gone


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
            with partial_path(folder.parent) as aside:
                folder.rename(aside)
                published = publish(partial, folder, is_whole)
    sync_folder(folder.parent)
    return published


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; one that is gone already is no error."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def remove_at_once(path: Path) -> None:
    """Remove as :func:`remove` does, but a folder in one step for all who look, and where this process is killed meanwhile."""
    with suppress(FileNotFoundError), partial_path(path.parent) as aside:
        path.rename(aside)
        sync_folder(path.parent)
        remove(aside)


def check_room(path: Path, size: int, hint: str = "free space there, or name another place") -> None:
    """Raise :class:`StoreError` where the disk on which ``path`` lies, or will lie, has less than ``size`` bytes free."""
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise StoreError(f"{path} needs {size / 1e6:,.0f} MB, and its disk has {free / 1e6:,.0f} MB free", hint)


def is_file(path: Path) -> bool:
    """Tell whether a file is there; not where its folder may not be looked into, or its name is too long."""
    return os.path.isfile(path)  # noqa: PTH113 -- that of Path raises in both cases, before Python 3.14


def is_folder(path: Path) -> bool:
    """Tell whether a folder is there, as :func:`is_file` does."""
    return os.path.isdir(path)  # noqa: PTH112 -- as above


@contextmanager
def refused(what: str, kind: type[WisepatchError], hint: str) -> Iterator[None]:
    """Turn an operating system's refusal to write into an error of class ``kind`` that names what cannot be written and why."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise kind(f"{what} cannot be written: {getattr(error, 'strerror', None) or error}", hint) from error


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Raise :class:`OSError` where a file (or a folder to write into) cannot be made or replaced at ``path``; nothing is left."""
    if path.exists() and path.is_dir() != folder:
        wrong = IsADirectoryError if path.is_dir() else NotADirectoryError
        number = errno.EISDIR if path.is_dir() else errno.ENOTDIR
        raise wrong(number, os.strerror(number), str(path))
    if path.is_file() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    there = path if folder else path.parent
    while not there.exists() and there != there.parent:
        there = there.parent
    with tempfile.TemporaryFile(dir=there):  # asks the disk itself: permissions do not tell of one that is read-only
        pass


def drawing(path: Path) -> AbstractContextManager[None]:
    """Raise :class:`UsageError` where the picture ``path`` cannot be written."""
    return refused(f"the picture {path}", UsageError, "name another with --output")


def seal(record: Mapping[str, Any], indent: int | None = 2) -> bytes:
    """Return a record as JSON, with the sha256 of its bytes (without these 64 letters) as its last field."""
    before, empty, after = json.dumps({**record, SEAL: ""}, indent=indent).rpartition('""')
    digest = hashlib.sha256(f"{before}{empty}{after}".encode()).hexdigest()
    return f'{before}"{digest}"{after}'.encode()


def unseal(data: bytes) -> dict[str, Any]:
    """Read a record; one without a seal was written before there were any.

    Raises :class:`ValueError` for what is no JSON object, and where one bit differs from what was sealed.
    """
    record = json.loads(data)
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    if SEAL in record:
        digest = record.pop(SEAL)
        before, found, after = data.rpartition(str(digest).encode() or b"\0")
        if not found or hashlib.sha256(before + after).hexdigest() != digest:
            raise ValueError(f"it is damaged: it does not have the {SEAL} that it names")
    return record


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
