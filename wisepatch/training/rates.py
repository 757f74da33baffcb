"""Measure how long an image takes, in evaluation and in training, and the memory that it needs; weights stay as they are."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.config import EvalConfig, TrainConfig
from wisepatch.datasets.loading import batches_on
from wisepatch.datasets.samples import Split, Subset
from wisepatch.devices import device as this_device
from wisepatch.evaluation.features import PRECISIONS
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import Clip
from wisepatch.models.tower import Tower
from wisepatch.training.finetuning import freeze

MEASURED_SECONDS = 1.5  # after which a measurement is long enough


class Rates(NamedTuple):
    """Seconds an image of a forward pass in evaluation and of a step of training, bytes of its activations, what is trained."""

    forward: float
    step: float
    activations: int
    trained: list[torch.nn.Parameter]


def measure_rates(config: TrainConfig, settings: EvalConfig, clip: Clip, classifier: Classifier, train: Split) -> Rates:
    """Measure with images of ``train``, in this process alone. With a frozen encoder a step costs next to nothing."""
    forward = _seconds_an_image(_evaluating(clip, settings), config.batch_size, train)
    trained = freeze(config, classifier)
    return Rates(forward, *((0.0, 0) if config.freeze_encoder else _training(config, clip, classifier, train)), trained)


def _evaluating(clip: Clip, settings: EvalConfig) -> Callable[[torch.Tensor, torch.Tensor], object]:
    """Return a function that computes features of a batch, with a tower of its own."""
    tower = Tower(copy.deepcopy(clip.model.visual), this_device(), PRECISIONS[settings.mixed_precision])

    def run(images: torch.Tensor, _: torch.Tensor) -> object:
        with torch.inference_mode():
            return tower.features(tower.take(clip.normalise(images)))

    return run


def _training(config: TrainConfig, clip: Clip, classifier: Classifier, train: Split) -> tuple[float, int]:
    """Return the seconds of forward and backward, and the bytes of activations, an image."""
    device, held = this_device(), [0]
    classifier.to(device).train()
    weights = {parameter.data_ptr() for parameter in classifier.parameters()}
    seen: set[int] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights | seen:
            seen.add(storage.data_ptr())
            held[0] += storage.nbytes()
        return tensor

    def step(images: torch.Tensor, labels: torch.Tensor) -> object:
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.mixed_precision, torch.bfloat16)
        with torch.autocast(device.type, half, enabled=config.mixed_precision != "no"):
            loss = F.cross_entropy(classifier(clip.normalise(images)), labels.to(images.device))
        loss.backward()
        classifier.zero_grad(set_to_none=True)
        return loss

    def counted(images: torch.Tensor, labels: torch.Tensor) -> object:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            return step(images, labels)

    first = next(batches_on(Subset(train.samples, range(1)), 1, device))
    counted(first.images, first.labels)
    return _seconds_an_image(step, config.batch_size, train), held[0]


def _seconds_an_image(run: Callable[[torch.Tensor, torch.Tensor], object], batch_size: int, split: Split) -> float:
    """Measure on growing batches, up to ``batch_size``, until one takes long enough to be measured; each after a warm-up."""
    device, seconds, size = this_device(), math.inf, 1
    while True:
        batch = next(batches_on(Subset(split.samples, range(min(size, len(split)))), size, device))
        for _ in range(2):
            began = time.perf_counter()
            run(batch.images, batch.labels)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - began
        if seconds > MEASURED_SECONDS or size >= min(batch_size, len(split)):
            return seconds / len(batch.labels)
        size = min(size * 4, batch_size, len(split))
