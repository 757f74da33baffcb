"""A sweep from the rows of a store: what the sweep itself returned."""

import pytest

import wisepatch as wp
from wisepatch.errors import ResultsError
from wisepatch.store.results import read, read_runs
from wisepatch.workflows.cautions import cautions
from wisepatch.workflows.stored_sweep import stored_sweep


@pytest.fixture
def few_images(monkeypatch):
    from wisepatch.datasets import demo

    monkeypatch.setattr(demo, "SIZES", {"train": 20, "val": 20, "test": 20})


def test_sweep_comes_back_with_its_points_choice_rule_and_note(finished, run_store, few_images):
    done = wp.sweep(run_store, finished[0], alphas="0,0.5,1", rule="max-drop=0.5@95", run="r")
    back = stored_sweep(run_store, read_runs([run_store.results], ["r"])[0])
    for name in (
        "run", "patching", "supported", "points", "checkpoints", "rule", "selected_on", "choice", "chosen", "judges", "start",
        "note", "facts",
    ):  # fmt: skip
        assert getattr(back, name) == getattr(done, name), name
    assert cautions(back) == cautions(done)
    assert [row["value"] for row in back.rows] == [row["value"] for row in done.rows]


def test_of_two_patched_models_of_one_mix_the_newest_that_the_run_knew_is_taken(finished, run_store, few_images):
    for rule in ("alpha=0.5", "best-mean"):
        wp.sweep(run_store, finished[0], alphas="0,0.5,1", rule=rule, run=rule)
    back = stored_sweep(run_store, read_runs([run_store.results], ["best-mean"])[0])
    assert str(back.rule) == "best-mean"


def test_removed_checkpoints_are_left_out_and_a_run_without_alphas_is_refused(finished, run_store, few_images):
    wp.sweep(run_store, finished[0], alphas="0,1", run="r")
    wp.evaluate(["zeroshot"], ["Colors"], run_store, finished[0], run="e")
    frame = read(run_store.results)[0]
    with pytest.raises(ResultsError, match="e swept no alpha"):
        stored_sweep(run_store, frame[frame["run"] == "e"])
    empty = wp.Store(run_store.root.parent / "another")
    back = stored_sweep(empty, frame[frame["run"] == "r"])
    assert (back.checkpoints, back.choice, back.chosen, back.rule) == ({}, None, None, None)
    assert [point.alpha for point in back.points["test"]] == [0, 1]
