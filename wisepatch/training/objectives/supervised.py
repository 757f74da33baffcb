"""Objectives of labels alone: cross entropy, after a linear classifier (LP-FT), or with a penalty on leaving the start (L2-SP)."""

from __future__ import annotations

from itertools import chain, count, islice
from typing import Any

import torch

from wisepatch.datasets.training_batches import Plan, TrainingBatch
from wisepatch.evaluation.features import Features
from wisepatch.models.classifier import Classifier
from wisepatch.training.objectives.start import Loss, TrainingStart, loss_of

PROBE_BATCH = 512  # images a step of the linear classifier: WiSE-FT's


def cross_entropy(start: TrainingStart) -> Loss:
    """Return the mean of ``-log p(y | x)`` over the images (WiSE-FT section 3, PAINT section 3)."""

    def loss(model: Any, batch: TrainingBatch) -> torch.Tensor:
        return start.cross_entropy(model(batch.images), batch)

    return loss


def linear_probing_first(start: TrainingStart) -> Loss:
    """Train the head on fixed features, then return the cross entropy that trains all (Kumar et al. 2022, section 3.4: LP-FT).

    The head is trained with AdamW for ``steps`` of 512 features of the training images, uncropped, from the zero-shot head on, with
    the weight decay of what follows: as WiSE-FT trains one. The paper fits a logistic regression from nothing, and picks its L2
    penalty among a hundred on validation data, which is not there while a training runs.
    """
    assert start.fixed_features is not None
    probe(start.classifier, start.fixed_features(), start)
    return cross_entropy(start)


def probe(classifier: Classifier, given: Features, start: TrainingStart) -> None:
    """Train weight and bias of ``classifier`` in place on features ``(n, dim)``: every process does the same."""
    values, labels = given.features.to(start.device), given.labels.to(start.device)
    weight, bias = (each.detach().to(start.device).requires_grad_() for each in (classifier.weight, classifier.bias))
    plan = Plan(len(values), PROBE_BATCH, start.config.seed)
    weights = start.class_weights
    optimizer = torch.optim.AdamW([weight, bias], lr=start.params["lr"], weight_decay=start.config.wd)
    orders = (torch.tensor(plan.order(epoch), device=start.device).split(PROBE_BATCH) for epoch in count())
    for rows in islice(chain.from_iterable(orders), start.params["steps"]):
        logits = torch.nn.functional.linear(values[rows], weight, bias)
        optimizer.zero_grad()
        loss_of(logits, labels[rows], start.config.label_smoothing, weights).backward()
        optimizer.step()
    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)


def starting_point(start: TrainingStart) -> Loss:
    """Return the cross entropy with ``weight / 2 * |theta - theta_0|^2`` (Li et al. 2018, equation 2: L2-SP).

    It takes the place of weight decay. The paper's decay of new layers (equation 3) has nothing to act on: here all that is trained
    starts from given weights, the head too. The weight 0.1 is that of the authors' code, for the loss as it stands here, though
    they count no biases; with AdamW, which scales gradients, it is not the pull of their SGD.
    """
    begun = {name: each.detach().to(start.device, copy=True) for name, each in start.classifier.named_parameters()}

    def loss(model: Any, batch: TrainingBatch) -> torch.Tensor:
        trained = [(begun[name], each) for name, each in start.classifier.named_parameters() if each.requires_grad]
        distance = torch.stack([(each - origin).square().sum() for origin, each in trained]).sum()
        penalty: torch.Tensor = start.params["weight"] / 2 * distance
        return start.cross_entropy(model(batch.images), batch) + penalty

    return loss
