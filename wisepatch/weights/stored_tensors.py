"""Tensors that lie in a file: where their numbers are, and how much may be read of it."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wisepatch.pickles import MAX_USES, SPARE_BYTES

if TYPE_CHECKING:
    import torch

# Parts of instructions: seconds, and less than a GB. A whole CLIP with its optimizer takes a tenth.
MAX_READS = 5_000_000
VIEW_BYTES = 4096  # runs of bytes from this size on stay in the file


@dataclass
class Storage:
    """A run of numbers of one type; ``data`` are its bytes, once the file was read that far."""

    dtype: str
    count: int
    source: File
    data: memoryview | None = None
    load: Callable[[], memoryview] | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that lies in a file: its storage, first element, shape and strides."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self) -> torch.Tensor:
        """Return a copy of the numbers. Raises :class:`pickle.UnpicklingError` where the file does not hold all of them."""
        import torch

        storage = self.storage
        dtype = getattr(torch, storage.dtype)
        used = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)) + 1
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=dtype)
        if self.offset + used > storage.count or math.prod(self.shape) > storage.count:
            raise pickle.UnpicklingError(f"it promises a tensor {self.shape} and holds {storage.count} numbers for it")
        storage.source.promise(math.prod(self.shape) * dtype.itemsize)
        if storage.data is None and storage.load is not None:
            storage.data = storage.load()
        size = dtype.itemsize
        if storage.data is None or len(storage.data) < storage.count * size:
            held = 0 if storage.data is None else len(storage.data)
            raise pickle.UnpicklingError(f"it promises {storage.count * size:,} bytes of numbers and holds {held:,}")
        bytes_read = bytearray(storage.data[self.offset * size : (self.offset + used) * size])  # PyTorch writes to it
        return torch.frombuffer(bytes_read, dtype=dtype).as_strided(self.shape, self.strides).contiguous()


class File:
    """The bytes of a file, how much was read of it, and how much memory its tensors take."""

    def __init__(self, data: memoryview, size: int | None = None) -> None:
        """Take the bytes; ``size`` is that of the whole file."""
        self.data, self.position, self.reads, self.promised = data, 0, 0, 0
        self.size = len(data) if size is None else size

    def promise(self, size: int) -> None:
        """Count memory that is about to be taken; a file that asks for much more than it holds is refused before."""
        self.promised += size
        if self.promised > MAX_USES * self.size + SPARE_BYTES:
            raise pickle.UnpicklingError(
                f"its tensors take {self.promised:,} bytes and more, and it holds {self.size:,}"
            )

    def read(self, size: int) -> Any:
        """Return the next ``size`` bytes, large ones as a view. Raises :class:`pickle.UnpicklingError` where there are fewer."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise pickle.UnpicklingError("it has more parts than any model")
        part = self.data[self.position : self.position + size]
        if size < 0 or len(part) < size:
            raise pickle.UnpicklingError(f"it promises {size:,} bytes and ends after {len(part):,}: it was cut off")
        self.position += size
        return part if size >= VIEW_BYTES else bytes(part)

    def readline(self) -> bytes:
        """Return the bytes up to the end of the line."""
        parts, end = [], b""
        while not end and self.position < len(self.data):
            line, end, _ = bytes(self.data[self.position : self.position + VIEW_BYTES]).partition(b"\n")
            parts += [line, end]
            self.position += len(line) + len(end)
        self.reads += 1
        return b"".join(parts)
