"""Tasks, splits, subsets and annotations."""

import numpy as np
import pytest
import torch

from wisepatch.datasets import base
from wisepatch.datasets.image_files import FileSamples
from wisepatch.datasets.samples import Annotations, Split, Subset, annotations_of, labels_of
from wisepatch.datasets.splits import SPLITS, cut_validation
from wisepatch.errors import UsageError


def test_validation_is_the_papers_tenth_at_most_5000():
    images = range(60_000)
    train, val = cut_validation(images, "train"), cut_validation(images, "val")
    assert (len(train), len(val)) == (55_000, 5_000)
    assert train[0] == 36044
    first, second = torch.utils.data.random_split(images, [55_000, 5_000], torch.Generator().manual_seed(0))
    assert (train.indices, val.indices) == (list(first.indices), list(second.indices))


@pytest.mark.parametrize("size", [2, 9, 100, 1297])
def test_cut_splits_are_disjoint_and_whole(size):
    train, val = (cut_validation(range(size), split) for split in ("train", "val"))
    assert sorted([*train.indices, *val.indices]) == list(range(size))
    assert len(val) == max(size // 10, 1)


def test_dataset_checks_what_an_author_can_get_wrong():
    for wrong, message in (
        ({"templates": ()}, "no prompt templates"),
        ({"templates": ("a photo",)}, "has no {}"),
        ({"splits": ("dev",)}, r"names the splits \('dev',\): 'dev' is called 'val'"),
        ({"splits": ()}, "there is none"),
        ({"splits": ("test", "All")}, "'All' stands for all images"),
        ({"splits": ("testA", "testa")}, "'testa' comes twice"),
        ({"splits": ("test@A",)}, "'test@A' is no name of letters"),
        ({"classes": ()}, "has no classes"),
    ):
        with pytest.raises(UsageError, match=message):
            base.Dataset(**{"name": "Pets", "classes": ("cat",), "open": None} | wrong)


HALVES = {"name": "Halves", "classes": ("a", "b"), "open": None, "head_classes": ("x", "y", "z")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_map": ()},
        {"label_map": ((0,),)},
        {"label_map": ((0,), (3,))},
        {"label_map": ((0,), (-1,))},
        {"label_map": ((0,), (1,)), "head_classes": ()},
        {"label_map": ((), ()), "head_classes": ()},
    ],
)
def test_label_map_has_to_fit_classes_and_head(wrong):
    with pytest.raises(UsageError, match="the label_map of dataset 'Halves' does not fit"):
        base.Dataset(**HALVES | wrong)


def test_layouts_are_found_by_name_alone(tmp_path):
    layouts = ("a/{train,test}/*/*.jpg", "b/{x/{one,two},y}.txt")
    assert base.parts(layouts[0]) == ["a/train", "a/test"]
    assert sorted(base.parts(layouts[1])) == ["b/x/one.txt", "b/x/two.txt", "b/y.txt"]
    dataset = base.Dataset("Things", ("a", "b"), None, layouts=layouts)
    assert dataset.find(tmp_path) is None
    (tmp_path / "a" / "train").mkdir(parents=True)
    assert dataset.find(tmp_path) is None
    (tmp_path / "a" / "test").mkdir()
    assert dataset.find(tmp_path) is None  # empty folders hold no data
    for split in ("train", "test"):
        (tmp_path / "a" / split / "cat").mkdir()
    assert dataset.find(tmp_path) == layouts[0]


def test_expected_sizes_know_of_the_cut():
    dataset = base.Dataset("Things", ("a",), None, counts={"train": 60_000, "test": 10_000})
    assert [dataset.expected(split) for split in SPLITS] == [55_000, 5_000, 10_000]
    native = base.Dataset("Things", ("a",), None, splits=SPLITS, counts={"train": 50, "val": 7})
    assert [native.expected(split) for split in SPLITS] == [50, 7, None]


