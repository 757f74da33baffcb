"""The race of alphas: what it leaves is as good as the grid's best, for a part of the grid's evaluations."""

import numpy as np
import pytest

from tests.synthetic_sweeps import PAINT, WISE_FT, population, raced
from wisepatch.analysis.racing import EPSILON, GRID, Objective, Race, objective_for
from wisepatch.analysis.selection import parse_rule


@pytest.mark.parametrize("rule", ["best-mean", "max-drop=0.01", "max-drop=0.02,each", "weights=task 0:2"])
@pytest.mark.parametrize("name", [PAINT, WISE_FT])
def test_what_a_race_leaves_is_within_epsilon_of_the_grids_best(name, rule):
    """The large simulation is a benchmark, ``python -m tests.benchmarks.simulations race``."""
    results = [raced(population(name), 500, 0.5, parse_rule(rule), seed) for seed in range(2)]
    gaps, shares = zip(*results, strict=True)
    assert max(gaps) <= EPSILON + 1e-9
    assert max(shares) < 0.45


def racing(right, objective, **settings):
    """A race of answers ``(rows, n)`` by task, and all that it asked: ``(row, image)`` by task."""
    asked = [[] for _ in right]

    def ask(rows, images):
        for pairs, places in zip(asked, images, strict=True):
            pairs += [(row, place) for row in rows for place in places.tolist()]
        return [of_task[np.ix_(rows, places)] for of_task, places in zip(right, images, strict=True)]

    return Race([of_task.shape[1] for of_task in right], objective, ask, **settings), asked


def rising(n, best, seed=0):
    """Answers whose accuracy rises by a point an alpha up to one of the grid, and stays."""
    heights = np.random.default_rng(seed).random(n)
    return heights < 0.3 + np.minimum(np.arange(GRID), best)[:, None] / 100


def falling(n, best, seed=0):
    """Answers whose accuracy stays up to an alpha of the grid and falls beyond it."""
    heights = np.random.default_rng(seed).random(n)
    return heights < 0.95 - np.maximum(np.arange(GRID) - best, 0)[:, None] / 100


def test_nothing_is_asked_twice_and_tasks_of_other_sizes_are_raced_together():
    race, asked = racing([rising(900, 43), falling(250, 43, 1)], objective_for(parse_rule("best-mean"), ["A", "B"]))
    left = race.run()
    assert min(abs(row - 43) for row in left) <= 2
    assert [len(pairs) for pairs in asked] == [len(set(pairs)) for pairs in asked]
    assert race.evaluations == sum(map(len, asked)) < 0.2 * GRID * 1150


def test_equal_alphas_cost_next_to_nothing():
    race, _ = racing([np.broadcast_to(rising(2000, 50)[0], (GRID, 2000))], Objective((1.0,)))
    assert race.run()
    assert race.evaluations < 0.05 * GRID * 2000


def test_few_images_are_all_asked():
    race, _ = racing([rising(30, 62)], Objective((1.0,)))
    assert 62 in race.run() or race.evaluations < GRID * 30


def test_a_limit_that_only_alpha_0_keeps_leaves_alpha_0():
    worse = np.ones((GRID, 500), bool)
    worse[1:, :200] = False
    race, _ = racing([rising(500, 80), worse], objective_for(parse_rule("max-drop=0.01"), ["A", "B"]))
    left = race.run()
    assert 0 in left
    assert race.evaluations < 0.2 * GRID * 1000


def test_both_ends_answer_all_images_also_where_they_have_lost():
    race, _ = racing([rising(3000, 50) & falling(3000, 60)], Objective((1.0,)))
    assert {0, 100} < set(race.run())


def test_a_bet_is_won_by_chance_no_more_often_than_it_may():
    """Of images of which exactly as many are gained as the margin allows, and one more, a wrong verdict is rare at any look."""
    generator, wrong = np.random.default_rng(0), 0
    for _ in range(300):
        race, _ = racing([np.zeros((GRID, 400), bool)], Objective((1.0,)), confidence=0.0)
        race._threshold = np.log(10)  # a chance of one in ten
        values = generator.permutation([1.0] * 41 + [0.0] * 359)
        wrong += any(race._at_most(values[:n], 0.1) for n in (50, 100, 200, 399))
    assert wrong <= 45
