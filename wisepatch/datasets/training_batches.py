"""Load the shuffled batches of a training, epoch after epoch, without a pause between epochs.

Which image stands where follows from the seed and the epoch alone: not from the number of processes that load images, nor from
where an interrupted training goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from wisepatch.counting import count as things
from wisepatch.datasets.loading import MAX_IMAGES_PER_PIECE, ErrorsAsValues, checked, data_loader
from wisepatch.datasets.samples import Samples, set_epoch
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.ranks import rank, size

if TYPE_CHECKING:
    import torch


class TrainingBatch(NamedTuple):
    """The images of a batch that this process trains on, on its device.

    Its mean loss times ``weight``, averaged over all processes, is the mean loss of the whole batch.
    ``number`` counts batches over all epochs. ``others`` are unlabelled images ``(m, 3, height, width)`` beside them, if any.
    """

    images: torch.Tensor
    labels: torch.Tensor
    weight: float
    number: int = 0
    others: torch.Tensor | None = None
    others_weight: float = 1.0


@dataclass
class Seeded:
    """Seed the random crops of samples by a seed, the epoch and the index alone: the same with any number of workers."""

    samples: Samples
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image, cropped as in this epoch, and its label; torch's generator is left as it was."""
        import numpy as np
        import torch

        generator = torch.default_generator
        before = generator.get_state()
        generator.manual_seed(int(np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)[0]))
        try:
            return self.samples[index]
        finally:
            generator.set_state(before)

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops, as training does each epoch."""
        self.epoch = epoch
        set_epoch(self.samples, epoch)


@dataclass(frozen=True)
class Plan:
    """Deal images into the batches of a training: shuffled anew each epoch by a seed; the last of an epoch may be smaller.

    Of several processes each takes its share of every batch. Raises :class:`UsageError` for batches with fewer images than there
    are processes.
    """

    images: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        """Check the size of the batches."""
        if self.batch_size < size():
            raise UsageError(
                f"a batch of {things(self.batch_size, 'image')} cannot be shared by {size()} processes",
                "give a larger --batch-size",
            )

    @property
    def batches_per_epoch(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self.images // self.batch_size)

    def batches(self, first: int) -> Iterator[tuple[int, list[int], float]]:
        """Yield epoch, this process's images and their weight of the batch number ``first`` (from 0, over all epochs) and after."""
        epoch, done = divmod(first, self.batches_per_epoch)
        while True:
            order = self.order(epoch)
            for begin in range(done * self.batch_size, self.images, self.batch_size):
                batch = order[begin : begin + self.batch_size]
                mine = batch[rank() :: size()]
                yield epoch, mine or batch[:1], len(mine) * size() / len(batch)  # none: an image without weight
            epoch, done = epoch + 1, 0

    def order(self, epoch: int) -> list[int]:
        """Return the images of an epoch in their order."""
        import torch

        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        torch.empty((), dtype=torch.int64).random_(
            generator=generator
        )  # PyTorch's data loader drew a number first, once
        order: list[int] = torch.randperm(self.images, generator=generator).tolist()
        return order


def training_batches(
    samples: Samples, plan: Plan, first: int, count: int, device: torch.device, *, workers: int = 0
) -> Iterator[TrainingBatch]:
    """Yield ``count`` batches of a plan from number ``first`` on, on ``device``.

    Workers hand over pieces of :data:`~wisepatch.datasets.loading.MAX_IMAGES_PER_PIECE` images at most, and go on with the next
    epoch while the last batches of one are trained on.
    """
    import torch

    piece = MAX_IMAGES_PER_PIECE if workers else plan.batch_size
    loaded = data_loader(_Visits(samples), _Pieces(plan, first, count, piece), workers, device.type == "cuda")
    pieces = map(checked, loaded)
    for number, (_, mine, weight) in enumerate(islice(plan.batches(first), count), first):
        parts = [
            (images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
            for images, labels in islice(pieces, -(-len(mine) // piece))
        ]
        images, labels = (each[0] if len(each) == 1 else torch.cat(each) for each in zip(*parts, strict=True))
        yield TrainingBatch(images, labels, weight, number)


@dataclass(frozen=True)
class _Pieces:
    """The visits that a worker loads at once, in the order of a plan."""

    plan: Plan
    first: int
    count: int
    piece: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch, mine, _ in islice(self.plan.batches(self.first), self.count):
            for begin in range(0, len(mine), self.piece):
                yield [(epoch, index) for index in mine[begin : begin + self.piece]]


class _Visits(ErrorsAsValues):
    """Read an image as it is in an epoch: ``(epoch, index)`` is asked for, in any process."""

    _epoch: int | None = None

    def __getitem__(self, visit: Any) -> tuple[Any, int] | WisepatchError:
        epoch, index = visit
        if epoch != self._epoch:  # typographic attacks write anew, crops are drawn anew
            set_epoch(self.samples, epoch)
            self._epoch = epoch
        return super().__getitem__(index)
