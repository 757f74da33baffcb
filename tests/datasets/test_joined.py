"""All images of a task as one split."""

import pytest

from wisepatch.datasets.joined import Joined
from wisepatch.datasets.samples import Annotations, annotations_of, image_ids, labels_of
from wisepatch.errors import DataError
from wisepatch.tasks import find_task


class Listed:
    def __init__(self, labels, annotations=None):
        self.labels = labels
        self.annotations = annotations or Annotations()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return f"image {index}", self.labels[index]


def test_images_follow_each_other_split_by_split():
    joined = Joined({"train": Listed([1, 2]), "val": Listed([]), "test": Listed([3])})
    assert len(joined) == 3
    assert [joined[index] for index in range(3)] == [("image 0", 1), ("image 1", 2), ("image 0", 3)]
    assert labels_of(joined) == [1, 2, 3]
    assert image_ids(joined) == ["train/0", "train/1", "test/0"]


def test_annotations_that_all_splits_have_are_joined():
    first = Listed([0, 1], Annotations([0, 1], ("a", "b"), sequences=[[0, 1]], written=[1, 0]))
    second = Listed([1], Annotations([1], ("a", "b"), sequences=[[0]]))
    joined = annotations_of(Joined({"train": first, "test": second}))
    assert joined == Annotations([0, 1, 1], ("a", "b"), None, [[0, 1], [2]], None)


def test_every_task_has_all_of_its_images(tmp_path):
    digits = find_task("Digits").dataset
    whole = digits.split("all", tmp_path)
    assert len(whole) == sum(len(digits.split(split, tmp_path)) for split in digits.available_splits)
    assert len(set(whole.image_ids())) == len(whole)
    assert whole.fingerprint() != digits.split("test", tmp_path).fingerprint()
    with pytest.raises(DataError, match="has no 'later' split"):
        digits.split("later", tmp_path)


def test_three_images_of_a_class_can_be_evaluated(cli, tmp_path):
    from tests.samples import draw_folder

    root = draw_folder(tmp_path / "few", per_class=3)
    result = cli("zeroshot", "--model", "demo", "--task", f"{root}@all", "--json")
    assert result.exit_code == 0, result.output
    assert '"split": "all"' in result.stdout
    assert '"n": 9' in result.stdout
    evaluated = cli("eval", "zeroshot", "--task", root, "--split", "all", "--json")
    assert '"n": 9' in evaluated.stdout
