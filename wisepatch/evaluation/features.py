"""Compute the image features of a whole split once and cache them in the store: for image towers that do not change."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wisepatch.config import EvalConfig, ModelConfig
from wisepatch.datasets.loading import batches_on, same_for_all, worker_count
from wisepatch.datasets.samples import Split, Transform
from wisepatch.files import check_room
from wisepatch.models.clip import Clip, describe
from wisepatch.models.tower import Tower
from wisepatch.process_group import from_all, made_together, rows_of_all
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import size
from wisepatch.store.cache import versions
from wisepatch.store.checkpoints import Store

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Features:
    """Hold features ``(n, dim)`` of unit length in fp32 and labels ``(n,)`` of a split, as a map-style dataset."""

    features: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the features of one image, and its label."""
        return self.features[index], int(self.labels[index])


def features_key(visual: str, model: ModelConfig, precision: torch.dtype | None, split: Split) -> str:
    """Hash what the features of a split depend on: the image tower's hash, the model, the precision, the data, and versions."""
    design = describe(model) if model.is_local else model.to_json()
    made_by = versions("torch", "open_clip_torch", "torchvision", "pillow")
    parts = [visual, design, str(precision), split.fingerprint(), made_by]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def split_features(
    open_split: Callable[[Transform | None], Split],
    store: Store,
    visual: str,
    model: ModelConfig,
    load: Callable[[], Clip],
    device: torch.device,
    settings: EvalConfig,
    progress: Progress | None = None,
) -> Features:
    """Return the features of a split, from the cache or computed and cached.

    ``open_split`` opens it with a transform, ``visual`` is the hash of the image tower. ``load`` returns a CLIP with that tower,
    not prepared for evaluation before, and is called where the features are not in the cache.
    """
    progress, plain = progress or Silent(), same_for_all(open_split(None))
    precision, name = PRECISIONS[settings.mixed_precision], f"{plain.task} ({plain.name})"

    def compute() -> dict[str, torch.Tensor]:
        clip = load()
        tower = Tower(copy.deepcopy(clip.model.visual), device, precision, compiled=settings.compiled)
        split = open_split(clip.pixels)
        batch_size = settings.batch_size or min(from_all(tower.largest_batch(*clip.image_size)))
        workers = worker_count(settings.workers, len(split), clip.batch_bytes(batch_size))
        features, labels = {}, {}
        progress.start(f"features of {name}", len(split) // size())
        with torch.inference_mode():
            for first, images, truth in batches_on(split, batch_size, device, workers=workers):
                features[first] = tower.features(tower.take(clip.normalise(images))).cpu()
                labels[first] = truth
                if len(features) == 1:
                    check_room(store.root, len(split) * (features[first][0].nbytes + truth[0].nbytes))
                progress.advance(len(truth))
        progress.finish()
        return {"features": rows_of_all(features, len(split)), "labels": rows_of_all(labels, len(split))}

    def waiting() -> None:
        progress.note(f"another process computes the features of {name}: waiting for it")

    key = features_key(visual, model, precision, plain)
    tensors = made_together(
        lambda make: store.cache.tensors("features", key, make, waiting, note=progress.note), compute
    )
    return Features(tensors["features"], tensors["labels"])
