"""Two files of weights in, one out, in buffers of fixed size: memory does not grow with the model, and torch is not needed.

Reads safetensors, whole or in shards (``model.safetensors.index.json``), and writes one file, byte for byte the one that
:func:`~wisepatch.weights.interpolation.interpolate` and :mod:`safetensors` would make of the same two (NaN of narrow types aside):
both mix with one subtraction, one multiplication and one addition in fp32 (fp64 for fp64), cast back to the type of ``theta_0``.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wisepatch.errors import ModelError, StoreError, UsageError
from wisepatch.files import PARTIAL, sync_folder
from wisepatch.weights.mixing import BLOCK, Mixer
from wisepatch.weights.tensorfiles import FLOATS, ORDER, SIZES, Entry, file_header, read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    import numpy as np

    Array = np.ndarray[Any, Any]

BUFFER = 1 << 20  # bytes of each file that are read and written at a time
THREADS = 4  # at most; they wait for the disk, for each other's writes, and for the memory
AHEAD = 2  # buffers that are filled while the oldest waits to be hashed

COUNTERS = "num_batches_tracked"  # of batch normalisation: they differ by training and do not matter
SAME_MODEL = "mix files that were made from the same model"


@dataclass(frozen=True)
class Span:
    """``count`` numbers of a tensor in all files, from number ``begin``."""

    name: str
    first: Entry
    second: Entry
    fishers: tuple[Entry, Entry] | None
    begin: int
    count: int

    @property
    def width(self) -> int:
        """Bytes of one number in the file where it takes most."""
        return max(SIZES[entry.dtype] for entry in (self.first, self.second, *(self.fishers or ())))


def merge_files(
    theta_0: Path,
    theta_1: Path,
    alpha: float,
    output: Path,
    *,
    fishers: tuple[Path, Path] | None = None,
    keep: Callable[[str], bool] | None = None,
    digest: bool = True,
) -> str:
    """Write ``(1 - alpha) * theta_0 + alpha * theta_1`` to ``output`` and return its sha256 (empty without ``digest``).

    The bits are those of :func:`wisepatch.weights.interpolation.mix`. ``fishers`` are files with the Fisher information of both,
    by which each number of the tensors in them has an alpha of its own. ``keep`` says by name which tensors are written.
    The two files may be in other orders, shards and types; types and metadata follow ``theta_0``. ``output`` is replaced in one
    step when the disk has all of it, and may be one of the two. Raises :class:`StoreError` for other names, shapes or integers,
    and where ``output`` cannot be written; :class:`ModelError` for files that are no safetensors; :class:`UsageError` for
    an ``alpha`` outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha {alpha} lies outside [0, 1]", "alpha 0 is the first file, 1 is the second")
    (first, metadata), (second, _) = read_weights(theta_0), read_weights(theta_1)
    if keep:
        first, second = ({name: e for name, e in entries.items() if keep(name)} for entries in (first, second))
    check_entries(first, second)
    weighed = _weighed(fishers, first)
    first = dict(sorted(first.items(), key=lambda item: (ORDER[item[1].dtype], item[0])))
    unfinished = output.with_name(f"{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}-{output.name}")
    try:
        try:
            with unfinished.open("xb", buffering=0) as file:
                found = _write(
                    file.fileno(), _spans(first, second, weighed), file_header(first, metadata), alpha, digest=digest
                )
                os.fsync(file.fileno())
            unfinished.replace(output)
        finally:
            unfinished.unlink(missing_ok=True)
        sync_folder(output.parent)
    except OSError as error:
        raise StoreError(
            f"{output} cannot be written: {error.strerror or error}", "free space there, or name another place"
        ) from error
    return found


def check_entries(first: Mapping[str, Entry], second: Mapping[str, Entry]) -> None:
    """Raise :class:`StoreError` unless both have the same names and shapes, and floats where the other has floats."""
    alone = sorted(set(first) ^ set(second))
    if alone:
        raise StoreError(
            f"the files are of different architectures: {len(alone)} tensors are in one of them only,"
            f" such as {', '.join(alone[:3])}",
            f"{SAME_MODEL} (and with the same kind of head)",
        )
    for name, one in first.items():
        other = second[name]
        mixes = one.dtype in FLOATS and other.dtype in FLOATS
        if one.shape != other.shape or not (mixes or one.dtype == other.dtype):
            raise StoreError(
                f"{name} is {one.dtype} {list(one.shape)} in one file and {other.dtype} {list(other.shape)} in the other",
                SAME_MODEL,
            )


def _weighed(fishers: tuple[Path, Path] | None, first: Mapping[str, Entry]) -> dict[str, tuple[Entry, Entry]]:
    """Where the Fisher information of both ends lies, of the tensors that have some."""
    if fishers is None:
        return {}
    (start, _), (end, _) = (read_weights(path) for path in fishers)
    found = {name: (entry, end[name]) for name, entry in start.items() if name in end and name in first}
    for name, entries in found.items():
        if any(entry.shape != first[name].shape or entry.dtype not in ("F32", "F64") for entry in entries):
            raise StoreError(f"the Fisher information of {name} is not of its shape", SAME_MODEL)
    return found


