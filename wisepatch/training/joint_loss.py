"""Take the logits of several tasks apart, so that each image is judged by the head of its own task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class OfTask(NamedTuple):
    """Images of a batch that belong to a task: logits ``(n, its classes)``, labels from 0, its classes, and its share of all."""

    logits: torch.Tensor
    labels: torch.Tensor
    classes: slice
    share: float


def by_task(logits: torch.Tensor, labels: torch.Tensor, sizes: Sequence[int]) -> Iterator[OfTask]:
    """Yield what a batch holds of each task, whose classes follow each other, ``sizes`` of them; tasks without images are left out.

    The means over the parts, weighed by their shares, add up to the mean over the batch (PAINT section 5, joint patching).
    """
    ends = list(accumulate(sizes))
    for first, end in zip([0, *ends], ends, strict=False):
        mine = (labels >= first) & (labels < end)
        own = labels[mine]
        if len(own):
            yield OfTask(logits[mine][:, first:end], own - first, slice(first, end), len(own) / len(labels))
