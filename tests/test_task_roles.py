"""The tasks of a run: which are patched, several as one, and which are supported."""

import pytest

from tests.samples import draw_folder
from wisepatch.errors import UsageError
from wisepatch.task_roles import RunTasks
from wisepatch.tasks import find_task


def test_two_tasks_of_one_name_are_refused(tmp_path):
    one, other = (draw_folder(tmp_path / place / "small", classes=("circle", "star")) for place in ("one", "other"))
    with pytest.raises(UsageError, match=r"two tasks to patch are called 'small': .*one/small and .*other/small"):
        RunTasks.find([str(one), str(other)])
    with pytest.raises(UsageError, match="two tasks to patch are called 'Digits'"):
        RunTasks.find(["Digits", "digits"])


def test_a_task_that_is_patched_and_supported_is_refused():
    with pytest.raises(UsageError, match="Colors is to be patched, and supported too"):
        RunTasks.find(["Digits", "Colors"], ["Shapes", "colors"])


def test_class_names_are_those_of_one_task():
    with pytest.raises(UsageError, match="class names are given for several tasks"):
        RunTasks.find(["Digits", "Colors"], (), ["a"] * 10)


def test_one_task_stays_as_it_is():
    tasks = RunTasks.find(["Digits"], ["Shapes"])
    assert tasks.patching == find_task("Digits")
    assert tasks.patching.each == (tasks.patching,)