def test_splits_of_a_datasets_own_are_offered_after_the_usual_ones():
    dataset = base.Dataset("Pets", ("a",), None, splits=("testB", "train", "testA", "test"), counts={"testA": 7})
    assert dataset.available_splits == ("train", "val", "test", "testB", "testA")
    assert dataset.expected("testA") == 7


def test_context_of_some_images_keeps_what_is_whole():
    annotations = Annotations([0, 1, 0, 1], ("even", "odd"), [{0}, {1}, {2}, {3}], [[0, 1], [2, 3, 1]])
    assert annotations.of([3, 2, 1]) == Annotations([1, 0, 1], ("even", "odd"), [{3}, {2}, {1}], [[1, 0, 2]])
    assert annotations_of(Subset(FileSamples([("x", 4), ("y", 5)], None, annotations), [1])).groups == [1]
    assert annotations_of(range(3)) == Annotations()


def test_labels_are_known_without_decoding():
    samples = FileSamples([("missing.png", 4), ("missing.jpg", 5), ("none", 6)])
    assert labels_of(Subset(Subset(samples, [2, 0]), [1])) == [4]
    assert labels_of(range(3)) is None


def test_labels_of_torchvisions_pairs_are_known_unread():
    class Pairs:
        _samples = [("a.ppm", 4), ("b.ppm", 2)]  # noqa: RUF012 -- as torchvision keeps them

        def __len__(self):
            return 2

    assert labels_of(Pairs()) == [4, 2]
    Pairs._samples = [("a.ppm", 4)]
    assert labels_of(Pairs()) is None


def test_image_ids_are_indices_where_samples_have_no_names():
    split = Split("Numbers", "test", ("a",), "top1", Subset(range(10), [4, 2]))
    assert split.image_ids() == ["4", "2"]
    assert Split("Numbers", "test", ("a",), "top1", range(2)).image_ids() == ["0", "1"]


def test_old_keywords_of_datasets_work_and_warn():
    with pytest.warns(DeprecationWarning, match=r"Dataset\(also=\.\.\.\) is now called extra_metrics"):
        dataset = base.Dataset("Things", ("a", "b"), None, also=("top5",))
    assert dataset.extra_metrics == ("top5",)
    with pytest.warns(DeprecationWarning, match=r"Dataset\(merges=\.\.\.\) is now called label_map"):
        dataset = base.Dataset(**HALVES, merges=((0, 2), (1,)))
    assert dataset.label_map == ((0, 2), (1,))
    with pytest.warns(DeprecationWarning, match="merges"), pytest.raises(UsageError, match="does not fit"):
        base.Dataset(**HALVES, merges=((0,), (3,)))


def test_old_context_of_samples_is_read_and_warns():
    class Old:
        context = Annotations(groups=[1, 0], group_names=("x", "y"))

        def __len__(self):
            return 2

    with pytest.warns(DeprecationWarning, match="the attribute `context` of samples is now called annotations"):
        assert annotations_of(Old()).groups == [1, 0]
    split = Split("Old", "test", ("a",), "top1", Subset(Old(), [1]))
    with pytest.warns(DeprecationWarning, match="annotations"):
        assert split.annotations == Annotations(groups=[0], group_names=("x", "y"))


def test_lists_of_a_plugin_become_tuples():
    dataset = base.Dataset("Pets", ["cat", "dog"], None, splits=["train", "test"], aliases=["animals"])
    assert (dataset.splits, dataset.aliases) == (("train", "test"), ("animals",))
    hash(dataset)


def test_other_labels_of_the_same_pixels_are_another_version():
    class Samples:
        def __init__(self, targets):
            self.data, self.targets = np.zeros((2, 4, 4, 3), np.uint8), targets

        def __len__(self):
            return 2

    one, other = (Split("Pets", "train", ("cat", "dog"), "top1", Samples(labels)) for labels in ([0, 1], [1, 0]))
    assert one.fingerprint() != other.fingerprint()
    assert len(one.fingerprint()) == 64
