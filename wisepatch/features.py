"""Image features of a whole split, computed once and kept in the store: for encoders that do not change."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wisepatch.config import check_precision
from wisepatch.datasets.loading import checked, loader
from wisepatch.files import hash_tensors
from wisepatch.progress import Progress, Silent
from wisepatch.towers import Tower

if TYPE_CHECKING:
    import torch

    from wisepatch.datasets.base import Split
    from wisepatch.encoder import Encoder
    from wisepatch.store import Store


def precision_of(mixed_precision: str) -> torch.dtype | None:
    """The type that ``no``, ``bf16`` or ``fp16`` computes in; ``None`` for fp32. Raises :class:`UsageError` for another word."""
    import torch

    return {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[check_precision(mixed_precision)]


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


def split_features(
    encoder: Encoder,
    split: Split,
    store: Store,
    device: torch.device,
    *,
    batch_size: int | None = None,
    workers: int = 0,
    precision: torch.dtype | None = None,
    compiled: bool = False,
    progress: Progress | None = None,
) -> Features:
    """The features of a split that was opened with ``encoder.pixels`` (or ``fast_pixels``), from the store or computed and kept.

    They are found again by the tower's weights and design, the preprocessing, the precision and the split's fingerprint.
    """
    import torch

    progress, visual = progress or Silent(), encoder.model.visual
    parts = (
        hash_tensors(visual.state_dict()), str(visual), str(encoder.transform), str(precision), split.fingerprint(),
    )  # fmt: skip
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    cached = store.load_features(key)
    if cached:
        return Features(cached["features"], cached["labels"])
    tower = Tower(copy.deepcopy(visual), device, precision, compiled=compiled)
    batch_size = batch_size or tower.largest_batch(*encoder.image_size)
    found, labels = [], []
    progress.start(f"features of {split.task} ({split.name})", len(split))
    with torch.inference_mode():
        for batch in loader(split, batch_size, workers=workers):
            images, truth = checked(batch)
            images = tower.take(encoder.normalise(images.to(device, non_blocking=True)))
            found.append(tower.features(images).cpu())
            labels.append(truth)
            progress.advance(len(truth))
    progress.finish()
    computed = Features(torch.cat(found), torch.cat(labels))
    store.save_features(key, computed.features, computed.labels)
    return computed