def _write(output: int, whole: Sequence[Span], head: bytes, alpha: float, *, digest: bool) -> str:
    """Write header and data. Threads read, mix and write a buffer each; this one hashes them in their order."""
    hashed = hashlib.sha256(head)
    _pwrite(output, memoryview(head), 0)
    threads = min(THREADS, os.cpu_count() or 1)
    with ExitStack() as stack:
        inputs: dict[Path, int] = {}
        for path in dict.fromkeys(e.file for span in whole for e in (span.first, span.second, *(span.fishers or ()))):
            inputs[path] = stack.enter_context(_readable(path)).fileno()
        pool = ThreadPoolExecutor(threads)
        stack.callback(pool.shutdown, cancel_futures=True)
        busy: deque[tuple[Future[int], _Slot]] = deque()

        def finish() -> _Slot:
            future, slot = busy.popleft()
            size = future.result()
            if digest:
                hashed.update(memoryview(slot.mine)[:size])
            return slot

        place = len(head)
        for spans in _pieces(whole):
            slot = finish() if len(busy) == threads + AHEAD else _Slot()
            busy.append((pool.submit(slot.run, spans, inputs, alpha, output, place), slot))
            place += sum(span.count * SIZES[span.first.dtype] for span in spans)
        while busy:
            finish()
    return hashed.hexdigest() if digest else ""


def _readable(path: Path) -> Any:
    """Open a file of weights that the system is to read ahead."""
    try:
        file = path.open("rb", buffering=0)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "look at its disk and permissions") from error
    return file


def _spans(
    first: Mapping[str, Entry], second: Mapping[str, Entry], fishers: Mapping[str, tuple[Entry, Entry]]
) -> list[Span]:
    """Every tensor, whole."""
    return [Span(name, entry, second[name], fishers.get(name), 0, entry.count) for name, entry in first.items()]


def _pieces(whole: Sequence[Span]) -> Iterator[list[Span]]:
    """Cut all tensors into pieces of at most :data:`BUFFER` bytes in any file; small tensors share a piece."""
    piece: list[Span] = []
    used = 0
    for span in whole:
        begin = 0
        while begin < span.count:
            count = min(span.count - begin, (BUFFER - used) // span.width)
            if not count:
                yield piece
                piece, used = [], 0
                continue
            piece.append(replace(span, begin=begin, count=count))
            begin, used = begin + count, used + count * span.width
    if piece:
        yield piece


class _Slot:
    """The buffers and scratch arrays of one piece under way."""

    def __init__(self) -> None:
        self.mine, self.its, self.mixer = bytearray(BUFFER), bytearray(BUFFER), Mixer()
        self.fishers: list[bytearray] = []

    def run(self, spans: list[Span], inputs: Mapping[Path, int], alpha: float, output: int, place: int) -> int:
        """Read, mix and write a piece; return its size."""
        import numpy as np

        end = 0
        with np.errstate(all="ignore"):  # infinities, NaN and overflow are what they are
            for span in spans:
                start, end = end, end + span.count * SIZES[span.first.dtype]
                self._fill(span, memoryview(self.mine)[start:end], inputs, alpha)
        _pwrite(output, memoryview(self.mine)[:end], place)
        return end

    def _fill(self, span: Span, mine: memoryview, inputs: Mapping[Path, int], alpha: float) -> None:
        first, second = span.first, span.second
        floats = first.dtype in FLOATS
        if floats and alpha == 1 and first.dtype == second.dtype:
            _pread(inputs, second, span, mine)
            return
        _pread(inputs, first, span, mine)
        if (alpha == 0) if floats else span.name.endswith(COUNTERS):
            return
        its = _part(self.its, second, span)
        _pread(inputs, second, span, its)
        if not floats and mine != its:
            raise StoreError(f"the integer buffer {span.name} differs between the files", "it cannot be mixed")
        if floats:
            import numpy as np

            start, end = np.frombuffer(mine, FLOATS[first.dtype]), np.frombuffer(its, FLOATS[second.dtype])
            fishers = self._read_fishers(span, inputs) if span.fishers else None
            for at in range(0, span.count, BLOCK):
                now = slice(at, at + BLOCK)
                weighed = (fishers[0][now], fishers[1][now]) if fishers else None
                self.mixer.mix(start[now], first.dtype, end[now], second.dtype, alpha, weighed)

    def _read_fishers(self, span: Span, inputs: Mapping[Path, int]) -> list[Array]:
        import numpy as np

        self.fishers = self.fishers or [bytearray(BUFFER), bytearray(BUFFER)]
        found = []
        for entry, buffer in zip(span.fishers or (), self.fishers, strict=True):
            part = _part(buffer, entry, span)
            _pread(inputs, entry, span, part)
            found.append(np.frombuffer(part, FLOATS[entry.dtype]))
        return found


def _part(buffer: bytearray, entry: Entry, span: Span) -> memoryview:
    return memoryview(buffer)[: span.count * SIZES[entry.dtype]]


def _pread(inputs: Mapping[Path, int], entry: Entry, span: Span, buffer: memoryview) -> None:
    place = entry.start + span.begin * SIZES[entry.dtype]
    while buffer:
        try:
            got = os.preadv(inputs[entry.file], [buffer], place)
        except OSError as error:
            raise ModelError(f"{entry.file} cannot be read: {error.strerror}", "look at its disk") from error
        if not got:
            raise ModelError(f"{entry.file} ends too soon, within {span.name}", "fetch or make it again")
        place, buffer = place + got, buffer[got:]


def _pwrite(output: int, data: memoryview, place: int) -> None:
    while data:
        done = os.pwrite(output, data, place)
        place, data = place + done, data[done:]
