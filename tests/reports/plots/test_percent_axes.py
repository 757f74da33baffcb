"""Axes in per cent: no marks where no fraction can be."""

import pytest
from matplotlib.figure import Figure

from wisepatch.reports.plots.percent_axes import in_per_cent


@pytest.mark.parametrize(("view", "last"), [((0.945, 1.055), 100.0), ((-0.09, 1.09), 100.0), ((0.201, 0.31), 30.0)])
def test_marks_are_between_0_and_100_per_cent(view, last):
    axes = Figure().subplots()
    in_per_cent(axes.xaxis)
    axes.set_xlim(*view)
    axes.locator_params(axis="x", nbins=5)
    marks = [float(label.get_text().removesuffix(" %")) for label in axes.get_xticklabels()]
    seen = [mark for mark in marks if view[0] <= mark / 100 <= view[1]]
    assert min(marks) >= 0
    assert max(marks) <= 100
    assert len(seen) > 2
    assert seen[-1] == last
