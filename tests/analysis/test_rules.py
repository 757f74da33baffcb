"""The rule that promises: what it certifies, what it says, and how often its promise is broken in simulated sweeps."""

import numpy as np
import pytest
from scipy.stats import binom

from tests.synthetic_sweeps import (
    LENGTHS,
    PAINT,
    TENTHS,
    WISE_FT,
    answers,
    broken_promises,
    counts,
    plateau,
    population,
)
from wisepatch.analysis.drops import Bound, certified, images_needed, upper_limits
from wisepatch.analysis.paired import drop_limit
from wisepatch.analysis.same_images import effective_number
from wisepatch.analysis.selection import choose
from wisepatch.analysis.sweep_frame import sweep_frame
from wisepatch.errors import ResultsError


def framed(patching, counted, n, tasks=("B",), images=None):
    """A sweep at 0, 0.1, ...: accuracy on A, and by alpha and task of the others ``(broken, fixed)`` of ``n`` images.

    ``images`` are those tasks that show the images of others.
    """
    rows = []
    for number, (value, by_task) in enumerate(zip(patching, counted, strict=True)):
        at = {"alpha": number / 10, "metric": "top1", "n": n}
        rows.append(at | {"task": "A", "value": value})
        for task, (broken, fixed) in zip(tasks, by_task, strict=True):
            rows.append(at | {"task": task, "value": 0.9 + (fixed - broken) / n, "broken": broken, "fixed": fixed})
            rows[-1] |= {"images": images[task]} if images and task in images else {}
    return sweep_frame(rows, "A", tasks)


@pytest.mark.parametrize(("n", "chosen"), [(298, 0.0), (299, 0.1)])
def test_one_point_is_certified_from_299_images_of_which_none_is_broken_and_not_before(n, chosen):
    choice = choose(framed([0.1, 0.9], [[(0, 0)], [(0, 0)]], n), "max-drop=0.01@95")
    assert choice.alpha == chosen
    assert choice.facts["certified"] == ([0.1] if chosen else [])
    assert choice.note.startswith(
        "certified: the drop of B at alpha 0.1 is at most 1 point with 95 %" if chosen else "nothing"
    )


def test_testing_stops_at_the_first_alpha_that_fails():
    frame = framed([0.1, 0.5, 0.6, 0.9], [[(0, 0)], [(1, 1)], [(60, 0)], [(0, 0)]], 1000)
    choice = choose(frame, "max-drop=0.01@95")
    assert (choice.alpha, choice.facts["certified"]) == (0.1, [0.1])
    plain = choose(frame, "max-drop=0.01")
    assert plain.alpha == 0.3
    assert plain.note == (
        "not certified: the upper 95 % limit of the drop at alpha 0.3, which was picked by these very images, is 0.3 points; "
        "max-drop=0.01@95 takes alpha 0.1"
    )


def test_where_alpha_0_is_the_best_of_what_is_certified_the_note_speaks_of_the_others():
    note = choose(framed([0.9, 0.1], [[(0, 0)], [(0, 0)]], 299), "max-drop=0.01@95").note
    assert "the drop of B at all alphas above 0 up to 0.1 is at most 1 point" in note
    assert "alpha 0, where nothing moves, has the best patching accuracy" in note


@pytest.mark.parametrize("split", ["val", "test"])
def test_mixes_that_were_made_by_looking_at_a_split_are_certified_on_another(split):
    """A race leaves alphas, and learned layers are scales, that look good on the images of the choice."""
    at = {"metric": "top1", "n": 400, "value": 0.9, "broken": 0, "fixed": 0, "fitted_on": "val", "split": split}
    frame = sweep_frame([at | {"alpha": alpha, "task": task} for alpha in (0, 0.1) for task in "AB"], "A", "B")
    if split == "test":
        assert choose(frame, "max-drop=0.01@95").facts["certified"] == [0.1]
        return
    assert choose(frame, "max-drop=0.01").note == ""
    with pytest.raises(ResultsError, match="depends on the answers to these very images"):
        choose(frame, "max-drop=0.01@95")


def test_the_best_of_the_certified_alphas_is_taken_not_the_largest():
    choice = choose(framed([0.1, 0.8, 0.7], [[(0, 0)], [(0, 0)], [(0, 0)]], 500), "max-drop=0.01@95")
    assert (choice.alpha, choice.facts["certified"]) == (0.1, [0.1, 0.2])
    assert "all alphas up to 0.2 pass" in choice.note


def test_no_drop_at_all_is_certified_by_more_fixed_images_than_broken_and_by_nothing_else():
    kept = choose(framed([0.1, 0.9], [[(0, 0)], [(0, 0)]], 1000), "max-drop=0@95")
    assert (kept.alpha, kept.facts["images_needed_at_least"]) == (0, None)
    assert kept.note.endswith("at these rates no number would do")
    assert choose(framed([0.1, 0.9], [[(0, 0)], [(0, 30)]], 1000), "max-drop=0@95").alpha == 0.1


def test_each_certifies_every_task_where_the_mean_hides_one():
    frame = framed([0.1, 0.9], [[(0, 0), (0, 0)], [(35, 0), (0, 30)]], 1000, ("B", "C"))
    assert choose(frame, "max-drop=0.03@95").alpha == 0.1
    refused = choose(frame, "max-drop=0.03@95,each")
    assert refused.alpha == 0
    assert "the drop of each of B, C is 3.5 points as seen" in refused.note


