"""Merge files of weights into one, in blocks: memory does not grow with the model.

Reads memory-mapped safetensors, whole or in shards (``model.safetensors.index.json``), and writes one file, byte for byte the one
that :func:`~wisepatch.weights.methods.merge_weights` and :mod:`safetensors` make of the same parents.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import ModelError, StoreError, UsageError
from wisepatch.files import expanded, refused, replacing
from wisepatch.hookspecs import MergeMethod
from wisepatch.weights.built_in_methods import FISHER, LINEAR
from wisepatch.weights.methods import (
    Merge,
    blocks,
    check_same,
    merge_block,
    merged_dtype,
    survey,
    with_one_head,
)

if TYPE_CHECKING:
    from typing import BinaryIO

    import torch

    Tensors = dict[str, torch.Tensor]

# As safetensors orders a file: these types one after the other, names by the alphabet.
TYPE_NAMES = {
    "uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32", "int32": "I32", "bfloat16": "BF16",
    "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip

MAX_HEADER_BYTES = 100_000_000  # as safetensors itself has it
MAX_TENSORS = 50_000  # of a file: a second to read; the largest CLIPs have 2,000


def merge_files(
    theta_0: Path | str,
    theta_1: Path | str,
    alpha: float,
    output: Path | str,
    *,
    fishers: tuple[Path | str, Path | str] | None = None,
    keep: Callable[[str], bool] | None = None,
    digest: bool = True,
) -> str:
    """Write ``(1 - alpha) * theta_0 + alpha * theta_1`` to ``output``; see :func:`stream_weights`.

    Raises :class:`UsageError` for an ``alpha`` outside [0, 1], :class:`StoreError` where ``output`` cannot be written.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha {alpha} lies outside [0, 1]", "alpha 0 is the first file, 1 is the second")
    method, params = FISHER if fishers else LINEAR, {"alpha": alpha}
    first, second, merged, *weighed = map(expanded, (theta_0, theta_1, output, *(fishers or ())))
    with refused(str(merged), StoreError, "free space there, or name another place"):
        return stream_weights(
            method, (first, second), params, merged, fishers=weighed or None, keep=keep, digest=digest
        )


def stream_weights(
    method: MergeMethod,
    paths: Sequence[Path],
    params: Mapping[str, Any],
    output: Path,
    *,
    fishers: Sequence[Path] | None = None,
    keep: Callable[[str], bool] | None = None,
    digest: bool = True,
) -> str:
    """Merge files into the file ``output`` and return its sha256 (empty without ``digest``).

    ``fishers`` are files with the Fisher information of each parent; ``keep`` says by name which tensors are written. The files may
    be in other orders, shards and types; metadata follows the first. ``output`` is replaced in one step when the disk has all
    of it, and may be one of the inputs. Raises :class:`StoreError` as :func:`~wisepatch.weights.methods.check_same` does,
    :class:`ModelError` for files that are no safetensors, :class:`OSError` where ``output`` cannot be written.
    """
    contents, metadata = zip(*map(read_weights, paths), strict=True)
    whole = with_one_head(contents)
    parents = [{name: each[name] for name in each if keep is None or keep(name)} for each in whole]
    check_same(*parents, source="files")
    if method.survey:
        check_same(*whole, source="files")
    merge = Merge(method, params, [read_weights(path)[0] for path in fishers or ()], survey(method, whole, params))
    dtypes = {name: merged_dtype([parent[name] for parent in parents]) for name in parents[0]}
    names = sorted(dtypes, key=lambda name: (list(TYPE_NAMES).index(_type(dtypes[name])), name))
    header = _header({name: (dtypes[name], parents[0][name].shape) for name in names}, metadata[0])

    def merged_blocks() -> Iterator[torch.Tensor]:
        for name in names:
            tensors = [parent[name] for parent in parents]
            for block, settings in blocks(method, tensors, merge.settings(name, tensors[0].shape)):
                yield merge_block(method, block, settings)

    with replacing(output) as file:
        return _write(file, header, merged_blocks(), digest=digest)


def read_weights(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Map the tensors of a safetensors file, or of the shards that an ``.index.json`` names; return them and the metadata.

    Their data is read from the disk when it is used. Raises :class:`ModelError` for files that are no safetensors, and for an index
    that names a missing shard or tensor.
    """
    if path.suffix != ".json":
        return _map_file(path)
    try:
        shards: dict[str, str] = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_once)[
            "weight_map"
        ]
        outside = next(
            (shard for shard in shards.values() if shard in ("", ".", "..") or set(shard) & {"/", "\\"}), None
        )
        if outside is not None:
            raise ValueError(f"{outside!r} is no file beside it")
        mapped = {shard: _map_file(path.parent / shard) for shard in sorted(set(shards.values()))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "it needs a weight_map: name of a tensor to file"
        raise ModelError(f"{path} is no index of safetensors files: {error!r}", hint) from error
    tensors = {}
    for name, shard in shards.items():
        if name not in mapped[shard][0]:
            reason = f"{path} says that {name} is in {shard}, which has no such tensor"
            raise ModelError(reason, "fetch the files again")
        tensors[name] = mapped[shard][0][name]
    return tensors, next((metadata for _, metadata in mapped.values()), {})


def _map_file(path: Path) -> tuple[Tensors, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        _check_header(path)
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no mapping
            metadata = file.metadata() or {}
        for name, tensor in tensors.items():
            if _type(tensor.dtype) not in TYPE_NAMES:
                raise ValueError(f"{name} is of the type {_type(tensor.dtype)}, which is not known here")
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else error
        hint = "give a whole .safetensors file, or the .index.json of one in shards"
        raise ModelError(f"{path} is no safetensors file: {reason}", hint) from error
    return tensors, dict(sorted(metadata.items()))


def _check_header(path: Path) -> None:
    """Raise :class:`ValueError` where a name stands twice in the header: which tensor is meant would be anybody's guess.

    Also for more than :data:`MAX_TENSORS`, before any of them is looked at. safetensors itself refuses all else: tensors that
    overlap, bytes of no tensor, shapes that do not fit.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            return
        header = file.read(length)
        if (tensors := header.count(b'"data_offsets"')) > MAX_TENSORS:
            raise ValueError(f"it names {tensors:,} tensors, more than any model has")
        json.loads(header, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is named twice")
    return content


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _header(tensors: Mapping[str, tuple[torch.dtype, torch.Size]], metadata: Mapping[str, str]) -> bytes:
    """Encode what a safetensors file begins with: a length, JSON, spaces up to a multiple of eight."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + shape.numel() * dtype.itemsize
        header[name] = {"dtype": TYPE_NAMES[_type(dtype)], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(file: BinaryIO, header: bytes, tensors: Iterable[torch.Tensor], *, digest: bool) -> str:
    """Write header and tensors and return their sha256; a thread hashes each tensor while the next one is merged."""
    import torch

    sha256 = hashlib.sha256(header)
    file.write(header)
    with ThreadPoolExecutor(1) as thread:
        hashing = None
        for tensor in tensors:
            data = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data
            if hashing:
                hashing.result()
            hashing = thread.submit(sha256.update, data) if digest else None
            file.write(data)
    return sha256.hexdigest() if digest else ""
