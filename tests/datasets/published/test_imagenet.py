"""ImageNet and its few-shot sets: miniature files in the publishers' own layouts."""

from pathlib import Path

import numpy as np
import open_clip
import pytest

from tests.datasets.published.layouts import BENCHMARKS, FOLDERS, task, write_images
from wisepatch.datasets.prompts import prompts
from wisepatch.datasets.published.imagenet import open_imagenet
from wisepatch.datasets.samples import labels_of
from wisepatch.datasets.splits import cut_validation
from wisepatch.errors import DataError


def test_classes_and_prompts_of_imagenet_are_open_clips():
    dataset = task("ImageNet")
    assert list(dataset.classes) == list(open_clip.IMAGENET_CLASSNAMES)
    ours = prompts("zebra", dataset.templates)
    assert ours == [template("zebra") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert list(dataset.templates) == BENCHMARKS["templates"]["ImageNet"]


def test_folders_of_imagenet_are_sorted_as_every_reader_sorts_them():
    assert list(FOLDERS) == sorted(FOLDERS)
    assert len(set(FOLDERS)) == 1000
    assert (FOLDERS[0], FOLDERS[404], FOLDERS[999]) == ("n01440764", "n02690373", "n15075141")


def test_imagenet_is_read_from_its_class_folders(imagenet):
    dataset = task("imagenet")
    sizes = {split: len(dataset.split(split, imagenet)) for split in ("train", "val", "test")}
    assert sizes == {"train": 9000, "val": 1000, "test": 1000}
    test = dataset.split("test", imagenet)
    assert labels_of(test.samples) == list(range(1000))
    image, label = test[404]
    assert (image.mode, image.size, label) == ("RGB", (8, 6), 404)
    assert dataset.classes[label] == "airliner"
    assert dataset.find(imagenet) == "{imagenet/train/*/*.JPEG,imagenet/val_in_folder/*/*.JPEG}"


@pytest.mark.parametrize("below", ["imagenet/val", "ILSVRC/Data/CLS-LOC/val"])
def test_other_layouts_of_imagenet_are_found(below, data):
    train = below.replace("val", "train")
    write_images(data, [f"{train}/{FOLDERS[i]}/{FOLDERS[i]}_{n}.JPEG" for i in (3, 7) for n in range(10)])
    write_images(data, [f"{below}/{FOLDERS[7]}/ILSVRC2012_val_00000001.JPEG"])
    dataset = task("ImageNet")
    assert (len(dataset.split("train", data)), len(dataset.split("val", data))) == (18, 2)
    assert dataset.split("test", data)[0][1] == 7
    assert dataset.find(data) == f"{{{train}/*/*.JPEG,{below}/*/*.JPEG}}"


def test_test_images_that_are_not_sorted_are_refused_with_the_way_to_sort_them(data):
    write_images(data, ["imagenet/val/ILSVRC2012_val_00000001.JPEG"])
    for name in ("ImageNet", "ImageNet4", "ImageNetAValClasses"):
        with pytest.raises(DataError, match="are not in class folders") as caught:
            task(name).split("test", data)
        assert str(data / "imagenet/val") in caught.value.message
        assert "ILSVRC2012_devkit_t12.tar.gz" in caught.value.hint


def test_folder_that_is_no_class_of_imagenet_is_named(data):
    write_images(data, ["imagenet/val/tench/ILSVRC2012_val_00000001.JPEG"])
    with pytest.raises(DataError, match="tench is not the folder of one of its classes") as caught:
        task("ImageNet").split("test", data)
    assert "n01440764" in caught.value.hint


def paths(split):
    return [str(path) for path, _ in split.samples.files]


def test_few_shot_sets_are_seeded_nested_and_disjoint_from_val(imagenet):
    sets = {k: task(f"ImageNet{k}").split("train", imagenet) for k in (1, 2, 4)}
    for shots, split in sets.items():
        assert len(split) == 1000 * shots == task(f"ImageNet{shots}").expected("train")
        assert np.bincount(labels_of(split.samples)).tolist() == [shots] * 1000
        assert paths(split) == paths(task(f"ImageNet{shots}").split("train", imagenet))
    assert set(paths(sets[1])) < set(paths(sets[2])) < set(paths(sets[4]))
    val = task("ImageNet2").split("val", imagenet)
    whole = task("ImageNet").split("val", imagenet)
    assert paths(val) == [str(whole.samples.samples.files[i][0]) for i in whole.samples.indices]
    assert not set(paths(sets[4])) & set(paths(val))
    assert [val[i][1] for i in range(3)] == [whole[i][1] for i in range(3)]
    assert paths(task("ImageNet2").split("test", imagenet)) == paths(task("ImageNet").split("test", imagenet))


def test_few_shot_draw_is_what_it_says(imagenet):
    samples = open_imagenet("train", imagenet, None)
    kept = set(cut_validation(samples, "train").indices)
    mine = [i for i in sorted(kept) if samples.files[i][1] == 500]
    order = np.random.default_rng([0, 500]).permutation(len(mine))
    expected = [str(samples.files[mine[i]][0]) for i in order[:4]]
    split = task("ImageNet4").split("train", imagenet)
    assert [path for path in paths(split) if FOLDERS[500] in path] == expected
    places = [int(Path(path).stem.split("_")[1]) for path in paths(task("ImageNet1").split("train", imagenet))]
    assert len(set(places)) == 10  # the first of each class would be one and the same number


def test_few_shot_needs_enough_images_of_every_class(imagenet):
    with pytest.raises(DataError, match=r"ImageNet16: class n01440764 has \d+ images to draw 16 from") as caught:
        task("ImageNet16").split("train", imagenet)
    assert "complete ImageNet's training images" in caught.value.hint
