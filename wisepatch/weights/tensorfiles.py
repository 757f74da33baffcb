"""Where tensors lie in safetensors files, whole or in shards (``model.safetensors.index.json``); read without torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wisepatch.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# As safetensors orders a file: these types one after the other, names by the alphabet.
SIZES = {
    "U64": 8, "I64": 8, "F64": 8, "F32": 4, "U32": 4, "I32": 4, "BF16": 2, "F16": 2, "U16": 2, "I16": 2,
    "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
ORDER = {dtype: place for place, dtype in enumerate(SIZES)}
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # what numpy calls them; it has no bf16
MOST_HEADER = 100_000_000  # as in safetensors


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its file, type and shape, and the first byte of its data."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.count * SIZES[self.dtype]


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Raises :class:`ModelError` for any other file."""
    try:
        whole = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(MOST_HEADER, whole - 8):
                raise ValueError("it does not begin with the length of a header")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        found = {name: _entry(path, name, about, 8 + length, whole) for name, about in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise ModelError(
            f"{path} is no safetensors file: {'it does not exist' if missing else error}",
            "give a whole .safetensors file, or the .index.json of one in shards",
        ) from error
    return found, metadata


def _entry(path: Path, name: str, about: Mapping[str, Any], data: int, whole: int) -> Entry:
    """Read what a header says of one tensor. Raises :class:`ValueError` and the like where it cannot be."""
    dtype, shape, (start, end) = about["dtype"], about["shape"], about["data_offsets"]
    if dtype not in SIZES:
        raise ValueError(f"{name} is of the type {dtype}, which is not known here")
    if any(type(number) is not int or number < 0 for number in (*shape, start, end)):
        raise ValueError(f"{name} has a shape or a place that is none")
    entry = Entry(path, dtype, tuple(shape), data + start)
    if entry.size != end - start:
        raise ValueError(f"{name} has not the size that its shape says")
    if data + end > whole:
        raise ValueError(f"it ends too soon, within {name}")
    return entry


def read_weights(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors and the metadata of a safetensors file, or of the shards that an ``.index.json`` names.

    Raises :class:`ModelError` for files that are none, and for an index that names a missing shard or tensor.
    """
    if path.suffix != ".json":
        return read_header(path)
    try:
        places: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        shards = {shard: path.parent / shard for shard in sorted(set(places.values()))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path} is no index of safetensors files: {error!r}", "it needs a weight_map: name of a tensor to file"
        ) from error
    headers = {shard: read_header(file) for shard, file in shards.items()}
    for name, shard in places.items():
        if name not in headers[shard][0]:
            raise ModelError(
                f"{path} says that {name} is in {shard}, which has no such tensor", "fetch the files again"
            )
    metadata = next(iter(headers.values()))[1] if headers else {}
    return {name: headers[shard][0][name] for name, shard in places.items()}, metadata


def file_header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    """What a safetensors file begins with: a length, JSON, spaces up to a multiple of eight."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = 0
    for name, entry in entries.items():
        place, start = place + entry.size, place
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [start, place]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
