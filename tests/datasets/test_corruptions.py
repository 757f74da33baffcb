"""Corrupted tasks, ``corrupt:NAME[:KIND[:SEVERITY]]``: their names, what each image gets, and what tells them apart."""

import shutil
from collections import Counter

import numpy as np
import pytest

from tests.samples import draw_folder
from wisepatch import find_task
from wisepatch.datasets.corruption_parameters import KINDS
from wisepatch.datasets.loading import checked, loader
from wisepatch.datasets.samples import set_epoch
from wisepatch.errors import DataError, UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("spec", "found", "split"),
    [
        ("corrupt:Shapes", "corrupt:Shapes", None),
        ("CORRUPT:shapes:Fog", "corrupt:Shapes:fog", None),
        ("corrupt:ShapesVal:jpeg-compression:3", "corrupt:Shapes:jpeg_compression:3@val", "val"),
        ("corrupt:Shapes:fog:2@train", "corrupt:Shapes:fog:2@train", "train"),
        ("corrupt:typo:Shapes:snow", "corrupt:typo:Shapes:snow", None),
        ("typo:corrupt:Shapes:fog", "typo:corrupt:Shapes:fog", None),
    ],
)
def test_corrupted_task_is_found_by_every_spelling(spec, found, split):
    task, clean = find_task(spec), find_task("Shapes").dataset
    assert (task.spec, task.split) == (found, split)
    assert task.name == task.base_spec
    assert find_task(task.spec) == task
    assert (task.dataset.classes, task.dataset.templates) == (clean.classes, clean.templates)
    assert ("worst_corruption" in task.dataset.extra_metrics) == (":3" not in spec and ":2" not in spec)


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("corrupt:Shapes:fogg", UnknownNameError, "unknown corruption 'fogg'; did you mean fog"),
        ("corrupt:Shapes:fog:9", UsageError, "there is no severity 9 of fog"),
        ("corrupt:Shapes:fog:x", UsageError, "there is no severity 'x' of fog"),
        ("corrupt:Shapes:3", UsageError, "the severity 3 is of no kind"),
        ("corrupt:Shpes:fog", UnknownNameError, "unknown task 'Shpes'; did you mean Shapes"),
        ("corrupt:", UsageError, "the task 'corrupt:' names nothing to corrupt"),
        ("corrupt:corrupt:Shapes", UsageError, "the images of corrupt:Shapes are corrupted already"),
        ("corrupt:typo:corrupt:Shapes", UsageError, "the images of typo:corrupt:Shapes are corrupted already"),
        ("corrupt:no/where:fog", DataError, "there is no folder or CSV no/where"),
    ],
)
def test_corrupted_task_that_is_none_says_so(spec, kind, message):
    with pytest.raises(kind) as caught:
        find_task(spec)
    assert message in caught.value.message
    assert caught.value.hint


def test_each_image_has_one_corruption_and_all_are_drawn_evenly(tmp_path):
    opened = find_task("corrupt:Shapes").dataset.split("train", tmp_path)
    drawn = opened.annotations.corruption
    assert len(drawn) == len(opened) == 2000
    assert len(Counter(drawn)) == 75
    counts = Counter(kind for kind, _ in drawn)
    assert max(abs(count - 2000 / 15) for count in counts.values()) < 4 * np.sqrt(2000 / 15)
    fog = find_task("corrupt:Shapes:fog").dataset.split("test", tmp_path).annotations.corruption
    assert {kind for kind, _ in fog} == {KINDS.index("fog")}
    assert {severity for _, severity in fog} == {1, 2, 3, 4, 5}


def test_pictures_follow_from_the_name_of_an_image_and_not_from_its_place_or_the_number_of_workers(tmp_path):
    folder = draw_folder(tmp_path / "shapes", 12)
    shutil.copytree(folder, tmp_path / "moved" / "shapes")
    one, moved = (
        find_task(f"corrupt:{path}").dataset.split("train", tmp_path)
        for path in (folder, tmp_path / "moved" / "shapes")
    )
    assert [one[i][0].tobytes() for i in range(len(one))] == [moved[i][0].tobytes() for i in range(len(one))]
    by_name = dict(zip(one.image_ids(), one.annotations.corruption, strict=True))
    (folder / "circle" / "5.png").rename(folder / "circle" / "zzz.png")
    after = find_task(f"corrupt:{folder}").dataset.split("train", tmp_path)
    kept = dict(zip(after.image_ids(), after.annotations.corruption, strict=True))
    assert all(by_name[name] == kept[name] for name in by_name.keys() & kept.keys())
    assert one[0][0].tobytes() != find_task(str(folder)).dataset.split("train", tmp_path)[0][0].tobytes()

    def batches(workers):
        samples = find_task("corrupt:Shapes:gaussian_noise@val").dataset.split("val", tmp_path, as_tensor)
        return [images.sum().item() for images, _ in map(checked, loader(samples, 100, workers=workers))]

    assert batches(0) == batches(2)


def as_tensor(image):
    import torch

    return torch.from_numpy(np.array(image.resize((8, 8)))).long()


def test_training_draws_other_noise_each_epoch_and_the_same_after_a_resume(tmp_path):
    opened = find_task("corrupt:Shapes:shot_noise:3").dataset.split("train", tmp_path)
    still, pictures = opened[0][0].tobytes(), []
    for epoch in (0, 1, 0):
        set_epoch(opened, epoch)
        pictures.append(opened[0][0].tobytes())
    assert pictures[0] == pictures[2] != pictures[1]
    assert still not in pictures


def test_kind_and_severity_tell_answers_apart(tmp_path):
    words = ("", ":fog", ":fog:3", ":fog:4", ":snow:3")
    tasks = [find_task(f"corrupt:Shapes{word}") for word in words]
    assert len({task.dataset.split("test", tmp_path).fingerprint() for task in tasks}) == len(words)


def test_corrupted_folder_and_csv_take_options_class_names_and_limits(tmp_path):
    folder = draw_folder(tmp_path / "shapes", 12)
    (tmp_path / "few.csv").write_text(
        "\n".join(["file,kind", *(f"shapes/{c}/{i}.png,{c}" for c in ("circle", "square") for i in range(9))])
    )
    from wisepatch.datasets.reading import Reading
    from wisepatch.task_specs import with_reading

    word = with_reading(f"corrupt:{tmp_path}/few.csv:fog@train", Reading(path_column="file", label_column="kind"))
    task = find_task(word, ["disc", "box"])
    assert task.dataset.classes == ("disc", "box")
    assert (task.split, find_task(task.spec).split) == ("train", "train")
    assert len(find_task(f"corrupt:{folder}:fog", limit=6).dataset.split("train", tmp_path)) == 6


def test_too_few_images_are_an_error_that_says_how_many_it_takes(tmp_path):
    folder = draw_folder(tmp_path / "shapes", 12)
    for spec, limit, needed in (
        (f"corrupt:{folder}@val", None, 15),
        ("corrupt:Shapes", 9, 15),
        ("corrupt:Shapes:fog", 3, 5),
    ):
        task = find_task(spec, limit=limit)
        with pytest.raises(
            DataError, match=f"needs {needed} images at least, and its '(val|test)' split has"
        ) as caught:
            task.dataset.split(task.split or "test", tmp_path)
        assert "fog:3" in caught.value.hint
    assert len(find_task("corrupt:Shapes:fog:3", limit=1).dataset.split("test", tmp_path)) == 1