@pytest.mark.parametrize(
    ("other", "chosen", "least"), [("C", 0.1, 211), ("corrupt:B", 0.0, 299), ("typo:corrupt:B:fog", 0.0, 299)]
)
def test_tasks_that_show_the_same_images_certify_no_more_than_one_of_them(other, chosen, least):
    frame = framed([0.1, 0.9], [[(0, 0), (0, 0)], [(0, 0), (0, 0)]], 290, ("B", other))
    assert choose(frame, "max-drop=0.01@95").alpha == chosen
    assert images_needed(frame, Bound(0.01, 0.95)) == least


def test_tasks_whose_rows_name_the_same_images_certify_no_more_than_one_of_them():
    frame = framed([0.1, 0.9], [[(0, 0), (0, 0)], [(0, 0), (0, 0)]], 290, ("B", "C"), {"C": "B"})
    assert choose(frame, "max-drop=0.01@95").alpha == 0.0
    assert images_needed(frame, Bound(0.01, 0.95)) == 299


@pytest.mark.parametrize(("sizes", "alike"), [([10] * 60, 1.0), ([10] * 60, 0.4), ([1] * 150 + [30] * 15, 1.0)])
def test_images_that_belong_together_keep_the_promise_as_fewer_and_not_as_they_are(sizes, alike):
    """Frames of one video break, or are fixed, together."""
    generator, drop, fixed, runs, allowed = np.random.default_rng(0), 0.03, 0.02, 3000, binom.ppf(0.999, 3000, 0.05)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    heights = generator.random((runs, len(sizes)))[:, clusters]
    heights = np.where(generator.random(heights.shape) < alike, heights, generator.random(heights.shape))
    n, independent = len(clusters), effective_number(clusters.tolist())
    won, lost = (heights < fixed).sum(1), (heights > 1 - drop - fixed).sum(1)
    assert (drop_limit(won, lost, n) < drop - 1e-9).sum() > 1.5 * allowed
    assert (drop_limit(won * independent / n, lost * independent / n, independent) < drop - 1e-9).sum() <= allowed


def test_a_rule_counts_images_that_belong_together_as_fewer():
    rows = [{"alpha": alpha, "task": task, "metric": "top1", "value": 0.5 + alpha, "n": 600, "broken": 0, "fixed": 0}
            for alpha in (0, 0.1) for task in "AB"]  # fmt: skip
    assert choose(sweep_frame(rows, "A", "B"), "max-drop=0.01@95").facts["certified"] == [0.1]
    together = sweep_frame([row | {"n_effective": 60.0} for row in rows], "A", "B")
    refused = choose(together, "max-drop=0.01@95")
    assert refused.facts["certified"] == []
    assert refused.note.endswith("; images of one group count as one (600 of B as 60)")
    assert "about 299 images of different groups a task would do" in refused.note
    assert choose(together, "max-drop=0.05@95").facts["limit"] == drop_limit(0, 0, 60)


@pytest.mark.parametrize(("n", "broken", "enough"), [(300, 1, True), (300, 6, False)])
def test_what_cannot_be_certified_says_how_many_images_would_do(n, broken, enough):
    frame, bound = framed([0.1, 0.9], [[(0, 0)], [(broken, 0)]], n), Bound(0.01, 0.95)
    choice = choose(frame, "max-drop=0.01@95")
    needed = images_needed(frame, bound, 0.1)
    assert (choice.alpha, choice.facts["images_needed"], choice.facts["images_needed_at_least"]) == (0, needed, 299)
    assert "on 300 images a task" in choice.note
    if enough:
        assert f"at these rates about {needed:,} a task would do, and 299 where not one is broken" in choice.note
        (just, short), rate = (needed, needed - 1), broken / n
        assert upper_limits(np.zeros(1), np.array([rate * just]), just, bound) <= 0.01
        assert upper_limits(np.zeros(1), np.array([rate * short]), short, bound) > 0.01
    else:
        assert "at these rates no number would do" in choice.note


@pytest.mark.parametrize(
    ("people", "bound", "n"),
    [
        (population(PAINT), Bound(0.01, 0.95), 1000),
        (population(WISE_FT), Bound(0.01, 0.95), 300),
        (plateau(0.0101), Bound(0.01, 0.95), 1000),
        (plateau(0.0201, 3), Bound(0.02, 0.95, each=True), 500),
    ],
    ids=["paint", "wise-ft", "plateau", "plateau-each"],
)
def test_certified_promises_are_broken_in_no_more_than_five_per_cent_of_simulated_sweeps(people, bound, n):
    """The large simulation is a benchmark, ``python -m tests.benchmarks.simulations promise``."""
    runs = 150
    (promised, measured), _ = broken_promises(people, n, LENGTHS[0], bound, runs)
    assert promised <= binom.ppf(0.999, runs, 0.05)
    assert measured >= promised


def test_the_rule_that_is_simulated_is_the_rule_that_chooses():
    people, bound = population(PAINT), Bound(0.01, 0.95)
    right = answers(np.random.default_rng(1), people.accuracies, 2000, LENGTHS[0], TENTHS)
    lost, won = counts(right[1:])
    passed = certified(upper_limits(won, lost, 2000, bound), bound)
    frame = framed(right[0].mean(-1), np.stack([lost, won], -1).tolist(), 2000)
    assert choose(frame, "max-drop=0.01@95").facts["certified"] == [a / 10 for a in np.flatnonzero(passed) if a]
    assert passed[1]
