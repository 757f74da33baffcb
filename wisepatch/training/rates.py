"""Measure how long an image takes, in evaluation and in training, and the memory that it needs; weights stay as they are."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from wisepatch.config import EvalConfig
from wisepatch.datasets.loading import batches_on
from wisepatch.datasets.samples import Split, Subset
from wisepatch.datasets.training_batches import TrainingBatch
from wisepatch.devices import device as this_device
from wisepatch.evaluation.features import PRECISIONS, Features
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import Clip
from wisepatch.models.tower import Tower
from wisepatch.models.two_towers import TwoTowers
from wisepatch.plugins import find_objective
from wisepatch.task_roles import RunTasks
from wisepatch.train_config import TrainConfig
from wisepatch.training.data import normalised
from wisepatch.training.layers import freeze
from wisepatch.training.objectives.start import Loss, TrainingStart, objective_params

MEASURED_SECONDS = 1.5  # after which a measurement is long enough


class Rates(NamedTuple):
    """Hold what a training takes: ``forward`` and ``step`` are seconds an image, in evaluation and in training.

    ``preparation`` are the seconds before the first step, without the features of the training images, which are computed once
    where ``needs_features``. ``memory`` is the training's in bytes: weights, gradients, moments, the activations of a batch, and
    what objective and averages hold beside them. ``trained`` are parameters of ``classifier``.
    """

    forward: float
    step: float
    preparation: float
    needs_features: bool
    memory: int
    classifier: Classifier
    trained: list[torch.nn.Parameter]


@dataclass(frozen=True)
class Images:
    """The images to measure with: those to train on, and unlabelled ones beside them, if any; labels of the latter mean nothing."""

    train: Split
    unlabelled: Split | None = None

    def batch(self, size: int) -> TrainingBatch:
        """Read ``size`` images that lie as far apart as can be, and as many unlabelled ones."""
        images, labels = _spread(self.train, size)
        others = None if self.unlabelled is None else _spread(self.unlabelled, size)[0]
        return TrainingBatch(images, labels.to(images.device), 1.0, others=others)


def _spread(split: Split, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    places = range(0, len(split), max(len(split) // size, 1))[:size]
    batch = next(batches_on(Subset(split.samples, places), size, this_device()))
    return batch.images, batch.labels


def measure_rates(
    config: TrainConfig, settings: EvalConfig, clip: Clip, classifier: Classifier, images: Images, tasks: RunTasks
) -> Rates:
    """Measure steps of the objective, in this process alone. With a frozen encoder a step costs next to nothing."""
    evaluate = _evaluating(clip, settings)
    forward = _seconds_an_image(evaluate, evaluate, images, config.batch_size)
    classifier.to(this_device())
    objective, before, asked = find_objective(config.objective), _tensor_bytes(), list[bool]()

    def fixed_features() -> Features:
        """Repeat the features of one batch up to the size of the split: what they cost is known, and need not be spent."""
        asked.append(True)
        batch = images.batch(min(config.batch_size, len(images.train)))
        rows = torch.arange(len(images.train)) % len(batch.labels)
        return Features(evaluate(batch).float().cpu()[rows], batch.labels.cpu()[rows])

    began = time.perf_counter()
    loss_of_batch = objective.prepare(
        TrainingStart(
            clip, classifier, tasks.patching, config, objective_params(config), this_device(), tasks.supported,
            autocast=partial(_autocast, config), fixed_features=fixed_features,
        )
    )  # fmt: skip
    preparation = time.perf_counter() - began
    if objective.trains_text:
        classifier = TwoTowers(clip, classifier)
    held = _tensor_bytes() - before
    trained = freeze(config, classifier)
    step, activations = 0.0, 0
    if not config.freeze_encoder:
        step, activations = _training(config, clip, classifier, loss_of_batch, images)
    weights = sum(tensor.nbytes for tensor in classifier.state_dict().values())
    copies = 4 if config.ema is not None or config.swa else 3  # gradient, two moments, and an average
    memory = weights + copies * sum(each.nbytes for each in trained) + activations + held
    return Rates(forward, step, preparation, config.freeze_encoder or bool(asked), memory, classifier, trained)


def _tensor_bytes() -> int:
    """Sum the bytes of all tensors that Python holds in this process."""
    gc.collect()
    storages = dict[int, int]()
    for each in gc.get_objects():
        if type(each) in (torch.Tensor, torch.nn.Parameter) and each.layout == torch.strided and not each.is_meta:
            with suppress(RuntimeError):  # what torch.export leaves behind has a size and no memory
                storages[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
    return sum(storages.values())


def _autocast(config: TrainConfig) -> torch.autocast:
    """Return the precision of the training as a context."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.mixed_precision, torch.bfloat16)
    return torch.autocast(this_device().type, half, enabled=config.mixed_precision != "no")


def _evaluating(clip: Clip, settings: EvalConfig) -> Callable[[TrainingBatch], torch.Tensor]:
    """Return a function that computes features of a batch, with a tower of its own."""
    tower = Tower(copy.deepcopy(clip.model.visual), this_device(), PRECISIONS[settings.mixed_precision])

    def run(batch: TrainingBatch) -> torch.Tensor:
        with torch.inference_mode():
            return tower.features(tower.take(clip.normalise(batch.images)))

    return run


def _training(
    config: TrainConfig, clip: Clip, classifier: Classifier, loss_of_batch: Loss, images: Images
) -> tuple[float, int]:
    """Return the seconds an image of forward and backward, and the bytes that are kept in between for a batch."""
    classifier.to(this_device()).train()
    weights = {parameter.data_ptr() for parameter in classifier.parameters()}
    kept: dict[int, int] = {}  # bytes by the number of images

    def step(batch: TrainingBatch) -> None:
        with _autocast(config):
            loss = loss_of_batch(classifier, normalised(batch, clip))
        loss.backward()
        classifier.zero_grad(set_to_none=True)

    def counted(batch: TrainingBatch) -> None:
        storages: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            step(batch)
        kept[len(batch.labels)] = sum(storages.values())

    seconds = _seconds_an_image(step, counted, images, config.batch_size)
    (few, bytes_of_few), (many, bytes_of_many) = min(kept.items()), max(kept.items())
    an_image = (bytes_of_many - bytes_of_few) / (many - few) if many > few else bytes_of_few
    return seconds, round(bytes_of_many + an_image * (min(config.batch_size, len(images.train)) - many))


def _seconds_an_image(
    run: Callable[[TrainingBatch], object], warm_up: Callable[[TrainingBatch], object], images: Images, batch_size: int
) -> float:
    """Measure on growing batches, up to ``batch_size``, until one takes long enough to be measured; each after a warm-up."""
    device, size, largest = this_device(), 1, min(batch_size, len(images.train))
    while True:
        batch = images.batch(size)
        warm_up(batch)
        began = time.perf_counter()
        run(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
        if seconds > MEASURED_SECONDS or size >= largest:
            return seconds / len(batch.labels)
        size = min(size * 4, largest)
