"""Batches of images and labels from a split, in this process or in workers."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.base import set_epoch
from wisepatch.errors import WisepatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from wisepatch.datasets.base import Samples


MOST_WORKERS = 16
PIECE = 64  # images, at most, that a process hands over at once
AHEAD = 3  # batches that a process has in shared memory: two that wait and one under way
SHARED = Path("/dev/shm")
WORTH = 50  # images that are worth a process


@dataclass(frozen=True)
class _Guarded:
    """Hands an error over as a value: raised in a worker it would lose its type and message on the way."""

    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int] | WisepatchError:
        try:
            return self.samples[index]
        except WisepatchError as error:
            return error


@dataclass
class Seeded:
    """Samples whose random crops follow from a seed, the epoch and the index alone: the same with any number of workers."""

    samples: Samples
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image, cropped as in this epoch, and its label. Random numbers elsewhere go on as if none was drawn."""
        import numpy as np
        import torch

        generator = torch.default_generator
        before = generator.get_state()
        generator.manual_seed(int(np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)[0]))
        try:
            return self.samples[index]
        finally:
            generator.set_state(before)

    def set_epoch(self, epoch: int) -> None:
        """Draw anew, as training does each epoch."""
        self.epoch = epoch
        set_epoch(self.samples, epoch)


def _collate(items: Sequence[Any]) -> Any:
    from torch.utils.data import default_collate

    broken = next((item for item in items if isinstance(item, WisepatchError)), None)
    return (
        {"error": (broken.message, broken.hint, type(broken))} if broken is not None else default_collate(list(items))
    )


def worker_count(asked: int | None, images: int, batch: int) -> int:
    """How many processes read images: what is asked for, or as many as suit the machine and the number of images.

    Processes that train together on one machine (``LOCAL_WORLD_SIZE``) share its cores and its memory.

    A process takes a moment to start, which few images are not worth. Otherwise every core reads: where a model on the CPU needs
    the cores, the processes wait for it, a few batches ahead (measured: no slower with ViT-B/32, a quarter faster with a small
    model). Where processes are spawned and not forked, which takes seconds and a script that can be imported again, none is
    started unasked; nor are more than the shared memory has room for, through which they hand over images, ``batch`` bytes at a
    time (containers often have 64 MB of it).
    """
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    method = multiprocessing.get_start_method(allow_none=True) or ("fork" if sys.platform == "linux" else "spawn")
    if cores < 2 or method != "fork":
        return 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    room = shutil.disk_usage(SHARED).free // (AHEAD * batch) if SHARED.is_dir() else MOST_WORKERS
    return min(cores // processes, MOST_WORKERS, images // WORTH, room // processes)


def loader(
    samples: Samples, batch_size: int, *, workers: int = 0, shuffle: torch.Generator | None = None
) -> torch.utils.data.DataLoader[Any]:
    """Batches of ``(images, labels)``, in order, or shuffled by a generator. Read them through :func:`checked`."""
    import torch

    return torch.utils.data.DataLoader(
        _Guarded(samples),  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=shuffle is not None,
        # Of its own, so that looking at data in the middle of a run leaves the run's random numbers alone.
        generator=shuffle if shuffle is not None else torch.Generator(),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
    )


def batches_on(
    samples: Samples, size: int, device: torch.device, *, workers: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of ``size`` images on ``device`` (a few less where that makes even pieces) and their labels on the CPU, in order.

    Processes hand over pieces of :data:`PIECE` images at most: a GPU's batches may have hundreds, for which the first would be long
    in coming, fewer processes would have any, and the shared memory would have room for fewer.
    """
    import torch

    number = math.ceil(size / PIECE) if workers else 1
    pieces: list[tuple[torch.Tensor, torch.Tensor]] = []

    def joined() -> tuple[torch.Tensor, torch.Tensor]:
        if len(pieces) == 1:
            return pieces.pop()
        images, labels = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        pieces.clear()
        return images, labels

    for batch in loader(samples, size // number, workers=workers):
        images, labels = checked(batch)
        pieces.append((images.to(device, non_blocking=True), labels))
        if len(pieces) == number:
            yield joined()
    if pieces:
        yield joined()


def checked(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(images, labels)`` of a batch, or raise the error that one of its images met."""
    if isinstance(batch, dict):
        message, hint, kind = batch["error"]
        raise kind(message, hint)
    images, labels = batch
    return images, labels
