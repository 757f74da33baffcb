"""PAINT's measures: distances to the ends and to the optimum, and the frontier."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wisepatch.analysis.patching_measures import frontier, patching_measures
from wisepatch.store.results import read

SWEEP = Path(__file__).parents[1] / "data" / "paint-vitb32-mnist.jsonl"
scores = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4]), st.sampled_from([0.1, 0.2, 0.3])), min_size=1)


def test_published_sweep_has_the_distances_that_follow_from_its_accuracies():
    table = read(SWEEP)[0].pivot(index="alpha", columns="task", values="value")
    measured = patching_measures(table.index, table["MNIST"], table["CIFAR10"])
    at = list(table.index).index(0.33)
    mnist, cifar = table["MNIST"], table["CIFAR10"]
    assert measured.to_finetuned[at] == pytest.approx(mnist[1.0] - 0.9798)
    assert measured.to_zeroshot[at] == pytest.approx(0.8984 - 0.8809)
    optimal, patched = (mnist[1.0] + cifar[0.0]) / 2, (0.9798 + 0.8809) / 2  # the mean of both, as the paper averages
    assert measured.to_optimal[at] == pytest.approx(optimal - patched)
    assert int(np.argmin(measured.to_optimal)) == at  # the best mean
    assert (measured.to_finetuned[-1], measured.to_zeroshot[0]) == (0, 0)


def test_an_end_that_was_not_measured_leaves_its_distances_open():
    measured = patching_measures([0, 0.5], [0.2, 0.4], [0.9, 0.8])
    assert np.isnan(measured.to_finetuned).all()
    assert measured.to_zeroshot.tolist() == [0, pytest.approx(0.1)]
    assert np.isnan(measured.to_optimal).all()
    alone = patching_measures([0, 0.5, 1], [0.2, 0.9, 0.4], [math.nan] * 3)
    assert np.isnan(alone.to_zeroshot).all()
    assert alone.to_finetuned.tolist() == [pytest.approx(0.2), pytest.approx(-0.5), 0]
    assert alone.on_frontier.tolist() == [False, True, False]


@given(scores)
def test_the_frontier_is_what_no_other_point_beats(points):
    def beats(one, other):
        return one[0] >= other[0] and one[1] >= other[1] and one != other

    expected = [not any(beats(other, point) for other in points) for point in points]
    assert frontier(*zip(*points, strict=True)).tolist() == expected


def test_a_point_that_is_not_known_is_not_on_the_frontier():
    assert frontier([0.5, math.nan, 0.4], [0.5, 0.9, math.nan]).tolist() == [True, False, False]
