"""Load batches of images and labels from a split, in this process or in workers; of several processes each loads its own."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import multiprocessing
import os
import platform
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wisepatch.counting import count
from wisepatch.datasets.samples import Samples, Split, labels_of
from wisepatch.errors import DataError, WisepatchError
from wisepatch.process_group import deal, from_all
from wisepatch.ranks import size

if TYPE_CHECKING:
    import torch

MAX_WORKERS = 16
IMAGES_PER_WORKER = 50  # fewer are not worth the start of a process
MAX_IMAGES_PER_PIECE = 64  # that a worker hands over at once
BATCHES_AHEAD = 3  # that a worker has in shared memory: two that wait and one under way
SHARED_MEMORY = Path("/dev/shm")
PR_SET_PDEATHSIG = 1  # of prctl(2)


@dataclass
class ErrorsAsValues:
    """Hand an error over as a value: raised in a worker it would lose its type and message on the way."""

    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int] | WisepatchError:
        try:
            return self.samples[index]
        except WisepatchError as error:
            return error


class Batch(NamedTuple):
    """Some images that follow each other, the number of the first, and their labels."""

    first: int
    images: torch.Tensor
    labels: torch.Tensor


def _collate(items: Sequence[Any]) -> Any:
    from torch.utils.data import default_collate

    error = next((item for item in items if isinstance(item, WisepatchError)), None)
    if error is not None:  # pickled on its way from a worker, an error would lose its hint
        return {"error": (type(error), error.message, error.hint)}
    return default_collate(list(items))


def worker_count(asked: int | None, images: int, batch_bytes: int) -> int:
    """Return the number of processes that read images: ``asked``, or one a core, and one for 50 images at most.

    Where a model on the CPU needs the cores, the processes wait for it (measured: no slower with ViT-B/32, a quarter faster with a
    small model). Processes that train together on one machine (``LOCAL_WORLD_SIZE``) share it. None is started unasked where they
    are spawned and not forked (which takes seconds, and a script that can be imported again), nor more than can hand over
    ``batch_bytes`` at a time through shared memory (containers often have 64 MB of it).
    """
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    method = multiprocessing.get_start_method(allow_none=True) or ("fork" if sys.platform == "linux" else "spawn")
    if cores < 2 or method != "fork":
        return 0
    sharing, images = int(os.environ.get("LOCAL_WORLD_SIZE") or 1), images // size()
    fitting = MAX_WORKERS
    if SHARED_MEMORY.is_dir():
        fitting = shutil.disk_usage(SHARED_MEMORY).free // (BATCHES_AHEAD * batch_bytes)
    return min(cores // sharing, MAX_WORKERS, images // IMAGES_PER_WORKER, fitting // sharing)


def same_for_all(split: Split) -> Split:
    """Return a split, of which all processes see the same number of images and the same labels; else raise :class:`DataError`."""
    if size() == 1:
        return split
    labels = hashlib.sha256(json.dumps(labels_of(split.samples)).encode()).hexdigest()
    seen = from_all((len(split), labels, platform.node()))
    other = next((number for number, each in enumerate(seen) if each[:2] != seen[0][:2]), None)
    if other is not None:
        (images, _, host), (others, _, host_of_other) = seen[0], seen[other]
        raise DataError(
            f"{split.task} ({split.name}) is not the same for all processes: {count(images, 'image')} for process 0 ({host}),"
            f" {others}, or other labels, for process {other} ({host_of_other})",
            "name with --data a folder that all machines see, or equal copies of it",
        )
    return split


def loader(
    samples: Samples, batch_size: int, *, workers: int = 0, pin: bool = False, join: int = 1
) -> torch.utils.data.DataLoader[Any]:
    """Load batches of ``(images, labels)`` in order. Read them through :func:`checked`.

    Of several processes each loads its own batches, or its own groups of ``join`` batches. ``pin`` puts them into memory that a GPU
    reads from.
    """
    batches = [range(first, min(first + batch_size, len(samples))) for first in range(0, len(samples), batch_size)]
    groups = [batches[first : first + join] for first in range(0, len(batches), join)]
    return data_loader(ErrorsAsValues(samples), [batch for group in deal(groups) for batch in group], workers, pin)


def data_loader(samples: ErrorsAsValues, batches: Any, workers: int, pin: bool) -> torch.utils.data.DataLoader[Any]:
    """Load the samples that each of ``batches`` lists. Read them through :func:`checked`."""
    import torch

    return torch.utils.data.DataLoader(
        samples,  # type: ignore[arg-type]
        batch_sampler=batches,
        # Of its own, so that looking at data in the middle of a run leaves the run's random numbers alone.
        generator=torch.Generator(),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=partial(_in_worker, os.getpid()),
        pin_memory=pin,
    )


def _in_worker(parent: int, _: int) -> None:
    """Leave signals to the parent, which ends this process; where it is killed itself, Linux ends this process with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was killed before that
            os._exit(1)


def batches_on(samples: Samples, size: int, device: torch.device, *, workers: int = 0) -> Iterator[Batch]:
    """Yield batches of ``size`` images on ``device`` and their labels on the CPU, in order; of several processes each its own.

    Workers hand over pieces of :data:`MAX_IMAGES_PER_PIECE` images at most (``size`` is rounded down to whole ones): with a GPU's
    hundreds the first batch would be long in coming, and shared memory would have room for fewer workers.
    """
    import torch

    pieces = math.ceil(size / MAX_IMAGES_PER_PIECE) if workers else 1
    piece = size // pieces
    loaded = map(checked, loader(samples, piece, workers=workers, pin=device.type == "cuda", join=pieces))
    for first in deal(range(0, len(samples), piece * pieces)):
        group = [(images.to(device, non_blocking=True), labels) for images, labels in islice(loaded, pieces)]
        images, labels = (parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*group, strict=True))
        yield Batch(first, images, labels)


def checked(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(images, labels)`` of a batch, or raise the error that one of its images met."""
    if isinstance(batch, dict):
        kind, message, hint = batch["error"]
        raise kind(message, hint)
    images, labels = batch
    return images, labels
