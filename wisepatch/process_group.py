"""Share one command among several processes, as ``torchrun``, ``accelerate launch`` and ``--processes`` start them.

Every process runs the same code in the same order. Whole batches are dealt out with the boundaries that one process has, what
was made of them is put together in their order, and the main process alone writes and prints. In one process all of this
does nothing, and torch.distributed is not started.

A process that fails tells the others through the store at which they met (:func:`end_unless_first`), and they end too.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from wisepatch.devices import device
from wisepatch.errors import ResourceError, StoreError, UsageError
from wisepatch.ranks import check_launcher, is_main, local_rank, rank, size

if TYPE_CHECKING:
    from pathlib import Path

    import torch

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=1)  # for a process that is at work; that one has failed is noticed at once
SECONDS_TO_END = 5.0  # for a process to end by itself, where another one has failed
SECONDS_TO_SPEAK = 2.0  # for the process that says why: launchers kill it when another one ends
SHARED_STORE = "name with --store one that all machines see, on a shared file system"
FAILURES, EXIT_CODE = "wisepatch/failures", "wisepatch/exit code"
LOST = ("connection closed by peer", "connection reset", "broken pipe", "connection refused")


@dataclass
class _Meeting:
    """The store at which the processes met, and the group in which they exchange objects, and tensors on the CPU."""

    store: Any
    group: Any = None
    over: threading.Event = field(default_factory=threading.Event)
    watch: threading.Thread | None = None


_meeting: _Meeting | None = None


def meet() -> None:
    """Meet the other processes, once: from here on one that fails ends all. In one process nothing happens.

    Raises the errors of :func:`check_launcher`.
    """
    global _meeting
    if _meeting is not None:
        return
    check_launcher()
    if size() == 1:
        return
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    if distributed.is_initialized():
        store = distributed.distributed_c10d._get_default_store()
    else:
        store, _, _ = next(rendezvous("env://"))
    _meeting = _Meeting(store)
    # Cloned here: the thread waits on a connection of its own, and nobody may be there to connect to when it begins.
    _meeting.watch = threading.Thread(target=_watch, args=(_meeting, store.clone()), daemon=True)
    _meeting.watch.start()


def join() -> None:
    """Meet the other processes, and form the groups in which tensors and objects are exchanged, once; see :func:`meet`."""
    meet()
    if _meeting is None or _meeting.group is not None:
        return
    from torch import distributed

    backend = "nccl" if device().type == "cuda" else "gloo"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun has it, or Accelerate sets another and warns
    if not distributed.is_initialized():
        distributed.init_process_group(backend, store=_meeting.store, rank=rank(), world_size=size())
    _meeting.group = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)


def leave() -> None:
    """Wait until every process is done, and part."""
    global _meeting
    if _meeting is not None:
        from torch import distributed

        from_all(None)
        meeting, _meeting = _meeting, None
        meeting.over.set()
        with suppress(distributed.DistError):  # the one that holds the store may have ended
            meeting.store.set(EXIT_CODE, "0")
        if meeting.watch is not None:
            meeting.watch.join()  # a thread that waits in C++ while Python ends aborts the process
        distributed.destroy_process_group()


def _watch(meeting: _Meeting, store: Any) -> None:
    """End this process soon after another one has failed, whatever it waits for or computes."""
    from torch.distributed import DistError

    try:
        store.wait([EXIT_CODE], timedelta(days=365))
        code = int(store.get(EXIT_CODE))
    except DistError:  # the one that holds the store has ended
        code = 1
    if code and not meeting.over.wait(SECONDS_TO_END):
        _end(code)


def end_unless_first(exit_code: int) -> None:
    """End this process where another one failed before it; where it is the first, tell the others, and leave it to say why.

    In one process nothing happens. Where the processes have not met yet, one on each machine says why.
    """
    if _meeting is None:
        if local_rank() > 0:
            time.sleep(SECONDS_TO_SPEAK)
            raise SystemExit(exit_code)
        return
    from torch.distributed import DistError

    with suppress(DistError):  # the one that holds the store may have ended
        if _meeting.store.add(FAILURES, 1) > 1:
            time.sleep(SECONDS_TO_SPEAK)
            _end(exit_code)
        _meeting.store.set(EXIT_CODE, str(exit_code))
    atexit.register(_end, exit_code)


def _end(exit_code: int) -> None:
    """End at once: threads of torch.distributed that wait for others would abort an ordinary exit."""
    import multiprocessing

    for child in multiprocessing.active_children():
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def lost_process(error: Exception) -> ResourceError | None:
    """Return what to tell a user where another process ended without a word; ``None`` for every other error."""
    if size() == 1 or not isinstance(error, RuntimeError) or not any(sign in str(error).lower() for sign in LOST):
        return None
    reason = str(error).strip().splitlines()[0][:200]
    return ResourceError(
        f"another of the {size()} processes ended without a word: {reason}",
        "it may have been killed, for memory or time; what is in the store is whole",
    )


def deal(items: Iterable[T]) -> Iterator[T]:
    """Yield the items of this process: the first is the main one's, the second the next one's, and so on around."""
    return islice(items, rank(), None, size())


def on_main(work: Callable[[], T]) -> T:
    """Do ``work`` in the main process; return its result in every process."""
    join()
    if _meeting is None:
        return work()
    from torch import distributed

    result = [work() if is_main() else None]
    distributed.broadcast_object_list(result, src=0, group=_meeting.group)
    return result[0]  # type: ignore[return-value]


def from_all(value: T) -> list[T]:
    """Return the values of all processes, in every process, when each has given its own."""
    join()
    if _meeting is None:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * size()
    distributed.all_gather_object(values, value, group=_meeting.group)
    return values


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process go first, then one process of each other machine, then the rest: data is downloaded once."""
    turn = 0 if is_main() else 1 if local_rank() == 0 else 2
    for _ in range(turn):
        from_all(None)
    yield
    for _ in range(turn, 2):
        from_all(None)


