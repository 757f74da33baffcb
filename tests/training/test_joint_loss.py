"""Images of several tasks, each judged by the head of its own."""

import torch
import torch.nn.functional as F  # noqa: N812

from wisepatch.training.joint_loss import by_task
from wisepatch.training.objectives.start import loss_of

SIZES = (3, 4, 2)


def batch(n=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, sum(SIZES), generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(sum(SIZES), (n,), generator=generator)


def slowly(logits, labels, smoothing=0.0, weights=None):
    """The mean over images of the cross entropy among the classes of an image's own task, one image after the other."""
    losses = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        first = 0 if label < 3 else 3 if label < 7 else 7
        size = SIZES[(0, 3, 7).index(first)]
        own = row[first : first + size]
        log = own - own.exp().sum().log()
        target = torch.full((size,), smoothing / size, dtype=torch.float64)
        target[label - first] += 1 - smoothing
        losses.append(-(target * log).sum() * (1 if weights is None else weights[label]))
    return torch.stack(losses).mean()


def test_loss_is_that_of_each_image_among_the_classes_of_its_own_task():
    logits, labels = batch()
    for smoothing in (0.0, 0.2):
        assert torch.allclose(loss_of(logits, labels, smoothing, None, SIZES), slowly(logits, labels, smoothing))
    assert not torch.allclose(loss_of(logits, labels, 0.0, None), slowly(logits, labels))


def test_weights_of_classes_stay_with_their_classes():
    logits, labels = batch(seed=1)
    weights = torch.rand(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(loss_of(logits, labels, 0.1, weights, SIZES), slowly(logits, labels, 0.1, weights))


def test_logits_of_other_tasks_have_no_gradient():
    logits, labels = batch()
    loss_of(logits, labels, 0.1, None, SIZES).backward()
    for row, label in zip(logits.grad, labels.tolist(), strict=True):
        own = range(3) if label < 3 else range(3, 7) if label < 7 else range(7, 9)
        assert all((row[index] == 0) == (index not in own) for index in range(9))


def test_a_task_without_images_is_left_out():
    logits, _ = batch(4)
    labels = torch.tensor([0, 1, 8, 7])
    parts = list(by_task(logits, labels, SIZES))
    assert [(part.classes, part.share) for part in parts] == [(slice(0, 3), 0.5), (slice(7, 9), 0.5)]
    assert torch.equal(parts[1].labels, torch.tensor([1, 0]))


def test_one_task_alone_is_plain_cross_entropy():
    logits, labels = batch()
    assert torch.equal(loss_of(logits, labels, 0.1, None, (9,)), F.cross_entropy(logits, labels, label_smoothing=0.1))
