"""Open the images of a training, or their fixed features; deal them into batches, and weigh their classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wisepatch.datasets.loading import MAX_IMAGES_PER_PIECE, same_for_all, worker_count
from wisepatch.datasets.samples import Samples, Split, labels_of
from wisepatch.datasets.training_batches import Plan, Seeded, TrainingBatch, training_batches
from wisepatch.errors import UsageError
from wisepatch.evaluation.features import Features, split_features
from wisepatch.files import hash_tensors
from wisepatch.models.clip import Clip
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Store
from wisepatch.tasks import Task
from wisepatch.train_config import TrainConfig
from wisepatch.training.resume import Position

if TYPE_CHECKING:
    from accelerate import Accelerator


def open_samples(
    config: TrainConfig, task: Task, clip: Clip, store: Store, data: Path, accelerator: Accelerator, progress: Progress
) -> tuple[Samples, int, str]:
    """Open the training split; return its samples, the number of processes that load them, and the split's fingerprint.

    With a frozen encoder the features are computed once and stand in for the images.
    """
    if config.freeze_encoder:
        features = fixed_features(config, task, clip, store, data, accelerator, progress)
        return features, 0, task.dataset.split("train", data).fingerprint()
    split = same_for_all(task.dataset.split("train", data, clip.train_pixels))
    workers = 0
    # On a CPU training needs every core itself: with the embedded model, other processes cost it a tenth and more.
    if config.workers is not None or accelerator.device.type != "cpu":
        workers = worker_count(
            config.workers, len(split), clip.batch_bytes(min(config.batch_size, MAX_IMAGES_PER_PIECE))
        )
    return Seeded(split, config.seed), workers, split.fingerprint()


def fixed_features(
    config: TrainConfig, task: Task, clip: Clip, store: Store, data: Path, accelerator: Accelerator, progress: Progress
) -> Features:
    """Compute the features of the training images, uncropped, by the image tower as it is, or take them from the store."""
    return split_features(
        partial(task.dataset.split, "train", data), store, hash_tensors(clip.model.visual.state_dict()), clip.config,
        lambda: clip, accelerator.device, replace(config.evaluation, batch_size=config.batch_size), progress,
    )  # fmt: skip


def class_weights(config: TrainConfig, samples: Samples, task: Task, device: torch.device) -> torch.Tensor | None:
    """Return the weight of each class ``(classes,)`` in the loss where they are to be balanced: ``n / (classes * images of it)``.

    Classes without images do not count. Raises :class:`UsageError` where labels are not known without reading every image.
    """
    if config.weights == "none":
        return None
    inner = samples.samples if isinstance(samples, Seeded) else samples
    labels = labels_of(inner.samples if isinstance(inner, Split) else inner)
    if labels is None:
        reason = f"the labels of {task.name} are not known without reading every image"
        raise UsageError(reason, "leave --weights balanced out")
    counts = torch.bincount(torch.tensor(labels), minlength=len(task.dataset.head_names))
    return (len(labels) / ((counts > 0).sum() * counts.clamp_min(1))).to(device)


def batches_from(
    at: Position,
    samples: Samples,
    plan: Plan,
    config: TrainConfig,
    steps: int,
    workers: int,
    accelerator: Accelerator,
    unlabelled: Samples | None = None,
) -> Iterator[tuple[TrainingBatch, bool]]:
    """Yield the batches of all ``steps`` from ``at`` on, and whether a step ends with each; epochs and batches are counted there.

    A step does not span two epochs: the last one of an epoch may have fewer batches than ``config.grad_accumulation``. Beside each
    batch stand as many ``unlabelled`` images, where there are some, shuffled by themselves.
    """
    per_epoch, per_step = plan.batches_per_epoch, config.grad_accumulation
    epochs, rest = divmod(steps, math.ceil(per_epoch / per_step))
    first, end = at.epoch * per_epoch + at.batches, epochs * per_epoch + min(rest * per_step, per_epoch)
    batches = training_batches(samples, plan, first, end - first, accelerator.device, workers=workers)
    if unlabelled is not None:
        beside = Plan(len(unlabelled), config.batch_size, config.seed)
        others = training_batches(unlabelled, beside, first, end - first, accelerator.device, workers=workers)
        batches = (
            batch._replace(others=other.images, others_weight=other.weight)
            for batch, other in zip(batches, others, strict=True)
        )
    for number, batch in enumerate(batches, first):
        at.epoch, before = divmod(number, per_epoch)
        at.batches = before + 1
        yield batch, at.batches % per_step == 0 or at.batches == per_epoch


def normalised(batch: TrainingBatch, clip: Clip) -> TrainingBatch:
    """Return a batch whose images are normalised as the model expects them."""
    others = None if batch.others is None else clip.normalise(batch.others)
    return batch._replace(images=clip.normalise(batch.images), others=others)
