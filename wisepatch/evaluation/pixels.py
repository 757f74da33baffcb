"""Decoded pixels of a whole split, cached for evaluation (``--cache-images``): decoded once for all sweeps and commands.

They are what the model sees, ``uint8`` after resizing and cropping, bit for bit those of a fresh decoding.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wisepatch.datasets.loading import checked, loader
from wisepatch.errors import StoreError
from wisepatch.progress import Progress, Silent
from wisepatch.store.cache import versions

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Split
    from wisepatch.models.clip import Clip
    from wisepatch.store.checkpoints import Store

BATCH = 64
NAMES = ("pixels.npy", "labels.npy")


@dataclass(frozen=True)
class Pixels:
    """Pixels ``(n, 3, height, width)``, mapped from a file, and labels ``(n,)``: a map-style dataset.

    In ``uint8``, but for a model whose transform does not end in a plain normalisation.
    """

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
    clip: Clip,
    split: Split,
    store: Store,
    *,
    fast: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> Pixels:
    """Return the pixels of a split that was opened with ``clip.pixels``, from the cache or decoded and cached.

    ``fast`` says that it was opened with ``clip.fast_pixels``. They are found again by the preprocessing and the split's
    fingerprint (task, split, files), by every model with that preprocessing. Their size is announced before they are written.
    Raises the errors of data and store.
    """
    progress = progress or Silent()
    key = _key(f"{clip.transform}{' fast' if fast else ''}", split)

    def build(folder: Path) -> None:
        pixels, labels, done = None, np.empty(len(split), np.int64), 0
        for batch in loader(split, BATCH, workers=workers):
            images, truth = checked(batch)
            if pixels is None:
                shape = (len(split), *images.shape[1:])
                _announce(progress, split, folder.with_name(key), int(np.prod(shape)))
                with store.writing():
                    pixels = np.lib.format.open_memmap(folder / NAMES[0], "w+", images.numpy().dtype, shape)
                    _reserve(folder / NAMES[0])
            pixels[done : done + len(truth)] = images.numpy()
            labels[done : done + len(truth)] = truth.numpy()
            done += len(truth)
            progress.advance(len(truth))
        with store.writing():
            if pixels is not None:
                pixels.flush()
            np.save(folder / NAMES[1], labels)
        progress.finish()

    waits = f"another process keeps the pixels of {split.task} ({split.name}): waiting for it"
    return Pixels(store.cache.folder("pixels", key, build, lambda: progress.note(waits), note=progress.note))


def _key(transform: str, split: Split) -> str:
    """Hash what pixels depend on, with the versions of the packages that decode and draw them."""
    made_by = versions("pillow", "torchvision", "open_clip_torch")
    return hashlib.sha256(f"{transform}\n{made_by}\n{split.fingerprint()}".encode()).hexdigest()[:32]


def _announce(progress: Progress, split: Split, folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise StoreError(
            f"the pixels of {split.task} ({split.name}) need {size / 1e9:,.1f} GB; {folder.parent} has {free / 1e9:,.1f}",
            "leave --cache-images out, or name a store on another disk",
        )
    progress.note(f"keeping the pixels of {split.task} ({split.name}): {size / 1e6:,.0f} MB below {folder}")
    progress.start(f"pixels of {split.task} ({split.name})", len(split))


def _reserve(path: Path) -> None:
    """Claim the room of a file on the disk now: a full disk would end a write through a map without an error to catch."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
