"""What a training reads: the weights of classes that are not equally frequent."""

import numpy as np
import pytest
import torch

from wisepatch import TrainConfig, find_task
from wisepatch.datasets.samples import Split, Subset
from wisepatch.datasets.training_batches import Seeded
from wisepatch.errors import UsageError
from wisepatch.evaluation.features import Features
from wisepatch.training.data import class_weights
from wisepatch.training.objectives.start import loss_of


def test_balanced_weights_are_scikit_learns_and_every_class_counts_the_same():
    from sklearn.utils.class_weight import compute_class_weight

    config = TrainConfig.with_defaults("Shapes", weights="balanced")
    task = find_task("Shapes")
    labels = torch.tensor([0] * 30 + [1] * 10 + [2] * 5)
    features = Features(torch.zeros(45, 2), labels)
    weights = class_weights(
        config, Seeded(Split("Shapes", "train", (), "top1", features), 0), task, torch.device("cpu")
    )
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    assert weights[:3].tolist() == pytest.approx(expected)
    logits = torch.randn(45, 10, generator=torch.Generator().manual_seed(0))
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    of_classes = [float(each[labels == label].mean()) for label in range(3)]
    assert float(loss_of(logits, labels, 0.0, weights)) == pytest.approx(sum(of_classes) / 3)
    assert float(loss_of(logits, labels, 0.0, None)) == pytest.approx(float(each.mean()))
    assert class_weights(TrainConfig.with_defaults("Shapes"), features, task, torch.device("cpu")) is None
    with pytest.raises(UsageError, match="the labels of Shapes are not known without reading every image"):
        class_weights(config, Subset([object()], [0]), task, torch.device("cpu"))
