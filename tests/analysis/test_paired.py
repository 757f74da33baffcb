"""Paired tests and limits: against scipy, statsmodels and published tables, and by their coverage, which is counted out."""

import numpy as np
import pytest
from scipy.stats import binomtest, multinomial

from wisepatch.analysis.intervals import clopper_pearson
from wisepatch.analysis.paired import (
    difference_interval,
    drop_limit,
    holm,
    images_to_certify,
    mcnemar,
    mean_difference_interval,
    mean_drop_limit,
)


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (0, 1), (1, 5), (7, 7), (3, 20), (400, 500)])
def test_mcnemars_p_value_is_that_of_scipys_binomial_test(fixed, broken):
    expected = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert mcnemar(fixed, broken) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_and_holm_are_those_of_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    multiple = pytest.importorskip("statsmodels.stats.multitest")
    counts = [(1, 9), (12, 3), (30, 31), (0, 4)]
    p_values = [mcnemar(*pair) for pair in counts]
    reference = [tables.mcnemar([[50, broken], [fixed, 20]], exact=True).pvalue for fixed, broken in counts]
    assert p_values == pytest.approx(reference, rel=1e-9)
    assert holm(p_values) == pytest.approx(multiple.multipletests(p_values, method="holm")[1], rel=1e-9)


def test_holms_adjustment_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(holm([0.9, 0.6])) == [1.0, 1.0]
    assert len(holm([])) == 0


def test_a_drop_of_one_point_is_certified_from_299_images_on_without_a_broken_one_and_not_before():
    assert drop_limit(0, 0, 299) <= 0.01 < drop_limit(0, 0, 298)
    assert images_to_certify(0.01) == 299
    assert drop_limit(0, 0, 50) == pytest.approx(1 - 0.05 ** (1 / 50), rel=1e-9)


def test_without_a_fixed_image_the_limit_is_clopper_and_pearsons():
    broken = np.arange(41)
    expected = [clopper_pearson(int(each), 40, 0.9)[1] for each in broken]
    assert drop_limit(0, broken, 40) == pytest.approx(expected, abs=1e-9)


def test_intervals_turn_with_the_models_and_lie_around_the_difference():
    low, high = difference_interval(12, 5, 300)
    assert difference_interval(5, 12, 300) == pytest.approx((-high, -low))
    assert low < 7 / 300 < high
    low, high = difference_interval(4, 0, 4)
    assert (
        low < 2 * 0.025**0.25 - 1
    )  # four of four are fixed in 2.5 % of draws where 40 % of the images are and 60 % are broken
    assert high == 1
    assert drop_limit(0, 4, 4) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 15])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.975, 0.999])
def test_the_limit_of_a_drop_covers_every_population_of_a_few_images(n, confidence):
    broken, fixed = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    possible = broken + fixed <= n
    broken, fixed = broken[possible], fixed[possible]
    limits = drop_limit(fixed, broken, n, confidence)
    for drop in (0, 0.01, 0.05, 0.2, 0.5):
        for won in np.linspace(0, (1 - drop) / 2, 25):
            rest = max(1 - 2 * won - drop, 0.0)
            chances = multinomial.pmf(np.stack([broken, fixed, n - broken - fixed], -1), n, [won + drop, won, rest])
            assert chances[limits < drop - 1e-12].sum() <= 1 - confidence + 1e-9


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("confidence", [0.95, 0.975])
def test_the_limit_of_a_drop_covers_every_population(n, confidence):
    broken, fixed = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    possible = broken + fixed <= n
    broken, fixed = broken[possible], fixed[possible]
    limits = drop_limit(fixed, broken, n, confidence)
    misses = []
    for won in (0, 0.003, 0.01, 0.03, 0.08, 0.2, 0.4):
        for drop in (-0.15, -0.02, 0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3):
            if won + drop >= 0 and 2 * won + drop <= 1:
                chances = multinomial.pmf(
                    np.stack([broken, fixed, n - broken - fixed], -1), n, [won + drop, won, 1 - 2 * won - drop]
                )
                misses.append(chances[limits < drop - 1e-12].sum())
    assert max(misses) <= (1 - confidence) * 1.1  # near the level, and never much above
    assert max(misses) > (1 - confidence) / 3  # and not by being wide


def test_the_limit_of_a_mean_drop_covers_it():
    generator, n = np.random.default_rng(0), np.array([100, 300, 1000])
    assert mean_drop_limit([3], [9], [200]) == drop_limit(3, 9, 200)
    for won, lost in ((0.0, 0.01), (0.01, 0.02), (0.03, 0.03)):
        draws = [generator.multinomial(each, [won, lost, 1 - won - lost], size=4000) for each in n]
        fixed, broken = (np.stack([each[:, kind] for each in draws], -1) for kind in (0, 1))
        missed = float((mean_drop_limit(fixed, broken, n) < lost - won).mean())
        assert missed < 0.05 + 3 * (0.05 * 0.95 / 4000) ** 0.5


@pytest.mark.parametrize(
    "tasks", [("Shapes", "corrupt:Shapes:fog:3"), ("ImageNet", "typo:ImageNet", "ImageNetRValClasses")]
)
def test_the_limit_of_a_mean_drop_covers_it_where_tasks_show_the_same_images(tasks):
    """As hard as can be: an image that one of them breaks all of them break."""
    generator, won, lost = np.random.default_rng(0), 0.005, 0.015
    fixed, broken, _ = generator.multinomial(1000, [won, lost, 1 - won - lost], size=4000).T
    alike = [np.stack([kind] * len(tasks), -1) for kind in (fixed, broken)]
    allowed = 0.05 + 3 * (0.05 * 0.95 / 4000) ** 0.5
    assert float((mean_drop_limit(*alike, 1000) < lost - won).mean()) > allowed  # were their images others
    assert float((mean_drop_limit(*alike, 1000, tasks=tasks) < lost - won).mean()) < allowed
    low, high = mean_difference_interval(*alike, 1000, tasks=tasks)
    assert float(((low > won - lost) | (won - lost > high)).mean()) < allowed