def add_up(*tensors: torch.Tensor) -> None:
    """Add up tensors on the CPU over all processes, in place: each has filled its part of them, and left zeros elsewhere."""
    join()
    if _meeting is not None:
        from torch import distributed

        for tensor in tensors:
            distributed.all_reduce(tensor, group=_meeting.group)


def rows_of_all(parts: Mapping[int, torch.Tensor], total: int) -> torch.Tensor:
    """Return ``(total, ...)`` rows on the CPU, in every process; ``parts`` maps the first row of each part to the part."""
    import torch

    kinds = from_all(next(((part.shape[1:], part.dtype) for part in parts.values()), None))
    if len(kinds) == 1:
        return torch.cat(list(parts.values()))
    shape, dtype = next(kind for kind in kinds if kind)
    rows = torch.zeros(total, *shape, dtype=dtype)
    for first, part in parts.items():
        rows[first : first + len(part)] = part
    add_up(rows)
    return rows


def from_process(owner: int, tensor: torch.Tensor) -> torch.Tensor:
    """Return, in every process, the tensor of the process ``owner``; all have one of this type and shape on their devices."""
    if size() == 1:
        return tensor
    import torch

    received = tensor if rank() == owner else torch.empty_like(tensor)
    torch.distributed.broadcast(received, src=owner)
    return received


def to_main(share: Iterable[T], total: int) -> Iterator[T]:
    """Yield all ``total`` items in the order in which they were dealt, in the main process; in the others none."""
    if _meeting is None:
        yield from share
        return
    from torch import distributed

    items = iter(share)
    for _ in range(-(-total // size())):
        row: list[Any] | None = [None] * size() if is_main() else None
        distributed.gather_object(next(items, None), row, dst=0, group=_meeting.group)
        yield from (item for item in row or () if item is not None)


def made_together(find: Callable[[Callable[..., Any]], T], make: Callable[..., Any]) -> T:
    """Look a thing up in a cache, or make it in all processes together: ``find(make)`` calls ``make`` where it is not there.

    The main process alone looks, and stores what was made; the others read it then. Raises :class:`StoreError` where they cannot.
    """
    join()
    if _meeting is None:
        return find(make)

    def announced(*given: Any) -> Any:
        on_main(lambda: True)
        return make(*given)

    if is_main():
        found = find(announced)
        on_main(lambda: False)
        return found
    while on_main(lambda: True):
        make()
    return find(_not_seen)


def _not_seen(*_: Any) -> Any:
    raise StoreError(f"process {rank()} does not see what the main process has put into the store", SHARED_STORE)


def check_seen(folders: Iterable[Path]) -> None:
    """Raise :class:`StoreError` where the main process has folders that another one does not see."""
    for folder in folders:
        if size() > 1 and not all(seen := from_all(folder.is_dir())):
            raise StoreError(f"process {seen.index(False)} does not see {folder}", SHARED_STORE)


def check_size(processes: int) -> None:
    """Raise :class:`UsageError` where Accelerate counts other processes than these, as after ``mpirun``."""
    if processes != size():
        raise UsageError(
            f"Accelerate was started in {processes} processes, and of them {size()} are known here",
            "start with `torchrun`, `accelerate launch --multi_gpu` or --processes",
        )
