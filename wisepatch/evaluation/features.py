"""Image features of a whole split, computed once and kept in the store: for encoders that do not change."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wisepatch.config import check_precision
from wisepatch.datasets.loading import batches_on
from wisepatch.files import hash_tensors
from wisepatch.models.tower import Tower
from wisepatch.progress import Progress, Silent
from wisepatch.store.cache import versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from wisepatch.datasets.base import Split
    from wisepatch.models.clip import Clip
    from wisepatch.store.checkpoints import Store

    Tensors = Mapping[str, torch.Tensor]


def precision_of(mixed_precision: str) -> torch.dtype | None:
    """The type that ``no``, ``bf16`` or ``fp16`` computes in; ``None`` for fp32. Raises :class:`UsageError` for another word."""
    import torch

    return {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[check_precision(mixed_precision)]


HELD = 256  # images, or features of images, that every mix sees together (on a GPU more)


@dataclass(frozen=True)
class Features:
    """Features ``(n, dim)`` of unit length in fp32 and labels ``(n,)`` of a split: a map-style dataset of its images' features."""

    features: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the features of one image, and its label."""
        return self.features[index], int(self.labels[index])


def tower_key(clip: Clip) -> str:
    """A hash of the image tower's weights and design, and of its preprocessing."""
    visual = clip.model.visual
    parts = hash_tensors(visual.state_dict()), str(visual), str(clip.transform)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def features_key(tower: str, precision: torch.dtype | None, split: Split) -> str:
    """Hash what a split's features depend on: tower, precision, the split's fingerprint, and the packages that decode."""
    made_by = versions("pillow", "torchvision", "open_clip_torch")
    return hashlib.sha256(f"{tower}\n{precision}\n{split.fingerprint()}\n{made_by}".encode()).hexdigest()[:32]


def split_features(
    clip: Clip,
    split: Split,
    store: Store,
    device: torch.device,
    *,
    batch_size: int | None = None,
    workers: int = 0,
    precision: torch.dtype | None = None,
    compiled: bool = False,
    fast: bool = False,
    tower: str = "",
    progress: Progress | None = None,
) -> Features:
    """The features of a split that was opened with ``clip.pixels``, from the store or computed and kept.

    ``fast`` says that it was opened with ``clip.fast_pixels``. They are found again by :func:`features_key`; ``tower`` is the
    :func:`tower_key`, where it is known.
    """
    import torch

    progress = progress or Silent()
    key = features_key(f"{tower or tower_key(clip)}{' fast' if fast else ''}", precision, split)
    name = f"{split.task} ({split.name})"

    def compute() -> Tensors:
        ready = Tower(copy.deepcopy(clip.model.visual), device, precision, compiled=compiled)
        found, labels = [], []
        progress.start(f"features of {name}", len(split))
        with torch.inference_mode():
            size = batch_size or ready.largest_batch(*clip.image_size)
            for images, truth in batches_on(split, size, device, workers=workers):
                found.append(ready.features(ready.take(clip.normalise(images))).cpu())
                labels.append(truth)
                progress.advance(len(truth))
        progress.finish()
        return {"features": torch.cat(found), "labels": torch.cat(labels)}

    waits = f"another process computes the features of {name}: waiting for it"
    return Features(**store.cache.tensors("features", key, compute, lambda: progress.note(waits), note=progress.note))
