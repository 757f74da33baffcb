"""The batches of a training: shuffled by seed and epoch, read ahead across epochs, the same wherever it goes on."""

import pytest
import torch

from wisepatch.datasets import training_batches as module
from wisepatch.datasets.training_batches import Plan, training_batches

CPU = torch.device("cpu")


class Drawn:
    """Samples that tell the epoch in which they were read."""

    epoch = -1

    def __len__(self):
        return 11

    def __getitem__(self, index):
        return torch.tensor([float(self.epoch)]), index

    def set_epoch(self, epoch):
        self.epoch = epoch


def read(first=0, count=7, workers=0, seed=5):
    batches = training_batches(Drawn(), Plan(11, 4, seed), first, count, CPU, workers=workers)
    return [(batch.images.flatten().tolist(), batch.labels.tolist(), batch.weight) for batch in batches]


def test_each_epoch_holds_every_image_once_in_an_order_of_its_own_and_is_drawn_anew():
    batches = read()
    assert [len(labels) for _, labels, _ in batches] == [4, 4, 3, 4, 4, 3, 4]
    epochs = [[label for _, labels, _ in batches[first : first + 3] for label in labels] for first in (0, 3)]
    assert [sorted(each) for each in epochs] == [list(range(11))] * 2
    assert epochs[0] != epochs[1]
    assert [set(images) for images, _, _ in batches] == [{0}] * 3 + [{1}] * 3 + [{2}]
    assert read(seed=6) != batches


@pytest.mark.parametrize("first", [1, 3, 5])
def test_a_training_that_goes_on_reads_what_it_would_have_read(first):
    assert read(first, 7 - first) == read()[first:]


def test_processes_that_load_images_hand_over_pieces_of_the_same_batches(monkeypatch):
    monkeypatch.setattr(module, "MAX_IMAGES_PER_PIECE", 3)
    assert read(2, 5, workers=2) == read(2, 5)
