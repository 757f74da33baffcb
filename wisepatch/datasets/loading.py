"""Load batches of images and labels from a split, in this process or in workers."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.samples import Samples, set_epoch
from wisepatch.errors import WisepatchError

if TYPE_CHECKING:
    import torch

MAX_WORKERS = 16
IMAGES_PER_WORKER = 50  # fewer are not worth the start of a process
MAX_IMAGES_PER_PIECE = 64  # that a worker hands over at once
BATCHES_AHEAD = 3  # that a worker has in shared memory: two that wait and one under way
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class _ErrorsAsValues:
    """Hand an error over as a value: raised in a worker it would lose its type and message on the way."""

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
    """Seed the random crops of samples by a seed, the epoch and the index alone: the same with any number of workers."""

    samples: Samples
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image, cropped as in this epoch, and its label; torch's generator is left as it was."""
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
        """Draw other crops, as training does each epoch."""
        self.epoch = epoch
        set_epoch(self.samples, epoch)


def _collate(items: Sequence[Any]) -> Any:
    from torch.utils.data import default_collate

    error = next((item for item in items if isinstance(item, WisepatchError)), None)
    # Pickled on its way from a worker, an error would lose its hint.
    return default_collate(list(items)) if error is None else {"error": (type(error), error.message, error.hint)}


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
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    fitting = MAX_WORKERS
    if SHARED_MEMORY.is_dir():
        fitting = shutil.disk_usage(SHARED_MEMORY).free // (BATCHES_AHEAD * batch_bytes)
    return min(cores // sharing, MAX_WORKERS, images // IMAGES_PER_WORKER, fitting // sharing)


def loader(
    samples: Samples, batch_size: int, *, workers: int = 0, shuffle: torch.Generator | None = None
) -> torch.utils.data.DataLoader[Any]:
    """Load batches of ``(images, labels)``, in order, or shuffled by a generator. Read them through :func:`checked`."""
    import torch

    return torch.utils.data.DataLoader(
        _ErrorsAsValues(samples),  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=shuffle is not None,
        # Of its own, so that looking at data in the middle of a run leaves the run's random numbers alone.
        generator=shuffle if shuffle is not None else torch.Generator(),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )


def batches_on(
    samples: Samples, size: int, device: torch.device, *, workers: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of ``size`` images on ``device`` and their labels on the CPU, in order.

    Workers hand over pieces of :data:`MAX_IMAGES_PER_PIECE` images at most (``size`` is rounded down to whole ones): with a GPU's
    hundreds the first batch would be long in coming, and shared memory would have room for fewer workers.
    """
    import torch

    pieces = math.ceil(size / MAX_IMAGES_PER_PIECE) if workers else 1
    batches = map(checked, loader(samples, size // pieces, workers=workers))
    while group := [(images.to(device, non_blocking=True), labels) for images, labels in islice(batches, pieces)]:
        images, labels = (list(parts) for parts in zip(*group, strict=True))
        yield group[0] if len(group) == 1 else (torch.cat(images), torch.cat(labels))


def checked(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(images, labels)`` of a batch, or raise the error that one of its images met."""
    if isinstance(batch, dict):
        kind, message, hint = batch["error"]
        raise kind(message, hint)
    images, labels = batch
    return images, labels
