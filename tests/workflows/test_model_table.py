"""Models side by side: marks of changes, and means over the tasks of a role."""

from dataclasses import replace

import numpy as np
import pytest

from wisepatch.analysis.comparison import adjusted, difference
from wisepatch.analysis.intervals import of_means
from wisepatch.workflows.model_table import Cell, Table


def change(fixed, broken, n=500):
    before, after = np.ones(n, bool), np.ones(n, bool)
    before[:fixed] = after[n - broken :] = False
    return difference("task", before, after)


def cell(change=None, role="supported", value=0.9, low=0.88, high=0.93):
    return Cell("task", "test", role, "top1", value, low, high, 500, change)


@pytest.mark.parametrize(
    ("fixed", "broken", "role", "mark"),
    [
        (0, 20, "supported", "*"),
        (20, 0, "also", "+"),
        (1, 3, "supported", "?"),  # 500 images leave a point open
        (1, 3, "also", ""),
        (0, 0, "supported", ""),
    ],
)
def test_marks_tell_what_changed_beyond_chance(fixed, broken, role, mark):
    assert cell(change(fixed, broken), role).mark == mark


def test_the_first_model_has_no_marks():
    assert cell().mark == ""


def test_marks_are_adjusted_for_the_tasks_that_are_looked_at_together():
    alone, beside = change(0, 6), adjusted([change(0, 6), change(0, 6), change(3, 3)])[0]
    assert cell(alone).mark == "*"
    assert cell(beside).mark == "?"


def test_the_mean_is_over_the_tasks_of_a_role_and_has_an_interval():
    cells = (cell(value=0.9), replace(cell(value=0.5, low=0.4, high=0.6), task="other"), cell(role="also"))
    table = Table({"zero-shot": None}, {"zero-shot": cells})
    value, low, high = table.mean("zero-shot", "supported")
    assert value == pytest.approx(0.7)
    assert (low, high) == of_means([0.9, 0.5], [0.88, 0.4], [0.93, 0.6])
    assert table.mean("zero-shot", "also") is None
    without = Table({"zero-shot": None}, {"zero-shot": (*cells[:2], cell(low=None, high=None))})
    assert without.mean("zero-shot", "supported")[1:] == (None, None)
