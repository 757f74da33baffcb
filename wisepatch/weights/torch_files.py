"""Read files of PyTorch's without PyTorch's loader: tensors, plain values, and placeholders for all else; nothing in them is run.

``torch.save`` writes a zip with ``data.pkl`` and a record for each storage (TorchScript archives are such zips too), before version
1.6 several pickles in a row with the numbers behind them; ``pickle.dump`` of a module puts such a row into the pickle for each
tensor. Numbers are read from the file's memory map, and only when :meth:`StoredTensor.read` asks for them.
"""

from __future__ import annotations

import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wisepatch.errors import ModelError
from wisepatch.pickles import MAX_SHOWN, shown
from wisepatch.weights.restricted_unpickler import Name, TensorUnpickler
from wisepatch.weights.stored_tensors import File, Storage

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what files of before PyTorch 1.6 begin with
ZIP = b"PK\x03\x04"
MAX_DIRECTORY_BYTES = 16_000_000  # of a zip: that of a CLIP with its optimizer has a hundredth
DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
UNREADABLE = "give a .safetensors file, or what torch.save or pickle.dump wrote of a model or its state_dict"


def read_torch_file(path: Path) -> Any:
    """Return what a file of ``torch.save`` or ``pickle.dump`` holds: dicts, lists, values, tensors that stay in it, placeholders.

    Raises :class:`ModelError` that names the file, and what it asks for where that is code.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read: {reason}", "name a file that is there and may be read") from error
    with said_of(path):
        if not size:
            raise pickle.UnpicklingError("it is empty")
        return read_container(File(data))


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """Turn whatever is wrong with a file into a :class:`ModelError` that names it; errors for users pass."""
    try:
        yield
    except (ModelError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} cannot be read: {error}", UNREADABLE) from error
    except Exception as error:
        # A broken file leaves instructions without operands: errors of any kind.
        raise ModelError(f"{path} cannot be read: it is cut off, or another kind of file", UNREADABLE) from error


def read_container(file: File) -> Any:
    """Read one of the three forms."""
    if bytes(file.data[:4]) == ZIP:
        return _read_zip(file)
    first = TensorUnpickler(file, load_bytes=_read_storage).load()
    return _read_row(file, _read_storage) if type(first) is int and first == MAGIC else first


def _read_storage(file: File) -> Any:
    """Read the storage within a pickle: a row with nothing but it."""
    if bytes(file.data[:4]) == ZIP:
        raise pickle.UnpicklingError("it holds a zip within a storage")
    return _read_row(file) if TensorUnpickler(file).load() == MAGIC else None


def _read_row(file: File, load_bytes: Callable[[File], Any] | None = None) -> Any:
    """Read what follows the magic number: protocol, machine, the object, the keys of its storages, and their numbers."""
    version, machine = (TensorUnpickler(file).load() for _ in range(2))
    if version != PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise pickle.UnpicklingError("it was written by another version of PyTorch, or another kind of machine")
    storages: dict[str, Storage] = {}

    def find(pid: tuple[Any, ...]) -> Storage:
        if len(pid) > 5 and pid[5] is not None:
            raise pickle.UnpicklingError("it holds a view of a storage, as PyTorch before 0.4 wrote them")
        return storages.setdefault(_key(pid), Storage(_dtype(pid[1]), _count(pid[4]), file))

    content = TensorUnpickler(file, find, load_bytes).load()
    keys = TensorUnpickler(file).load()
    for key in keys:
        storage = storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise pickle.UnpicklingError(f"it promises {storage.count} numbers and holds {count}")
        size = count * _item_size(storage.dtype)
        storage.data = file.data[file.position : file.position + size]
        file.position += len(storage.data)
        if len(storage.data) < size:
            raise pickle.UnpicklingError(
                f"it promises {size:,} bytes of numbers and ends after {len(storage.data):,}: it was cut off"
            )
    return content


def _read_zip(file: File) -> Any:
    """Read ``data.pkl`` of a zip; records are found in it when a tensor is read."""
    entries = {entry.filename: entry for entry in _directory(file)}
    names = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise pickle.UnpicklingError("it is a zip without PyTorch's data.pkl: unpack it, and give what is in it")
    folder = names[0].removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order and bytes(_record(file, order)) != b"little":
        raise pickle.UnpicklingError("its numbers are big-endian")
    storages: dict[str, Storage] = {}

    def find(pid: tuple[Any, ...]) -> Storage:
        key = _key(pid)
        entry = entries.get(f"{folder}data/{key}")
        if entry is None:
            raise pickle.UnpicklingError(f"it has no record {shown(key)}, which it names")
        load = lambda: _record(file, entry)  # noqa: E731 -- bound to this entry
        return storages.setdefault(key, Storage(_dtype(pid[1]), _count(pid[4]), file, load=load))

    inner = File(memoryview(_record(file, entries[names[0]])), file.size)
    return TensorUnpickler(inner, find, _read_storage).load()


def _directory(file: File) -> Iterable[zipfile.ZipInfo]:
    class Bytes:
        """The bytes as a file that is read only, without a copy."""

        def __init__(self) -> None:
            self.position = 0

        def seek(self, offset: int, whence: int = 0) -> int:
            start = (0, self.position, len(file.data))[whence]
            self.position = max(start + offset, 0)
            return self.position

        def tell(self) -> int:
            return self.position

        def seekable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            end = len(file.data) if size < 0 else self.position + size
            part = file.data[self.position : end]
            if len(part) > MAX_DIRECTORY_BYTES:
                raise pickle.UnpicklingError("it has more parts than any model")
            self.position += len(part)
            return bytes(part)

    archive: Any = Bytes()
    with zipfile.ZipFile(archive) as content:
        return content.infolist()


def _record(file: File, entry: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of a record, which PyTorch never compresses, checked by their checksum where there is one."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
        raise pickle.UnpicklingError(f"its part {entry.filename!r} is compressed, and PyTorch compresses nothing")
    header = bytes(file.data[entry.header_offset : entry.header_offset + 30])
    if len(header) < 30 or header[:4] != ZIP:
        raise pickle.UnpicklingError(f"its part {entry.filename!r} is not where its directory says")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + 30 + name_length + extra_length
    data = file.data[start : start + entry.file_size]
    if len(data) < entry.file_size:
        raise pickle.UnpicklingError(
            f"its part {entry.filename!r} promises {entry.file_size:,} bytes and has {len(data):,}"
        )
    if entry.CRC and zlib.crc32(data) != entry.CRC:
        raise pickle.UnpicklingError(f"its part {entry.filename!r} is damaged")
    return data


def _key(pid: tuple[Any, ...]) -> str:
    if not isinstance(pid[2], str):
        raise pickle.UnpicklingError("it names a storage by no text")
    return pid[2]


def _count(count: Any) -> int:
    if type(count) is not int or not 0 <= count < 2**48:
        raise pickle.UnpicklingError("it holds a storage whose size is none")
    return count


def _dtype(kind: Any) -> str:
    path = kind.path if isinstance(kind, Name) else ""
    dtype = DTYPES.get(path.rpartition(".")[2].removesuffix("Storage"))
    if not path.startswith("torch.") or dtype is None:
        raise pickle.UnpicklingError(
            f"it holds numbers of the type {path[:MAX_SHOWN] or shown(kind)}, which is not known here"
        )
    return dtype


def _item_size(dtype: str) -> int:
    import torch

    size: int = getattr(torch, dtype).itemsize
    return size
