"""Decoded pixels of a whole split, kept in the store (``--cache-images``): what a model sees of it, decoded once for all runs.

The pixels are those of evaluation, ``uint8`` after the model's resizing and cropping, bit for bit. Training crops at random, and
reads the images themselves.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wisepatch.datasets.loading import checked, loader
from wisepatch.progress import Progress, Silent

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Split
    from wisepatch.encoder import Encoder
    from wisepatch.store import Store

BATCH = 64
NAMES = ("pixels.npy", "labels.npy")


@dataclass(frozen=True)
class Pixels:
    """Pixels ``(n, 3, height, width)`` in ``uint8``, mapped from a file, and labels ``(n,)``: a map-style dataset."""

    folder: Path

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._open()[1])

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the pixels of one image as a tensor, and its label."""
        import torch

        pixels, labels = self._open()
        return torch.from_numpy(np.array(pixels[index])), int(labels[index])

    def _open(self) -> list[np.ndarray[Any, Any]]:
        # Mapped once in every process: a map is not sent to a worker, its file's name is.
        if not hasattr(self, "_mapped"):
            object.__setattr__(self, "_mapped", [np.load(self.folder / name, mmap_mode="r") for name in NAMES])
        found: list[np.ndarray[Any, Any]] = self.__dict__["_mapped"]
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps out."""
        return {"folder": self.folder}


def cached_pixels(
    encoder: Encoder, split: Split, store: Store, *, workers: int = 0, progress: Progress | None = None
) -> Pixels:
    """The pixels of a split that was opened with ``encoder.pixels``, from the store or decoded and kept there.

    They are found again by the preprocessing and the split's fingerprint (task, split, files), by every model with that
    preprocessing. Their size is announced before they are written. Raises the errors of data and store.
    """
    progress = progress or Silent()
    key = hashlib.sha256(f"{encoder.transform}\n{split.fingerprint()}".encode()).hexdigest()[:32]
    folder = store.pixels / key
    found = Pixels(folder)
    if folder.is_dir() and len(found) == len(split):
        return found
    partial = store.pixels / f".partial-{os.getpid()}-{key}"
    pixels, labels, done = None, np.empty(len(split), np.int64), 0
    with store.writing():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        for batch in loader(split, BATCH, workers=workers):
            images, truth = checked(batch)
            if pixels is None:
                shape = (len(split), *images.shape[1:])
                size = int(np.prod(shape))
                progress.note(f"keeping the pixels of {split.task} ({split.name}): {size / 1e6:,.0f} MB below {folder}")
                progress.start(f"pixels of {split.task} ({split.name})", len(split))
                with store.writing():
                    pixels = np.lib.format.open_memmap(partial / NAMES[0], "w+", images.numpy().dtype, shape)
                    _reserve(partial / NAMES[0])
            pixels[done : done + len(truth)] = images.numpy()
            labels[done : done + len(truth)] = truth.numpy()
            done += len(truth)
            progress.advance(len(truth))
        assert pixels is not None
        with store.writing():
            pixels.flush()
            np.save(partial / NAMES[1], labels)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress.finish()
    return found


def _reserve(path: Path) -> None:
    """Claim the room of a file on the disk now: a full disk would end a write through a map without an error to catch."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
