"""Several seeds: how they are read, and mean and spread by hand."""

import pytest

from wisepatch.analysis.seeds import over_seeds, parse_seeds, plus_minus
from wisepatch.errors import UsageError


def rows(*values, run="r{}", **more):
    """A row a seed, in a run of its own."""
    given = {"model": "demo", "task": "A", "split": "test", "metric": "top1", "alpha": 1.0, "method": None} | more
    return [given | {"run": run.format(seed), "seed": seed, "value": value} for seed, value in enumerate(values)]


def test_mean_and_spread_by_hand():
    fields = {"pretrained": "", "training": "paint"}
    several = rows(0.8, 0.9, 0.7, chosen=True, **fields)
    zeroshot = [{**row, "alpha": 0.0, "seed": None, "value": 0.5, "chosen": False} for row in several]
    alone = rows(0.3, task="B", **fields)
    summary = over_seeds([*several, *zeroshot, *alone])
    assert list(summary["task"]) == ["A", "A"]
    last, first = summary.to_dict("records")
    assert (last["seeds"], last["low"], last["high"], last["chosen"]) == (3, 0.7, 0.9, 3)
    assert (last["mean"], last["sd"]) == (pytest.approx(0.8), pytest.approx(0.1))
    assert (first["alpha"], first["mean"], first["sd"], first["chosen"]) == (0.0, 0.5, 0.0, 0)
    assert plus_minus([0.8, 0.9, 0.7]) == "80.0 ± 10.0"


def test_a_zeroshot_row_beside_several_seeds_in_one_run_has_none():
    zeroshot = {**rows(0.5)[0], "seed": None, "alpha": 0.0, "run": "one"}
    summary = over_seeds(
        [zeroshot | {"pretrained": "", "training": ""}, *rows(0.8, 0.9, run="one", pretrained="", training="p")]
    )
    assert list(summary["alpha"]) == [1.0]
    assert over_seeds([]).empty


@pytest.mark.parametrize("text", ["", "0", "0,0", "0,x", "0,-1", "0,4294967296", "0;1"])
def test_seeds_that_are_none_are_mistakes(text):
    with pytest.raises(UsageError, match="are not several different numbers") as caught:
        parse_seeds(text)
    assert caught.value.hint == "write --seeds 0,1,2"
    assert parse_seeds("3, 1") == (3, 1)
