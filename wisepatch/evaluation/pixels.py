"""Cache the decoded pixels of a whole split for evaluation (``--cache-images``): decoded once for all sweeps and commands.

They are what the model sees, ``uint8`` after resizing and cropping, bit for bit those of a fresh decoding.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wisepatch.datasets.loading import checked, loader
from wisepatch.datasets.samples import Split
from wisepatch.errors import StoreError
from wisepatch.models.clip import Clip
from wisepatch.process_group import made_together, to_main
from wisepatch.progress import Progress, Silent
from wisepatch.store.cache import versions
from wisepatch.store.checkpoints import Store

IMAGES_PER_WRITE = 64
PIXELS, LABELS = "pixels.npy", "labels.npy"


class Pixels:
    """Map pixels ``(n, 3, height, width)`` from a file, with labels ``(n,)``, as a map-style dataset.

    In ``uint8``, but for a model whose transform does not end in a plain normalisation.
    """

    def __init__(self, folder: Path) -> None:
        """Map the files of the cache entry ``folder``."""
        self.folder = folder
        self.pixels = np.load(folder / PIXELS, mmap_mode="r")
        self.labels = np.load(folder / LABELS)

    def __reduce__(self) -> tuple[type[Pixels], tuple[Path]]:
        """Send the folder to a spawned worker, which maps the files itself."""
        return Pixels, (self.folder,)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the pixels of one image as a tensor, and its label."""
        return torch.from_numpy(np.array(self.pixels[index])), int(self.labels[index])


def cached_pixels(
    clip: Clip, split: Split, store: Store, *, workers: int = 0, progress: Progress | None = None
) -> Pixels:
    """Return the pixels of a split that was opened with ``clip.pixels``, from the cache or decoded and cached.

    Models with the same preprocessing share them. Their size is announced before they are written. Raises the errors of data and
    store, and :class:`StoreError` where the disk has no room for them.
    """
    progress, name = progress or Silent(), f"{split.task} ({split.name})"

    def build(folder: Path | None = None) -> None:
        """Decode this process's share; only the main process has a folder, and writes."""
        labels: list[torch.Tensor] = []
        pixels, done = None, 0
        share = map(checked, loader(split, IMAGES_PER_WRITE, workers=workers))
        decoded = to_main(share, math.ceil(len(split) / IMAGES_PER_WRITE))
        if folder is None:
            deque(decoded, maxlen=0)
            return
        for images, truth in decoded:
            if pixels is None:
                shape = (len(split), *images.shape[1:])
                size = math.prod(shape) * images.element_size()
                _check_room(size, folder, name)
                progress.note(f"keeping the pixels of {name}: {size / 1e6:,.0f} MB below {store.root}")
                progress.start(f"pixels of {name}", len(split))
                with store.writing():
                    pixels = np.lib.format.open_memmap(folder / PIXELS, "w+", images.numpy().dtype, shape)
                    _reserve(folder / PIXELS)
            pixels[done : done + len(truth)] = images.numpy()
            labels.append(truth)
            done += len(truth)
            progress.advance(len(truth))
        with store.writing():
            np.save(folder / LABELS, torch.cat(labels).numpy())
        progress.finish()

    def waiting() -> None:
        progress.note(f"another process keeps the pixels of {name}: waiting for it")

    key = pixels_key(clip, split)
    folder = made_together(lambda make: store.cache.folder("pixels", key, make, waiting, note=progress.note), build)
    return Pixels(folder)


def pixels_key(clip: Clip, split: Split) -> str:
    """Hash what pixels depend on: the preprocessing, the data, and the versions of the packages that decode and draw them."""
    made_by = versions("pillow", "torchvision", "open_clip_torch")
    return hashlib.sha256(f"{clip.transform}\n{made_by}\n{split.fingerprint()}".encode()).hexdigest()[:32]


def _check_room(size: int, folder: Path, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StoreError(
            f"the pixels of {name} need {size / 1e9:,.1f} GB; {folder.parent} has {free / 1e9:,.1f}",
            "leave --cache-images out, or name a store on another disk",
        )


def _reserve(path: Path) -> None:
    """Claim the room of a file on the disk now: a full disk would end a write through a map without an error to catch."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
