"""Candidates for the coefficients of several ends, and a search for the best."""

import numpy as np
import pytest

from tests.analysis.test_selection import TWO, several
from wisepatch.analysis.coefficients import MAX_CANDIDATES, Search, equal, grid, in_order, scores
from wisepatch.analysis.selection import choose, parse_rule
from wisepatch.errors import UsageError


def test_a_grid_has_every_combination_and_says_how_many_are_too_many():
    assert set(grid((0, 0.5), 2)) == {(0, 0), (0, 0.5), (0.5, 0), (0.5, 0.5)}
    assert len(grid(tuple(range(11)), 3)) == 1331 <= MAX_CANDIDATES
    with pytest.raises(
        UsageError, match="a grid of 11 coefficients for 4 tasks has 14,641 candidates, and 1,500 are the most"
    ):
        grid(tuple(range(11)), 4)


def test_candidates_are_numbered_from_the_start_on_by_how_far_they_move():
    numbered = in_order([(1.0, 0.0), (0.2, 0.2), (0.5, 0.5), (0.2, 0.2), (0.0, 1.0)])
    assert numbered == {0.0: (0.0, 0.0), 1.0: (0.2, 0.2), 2.0: (0.0, 1.0), 3.0: (0.5, 0.5), 4.0: (1.0, 0.0)}
    assert in_order(equal((0.5, 1.0), 2)) == {0.0: (0.0, 0.0), 1.0: (0.5, 0.5), 2.0: (1.0, 1.0)}


@pytest.mark.parametrize(
    "rule", ["best-mean", "max-drop=0.03", "max-drop=0.06", "max-drop=0.06,each", "weights=A:3,D:2"]
)
def test_the_largest_score_is_that_of_the_candidate_which_the_rule_chooses(rule):
    by_candidate = scores(several(TWO), parse_rule(rule))
    assert by_candidate.idxmax() == choose(several(TWO), rule).alpha


def test_a_drop_beyond_the_bound_costs_ten_times_its_size():
    by_candidate = scores(several(TWO), parse_rule("max-drop=0.03"))
    assert by_candidate[0.6] == pytest.approx(0.7 - 10 * (0.05 - 0.03))
    assert by_candidate[0.3] == pytest.approx(0.6)


@pytest.mark.extra
def test_a_search_finds_the_top_of_a_hill_and_repeats_itself():
    pytest.importorskip("cma")
    top = np.array([0.3, 0.9, 0.1])

    def climb(seed):
        np.random.seed(7)
        before = np.random.get_state()[1].copy()
        search, best = Search((0.5, 0.5, 0.5), seed), []
        for _ in range(30):
            asked = search.ask()
            search.tell([-float(((np.array(each) - top) ** 2).sum()) for each in asked])
            best += asked
        assert (np.random.get_state()[1] == before).all()
        return best

    first = climb(0)
    assert climb(0) == first
    assert climb(1) != first
    assert all(0 <= value <= 1 and round(value, 4) == value for each in first for value in each)
    assert np.abs(np.array(first[-1]) - top).max() < 0.1
