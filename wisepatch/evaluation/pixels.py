"""Decoded pixels of a whole split, kept in the store (``--cache-images``): decoded once for all epochs, sweeps and commands.

For evaluation what the model sees, ``uint8`` after its resizing and cropping; for training, which crops at random, the whole
images. Both are bit for bit those of a fresh decoding.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from wisepatch.datasets.base import redraws
from wisepatch.datasets.loading import checked, loader
from wisepatch.errors import StoreError
from wisepatch.files import PARTIAL, sync_folder
from wisepatch.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Split, Transform
    from wisepatch.models.clip import Clip
    from wisepatch.store.checkpoints import Store

BATCH = 64
NAMES = ("pixels.npy", "labels.npy")
WHOLE = ("bytes.bin", "ends.npy", "sizes.npy", "labels.npy")


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
    """The pixels of a split that was opened with ``clip.pixels``, from the store or decoded and kept.

    ``fast`` says that it was opened with ``clip.fast_pixels``. They are found again by the preprocessing and the split's
    fingerprint (task, split, files), by every model with that preprocessing. Their size is announced before they are written.
    Raises the errors of data and store.
    """
    progress = progress or Silent()
    key = _key(f"{clip.transform}{' fast' if fast else ''}", split)
    folder = store.pixels / key
    found = Pixels(folder)
    pixels, labels, done = None, np.empty(len(split), np.int64), 0
    with _building(store, found, split, progress) as partial:
        if partial is None:
            return found
        for batch in loader(split, BATCH, workers=workers):
            images, truth = checked(batch)
            if pixels is None:
                shape = (len(split), *images.shape[1:])
                _announce(progress, split, folder, int(np.prod(shape)))
                with store.writing():
                    pixels = np.lib.format.open_memmap(partial / NAMES[0], "w+", images.numpy().dtype, shape)
                    _reserve(partial / NAMES[0])
            pixels[done : done + len(truth)] = images.numpy()
            labels[done : done + len(truth)] = truth.numpy()
            done += len(truth)
            progress.advance(len(truth))
        with store.writing():
            if pixels is not None:
                pixels.flush()
            np.save(partial / NAMES[1], labels)
    progress.finish()
    return found


@dataclass(frozen=True)
class Images:
    """Whole images as RGB, mapped from a file, and labels: a map-style dataset of PIL images, or of what is made of them."""

    folder: Path
    transform: Transform | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._open()[3])

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return one image, transformed, and its label."""
        from PIL import Image

        data, ends, sizes, labels = self._open()
        height, width = sizes[index]
        pixels = data[ends[index] - height * width * 3 : ends[index]].reshape(height, width, 3)
        image = Image.fromarray(np.array(pixels))
        return (self.transform(image) if self.transform else image), int(labels[index])

    def _open(self) -> list[np.ndarray[Any, Any]]:
        if not hasattr(self, "_mapped"):
            data = np.memmap(self.folder / WHOLE[0], np.uint8, "r")
            rest = [np.load(self.folder / name) for name in WHOLE[1:]]
            if len(data) != rest[0][-1] or len({len(array) for array in rest}) > 1:
                raise ValueError(f"{self.folder} is not whole")
            object.__setattr__(self, "_mapped", [data, *rest])
        found: list[np.ndarray[Any, Any]] = self.__dict__["_mapped"]
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave the map out."""
        return {"folder": self.folder, "transform": self.transform}


def cached_images(
    split: Split,
    store: Store,
    transform: Transform | None = None,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> Images | None:
    """The whole images of a split that was opened without a transform, from the store or decoded and kept there.

    They are found again by the split's fingerprint. ``None`` for images that are drawn anew each epoch, of which there is none
    to keep. Raises the errors of data and store.
    """
    progress = progress or Silent()
    if redraws(split):
        progress.note(f"the images of {split.task} are drawn anew each epoch: none are kept")
        return None
    key = _key("whole", split)
    folder = store.pixels / key
    found = Images(folder, transform)
    sizes, labels, ends = np.empty((len(split), 2), np.int64), np.empty(len(split), np.int64), [0]
    with _building(store, found, split, progress) as partial:
        if partial is None:
            return found
        with (partial / WHOLE[0]).open("wb") as file:
            for index, batch in enumerate(loader(_Arrays(split), 1, workers=workers)):
                (image,), (label,) = checked(batch)
                if index == 0:
                    _announce(progress, split, folder, image.numel() * len(split), "about ")
                with store.writing():
                    file.write(image.numpy().data)
                sizes[index], labels[index] = image.shape[:2], int(label)
                ends.append(ends[-1] + image.numel())
                progress.advance()
            with store.writing():
                file.flush()
                os.fsync(file.fileno())
        with store.writing():
            for name, array in zip(WHOLE[1:], (np.array(ends[1:], np.int64), sizes, labels), strict=True):
                np.save(partial / name, array)
    progress.finish()
    return found


@dataclass(frozen=True)
class _Arrays:
    """Images as tensors ``(height, width, 3)``."""

    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch

        image, label = self.samples[index]
        return torch.from_numpy(np.array(image.convert("RGB"))), label


def _key(what: str, split: Split) -> str:
    """A hash of what pixels depend on, with the versions of what decodes and draws them."""
    made_by = [f"{name} {version(name)}" for name in ("wisepatch", "pillow", "torchvision")]
    return hashlib.sha256("\n".join([what, *made_by, split.fingerprint()]).encode()).hexdigest()[:32]


def _is_there(found: Pixels | Images, split: Split) -> bool:
    """Whether all of a split is kept; what cannot be read is made again."""
    try:
        return found.folder.is_dir() and len(found) == len(split)
    except (OSError, ValueError, EOFError):
        return False


@contextmanager
def _building(store: Store, found: Pixels | Images, split: Split, progress: Progress) -> Iterator[Path | None]:
    """A folder to write into, which gets its name when all is written, and is removed where something fails.

    ``None`` where all is kept already. Other processes wait meanwhile.
    """
    if _is_there(found, split):
        yield None
        return
    folder = found.folder
    partial = folder.with_name(f"{PARTIAL}{os.getpid()}-{folder.name}")
    said = f"another process keeps the pixels of {split.task} ({split.name}): waiting for it"
    with store.lock("pixels", folder.name, lambda: progress.note(said)):
        if _is_there(found, split):
            yield None
            return
        with store.writing():
            for path in (partial, folder):  # what is there cannot be read
                shutil.rmtree(path, ignore_errors=True)
            partial.mkdir(parents=True)
        try:
            yield partial
            with store.writing():
                sync_folder(partial)
                try:
                    partial.rename(folder)
                except OSError:
                    if not folder.is_dir():  # else somebody was quicker all the same, with the same pixels
                        raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _announce(progress: Progress, split: Split, folder: Path, size: int, about: str = "") -> None:
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise StoreError(
            f"the pixels of {split.task} ({split.name}) need {about}{size / 1e9:,.1f} GB; {folder.parent} has {free / 1e9:,.1f}",
            "leave --cache-images out, or name a store on another disk",
        )
    progress.note(f"keeping the pixels of {split.task} ({split.name}): {about}{size / 1e6:,.0f} MB below {folder}")
    progress.start(f"pixels of {split.task} ({split.name})", len(split))


def _reserve(path: Path) -> None:
    """Claim the room of a file on the disk now: a full disk would end a write through a map without an error to catch."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
