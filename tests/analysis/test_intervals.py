"""Intervals against published tables and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from wisepatch.analysis import intervals
from wisepatch.analysis.intervals import bootstrap, clopper_pearson, of_means, wilson
from wisepatch.analysis.metrics import macro_f1, mean_per_class, measure


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilsons_interval_has_the_values_of_newcombes_table(hits, n, low, high):
    assert wilson(hits / n, n) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_of_one_in_two_by_hand():
    z2 = 1.959963984540054**2
    half = (z2 / (4 * 2) + z2**2 / (4 * 4)) ** 0.5 / (1 + z2 / 2)
    assert wilson(0.5, 2) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n) | st.sampled_from([0, n]), st.just(n))))
def test_wilsons_interval_holds_the_value_and_lies_within_zero_and_one(case):
    hits, n = case
    low, high = wilson(hits / n, n)
    assert 0 <= low <= hits / n <= high <= 1
    assert low < high


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_symmetric_and_narrows_with_more_images(case):
    hits, n = case
    low, high = wilson(hits / n, n)
    mirrored_low, mirrored_high = wilson((n - hits) / n, n)
    assert (low, high) == pytest.approx((1 - mirrored_high, 1 - mirrored_low), abs=1e-9)
    more_low, more_high = wilson(hits / n, 4 * n)
    assert more_high - more_low < high - low


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n) | st.sampled_from([0, n]), st.just(n))),
    st.sampled_from([0.9, 0.95, 0.995]),
)
def test_clopper_and_pearsons_interval_is_scipys(case, confidence):
    hits, n = case
    exact = binomtest(hits, n).proportion_ci(confidence, method="exact")
    assert clopper_pearson(hits, n, confidence) == pytest.approx((exact.low, exact.high), abs=1e-9)
    low, high = clopper_pearson(hits, n, confidence)
    assert 0 <= low <= hits / n <= high <= 1


def test_bootstrap_in_pieces_is_as_good_and_small(monkeypatch):
    labels = np.arange(400) % 4
    predicted = np.where(np.arange(400) % 3 == 0, (labels + 1) % 4, labels)
    whole = measure("macro_f1", labels, predicted, 4)
    monkeypatch.setattr("wisepatch.analysis.intervals.MAX_MATRIX_CELLS_AT_ONCE", 1)
    assert measure("macro_f1", labels, predicted, 4) == whole
    assert measure("mean_per_class", labels, predicted, 1000).n == 400


def population(classes, imbalance, generator):
    """Chances of each cell of a confusion matrix: classes that get rarer and harder."""
    weights = imbalance ** -np.arange(classes, dtype=float)
    cells = np.stack([0.2 * generator.dirichlet(np.ones(classes)) for _ in range(classes)])
    cells[np.diag_indices(classes)] += 0.8
    return cells * (weights / weights.sum())[:, None]


@pytest.mark.parametrize("statistic", [macro_f1, mean_per_class])
@pytest.mark.parametrize(("classes", "imbalance", "n"), [(10, 1, 150), (10, 1.5, 300), (30, 1.1, 300), (3, 1, 40)])
def test_the_bootstrap_covers_also_with_rare_classes(statistic, classes, imbalance, n, monkeypatch):
    """The benchmarks hold the large simulation, of which this is a small one: 300 draws err by one point and a quarter."""
    monkeypatch.setattr(intervals, "RESAMPLES", 150)
    generator = np.random.default_rng(0)
    chances = population(classes, imbalance, generator)
    truth, kept = float(statistic(chances)), []
    for _ in range(300):
        low, high = bootstrap(statistic, generator.multinomial(n, chances.ravel()).reshape(chances.shape))
        kept.append(low <= truth <= high)
    assert np.mean(kept) >= 0.92


def test_the_interval_of_a_mean_over_tasks_covers_it_and_is_that_of_one_task():
    assert of_means([0.5], [0.4], [0.7]) == pytest.approx((0.4, 0.7))
    assert of_means([0.5, 0.7], [0.4, 0.6], [0.7, 0.9], ["Shapes", "corrupt:Shapes"]) == pytest.approx((0.5, 0.8))
    generator, sizes, truths = np.random.default_rng(0), [50, 200, 1000], [0.98, 0.9, 0.6]
    kept = []
    for _ in range(1000):
        values = [generator.binomial(n, truth) / n for n, truth in zip(sizes, truths, strict=True)]
        lows, highs = zip(*(wilson(value, n) for value, n in zip(values, sizes, strict=True)), strict=True)
        low, high = of_means(values, lows, highs)
        kept.append(low <= np.mean(truths) <= high)
    assert np.mean(kept) >= 0.93
