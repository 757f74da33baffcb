"""ImageNet's shifts: miniature files in the publishers' own layouts."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from tests.datasets.published.layouts import BENCHMARKS, FOLDERS, SHIFTS, VAL_CLASSES, encoded, task, write_images
from wisepatch.datasets.published.imagenet import SHOTS
from wisepatch.datasets.samples import labels_of
from wisepatch.errors import DataError
from wisepatch.evaluation.passes import class_logits
from wisepatch.plugins import registry
from wisepatch.tasks import find_task


@pytest.mark.parametrize("name", ["ImageNetR", "ImageNetA"])
def test_restricted_shifts_have_the_published_200_classes(name):
    indices = BENCHMARKS["imagenet_subsets"][name]
    dataset = task(name)
    assert dataset.label_map == tuple((index,) for index in indices)
    assert list(dataset.classes) == [open_clip.IMAGENET_CLASSNAMES[index] for index in indices]


def test_objectnet_has_the_published_113_classes_in_the_order_of_their_folders():
    dataset, published = task("ObjectNet"), BENCHMARKS["objectnet"]
    folders = sorted(published)
    assert list(dataset.classes) == [published[folder]["name"].lower() for folder in folders]
    assert dataset.label_map == tuple(tuple(published[folder]["imagenet"]) for folder in folders)
    assert len(set(folders)) == 113


@pytest.mark.parametrize("name", [*SHIFTS, *VAL_CLASSES, *(f"ImageNet{k}" for k in SHOTS)])
def test_every_shift_has_the_head_of_imagenet_without_any_data(name):
    dataset = task(name)
    assert dataset.head_names == task("ImageNet").classes
    assert dataset.templates == task("ImageNet").templates


@pytest.mark.parametrize("name", [*SHIFTS, *VAL_CLASSES])
def test_shifts_cannot_be_trained_on(name, data):
    with pytest.raises(DataError, match="no 'train' split") as caught:
        task(name).split("train", data)
    assert caught.value.hint == "it offers test"


def test_counts_of_val_classes_are_those_of_the_testbed():
    counts = [task(name).counts["test"] for name in VAL_CLASSES]
    assert counts == [10_000, 10_000, 6250, 14_400, 11_550]


@pytest.mark.parametrize("name", ["ImageNet", "ImageNet16", *SHIFTS, *VAL_CLASSES])
def test_missing_data_is_said_with_source_and_folder(name, data):
    with pytest.raises(DataError, match=f"^{name} is not below {data}") as caught:
        task(name).split("test", data)
    assert "fetch it from https://" in caught.value.hint
    assert f"put it below {data} as " in caught.value.hint
    folder = task(name).layouts[0].strip("{").split("/")[0]
    assert folder in caught.value.hint


def test_v2_is_labelled_by_the_numbers_of_its_folders(data):
    write_images(data, [f"ImageNetV2-matched-frequency/{i}/{n}.jpeg" for i in (0, 2, 10, 999) for n in "ab"])
    split = task("ImageNetV2").split("test", data)
    assert labels_of(split.samples) == [0, 0, 2, 2, 10, 10, 999, 999]
    assert split[7][0].mode == "RGB"


def test_v2_is_found_under_the_name_of_its_archive(data):
    write_images(data, ["imagenetv2-matched-frequency-format-val/10/x.jpeg"])
    assert task("ImageNetV2").split("test", data)[0][1] == 10


@pytest.mark.parametrize("below", ["sketch", "imagenet-sketch"])
def test_sketch_has_imagenets_folders(below, data):
    write_images(data, [f"{below}/{FOLDERS[i]}/sketch_0.JPEG" for i in (5, 998)])
    assert labels_of(task("ImageNetSketch").split("test", data).samples) == [5, 998]


@pytest.mark.parametrize(("name", "below"), [("ImageNetR", "imagenet-r"), ("ImageNetA", "imagenet-a")])
def test_restricted_shifts_are_labelled_by_their_own_classes(name, below, data):
    indices = BENCHMARKS["imagenet_subsets"][name]
    write_images(data, [f"{below}/{FOLDERS[indices[place]]}/art_0.jpg" for place in (0, 100, 199)])
    (data / below / "README.txt").write_text("no image\n")
    split = task(name).split("test", data)
    assert labels_of(split.samples) == [0, 100, 199]
    logits = torch.zeros(3, 1000)
    outside = next(i for i in range(1000) if i not in indices)
    logits[:, outside] = 9
    for row, place in enumerate((0, 100, 199)):
        logits[row, indices[place]] = 1
    assert class_logits(task(name).label_map)(logits).argmax(1).tolist() == [0, 100, 199]


@pytest.mark.parametrize(("name", "below"), [("ImageNetR", "imagenet-r"), ("ImageNetA", "imagenet-a")])
def test_folder_of_another_class_of_imagenet_is_refused(name, below, data):
    absent = next(i for i in range(1000) if i not in BENCHMARKS["imagenet_subsets"][name])
    write_images(data, [f"{below}/{FOLDERS[absent]}/art_0.jpg"])
    with pytest.raises(DataError, match=f"{FOLDERS[absent]} is not the folder of one of its classes"):
        task(name).split("test", data)


def framed(size=(20, 16), border=2):
    image = Image.new("RGB", size, "red")
    image.paste((0, 0, 255), (border, border, size[0] - border, size[1] - border))
    return image


def test_objectnet_loses_its_frame_before_anything_else(data):
    images = data / "objectnet-1.0/images"
    for folder in ("alarm_clock", "bench", "air_freshener_of_none"):
        (images / folder).mkdir(parents=True)
        framed().save(images / folder / "1.png")
    dataset = task("ObjectNet")
    split = dataset.split("test", data)
    assert [dataset.classes[split[i][1]] for i in range(len(split))] == ["alarm clock", "bench"]
    image, _ = split[0]
    assert image.size == (16, 12)
    assert (np.asarray(image) == (0, 0, 255)).all()
    assert dataset.split("test", data, lambda image: image.size)[0][0] == (16, 12)


def test_objectnet_without_its_classes_is_no_objectnet(data):
    write_images(data / "objectnet-1.0/images", ["unknown/1.png"], encoded("PNG"))
    with pytest.raises(DataError, match="it has none of the classes that ImageNet has"):
        task("ObjectNet").split("test", data)


def test_class_of_objectnet_has_the_largest_of_its_logits():
    dataset = task("ObjectNet")
    logits = torch.arange(1000.0).flip(0).repeat(2, 1)
    logits[1, 530] = 5000
    said = class_logits(dataset.label_map)(logits)
    clock, published = dataset.classes.index("alarm clock"), BENCHMARKS["objectnet"]
    assert said.shape == (2, 113)
    assert (said[0, clock], said[1, clock]) == (999 - 409, 5000)
    for row in range(2):
        expected = [max(logits[row, i].item() for i in published[f]["imagenet"]) for f in sorted(published)]
        assert said[row].tolist() == expected


@pytest.mark.parametrize("name", VAL_CLASSES)
def test_val_classes_are_imagenets_own_images_of_the_shifts_classes(name, imagenet):
    dataset = task(name)
    split = dataset.split("test", imagenet)
    assert len(split) == sum(map(len, dataset.label_map)) == dataset.counts["test"] // 50
    for path, label in split.samples.files:
        assert FOLDERS.index(Path(path).parent.name) in dataset.label_map[label]
    assert split[0][0].size == (8, 6)
    assert (dataset.metric, dataset.extra_metrics) == ("top1", ())


def test_val_classes_need_images_of_these_classes(data):
    write_images(data, [f"imagenet/val/{FOLDERS[0]}/ILSVRC2012_val_00000001.JPEG"])
    with pytest.raises(DataError, match="it has none of this task's classes"):
        task("ImageNetAValClasses").split("test", data)


def test_listing_names_every_task_once():
    known = registry().datasets
    assert {"ImageNet", *SHIFTS, *VAL_CLASSES, *(f"ImageNet{k}" for k in SHOTS)} <= set(known)
    assert find_task("ImageNetVal").split == "val"
    assert find_task("imagenetv2").dataset.name == "ImageNetV2"
