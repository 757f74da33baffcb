"""Some images of a split: how many of each class, always the same, and what tells them from the whole."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from wisepatch import Annotations, Dataset, find_task
from wisepatch.datasets.limiting import limited
from wisepatch.errors import UsageError


class Labelled:
    def __init__(self, labels, annotations=None):
        self.labels, self.annotations = labels, annotations or Annotations()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return index, self.labels[index]


def test_every_class_has_its_share_and_one_image_at_least():
    samples = Labelled([0] * 600 + [1] * 300 + [2] * 99 + [3])
    assert Counter(limited(samples, 100).labels) == {0: 59, 1: 30, 2: 10, 3: 1}
    assert set(limited(samples, 4).labels) == {0, 1, 2, 3}
    assert len(limited(samples, 2)) == 2
    assert limited(samples, 1000) is samples


def test_for_evaluation_rare_classes_count_as_much_as_in_the_split():
    """Of 99 rare classes and a common one, an image of each would be half of 200; a tenth of the split is theirs."""
    rare = []
    for length in range(200):  # the shuffle goes by the number of images
        samples = Labelled([0] * (9010 + length) + [1 + index % 99 for index in range(990)])
        rare.append(200 - Counter(limited(samples, 200, every_class=False).labels)[0])
    assert sum(rare) / len(rare) == pytest.approx(200 * 990 / 10_110, abs=0.5)
    assert 200 - Counter(limited(samples, 200).labels)[0] == 99
    alike = Labelled([index % 7 for index in range(490)])
    for limit in (5, 50, 400):
        assert limited(alike, limit, every_class=False).indices == limited(alike, limit).indices


def test_a_smaller_choice_lies_within_a_larger_one_in_the_order_of_the_split():
    samples = Labelled([index % 7 for index in range(500)])
    choices = [limited(samples, limit).indices for limit in (5, 50, 51, 400)]
    assert all(set(few) < set(more) for few, more in pairwise(choices))
    assert all(choice == sorted(choice) for choice in choices)
    assert choices[1] == limited(samples, 50).indices != list(range(50))


def test_sequences_of_frames_stay_whole():
    rows = [list(range(first, first + 5)) for first in range(0, 100, 5)]
    samples = Labelled([row for row in range(20) for _ in range(5)], Annotations(sequences=rows))
    chosen = limited(samples, 23)
    assert len(chosen) == 20
    assert len(chosen.annotations.sequences) == 4
    assert len(limited(samples, 2)) == 5


def test_training_keeps_every_class_and_evaluation_their_shares(tmp_path):
    def opened(split, root, transform=None):
        return Labelled([0] * 2000 + [1 + index % 40 for index in range(40)])

    splits = ("train", "val", "test")
    dataset = Dataset("Odd", tuple(map(str, range(41))), opened, splits=splits, limit=60)
    classes = {split: len(set(dataset.split(split, tmp_path).samples.labels)) for split in ("train", "test")}
    assert classes["train"] == 41
    assert classes["test"] < 10


def test_a_task_keeps_its_limit_through_splits_renaming_and_attacks(shapes, tmp_path):
    for spec in (str(shapes), f"typo:{shapes}", f"{shapes}@all"):
        task = find_task(spec, ["disc", "box", "wedge"], limit=3)
        opened, whole = (each.dataset.split(each.split or "train", tmp_path) for each in (task, find_task(spec)))
        assert len(opened) == 3 < len(whole)
        assert opened.fingerprint() != whole.fingerprint()
        assert set(opened.image_ids()) < set(whole.image_ids())
    far = replace(find_task(str(shapes)).dataset, limit=10_000).split("train", tmp_path)
    assert far.fingerprint() == find_task(str(shapes)).dataset.split("train", tmp_path).fingerprint()


def test_a_limit_that_leaves_nothing_is_refused():
    with pytest.raises(UsageError, match="a limit of 0 images leaves nothing of 'Shapes'") as caught:
        find_task("Shapes", limit=0)
    assert caught.value.hint
