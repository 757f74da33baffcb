"""The images of several tasks as one training set."""

from collections import Counter

import pytest

from tests.samples import draw_folder
from wisepatch.datasets.samples import image_ids, labels_of, set_epoch
from wisepatch.task_roles import several_tasks
from wisepatch.tasks import find_task


@pytest.fixture
def tasks(tmp_path):
    small = draw_folder(tmp_path / "small", per_class=5, classes=("circle", "star"))
    large = draw_folder(tmp_path / "large", per_class=12, classes=("heart", "ring", "cross"))
    return [find_task(str(small)), find_task(str(large))]


def opened(tasks, balance, data):
    return several_tasks(tasks, balance).dataset.split("train", data)


def test_labels_count_on_from_task_to_task(tasks, data):
    small, large = (task.dataset.split("train", data) for task in tasks)
    both = opened(tasks, "examples", data)
    assert len(both) == len(small) + len(large)
    assert [both[index][1] for index in range(len(small))] == [small[index][1] for index in range(len(small))]
    assert [both[len(small) + index][1] for index in range(len(large))] == [
        large[index][1] + 2 for index in range(len(large))
    ]
    assert labels_of(both.samples) == [both[index][1] for index in range(len(both))]
    assert both.image_ids() == [*small.image_ids(), *large.image_ids()]
    assert both.classes == ("small: circle", "small: star", "large: cross", "large: heart", "large: ring")


def test_balanced_tasks_give_as_many_images_each(tasks, data):
    small, large = (len(task.dataset.split("train", data)) for task in tasks)
    balanced = opened(tasks, "tasks", data)
    assert small < large
    for epoch in (0, 1, 5):
        set_epoch(balanced, epoch)
        labels = [balanced[index][1] for index in range(len(balanced))]
        assert sum(label < 2 for label in labels) == sum(label >= 2 for label in labels) == large
        times = Counter(image_ids(balanced.samples))
        assert set(times.values()) == {1, *divmod_values(large, small)}
        assert len(times) == small + large  # every image, in each epoch


def divmod_values(large, small):
    whole, rest = divmod(large, small)
    return {whole, *([whole + 1] if rest else [])}


def test_images_that_come_once_more_are_drawn_anew_and_the_same_again(tasks, data):
    balanced = opened(tasks, "tasks", data)

    def ids(epoch):
        set_epoch(balanced, epoch)
        return image_ids(balanced.samples)

    first = ids(0)
    assert len({tuple(ids(epoch)) for epoch in range(6)}) > 1
    assert ids(0) == first
    assert balanced.fingerprint() == opened(tasks, "tasks", data).fingerprint()
    assert balanced.fingerprint() != opened(tasks, "examples", data).fingerprint()
