"""``--alpha auto``: alphas are raced on the real model, answers are kept, and what cannot be raced is refused."""

import json

import pytest

from tests.samples import fails
from wisepatch import Rule, sweep
from wisepatch.datasets import demo
from wisepatch.errors import WisepatchError
from wisepatch.workflows import adaptive_sweep


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 60, "val": 120, "test": 10})


@pytest.fixture
def counted(monkeypatch):
    """Count the answers that are computed."""
    original, computed = adaptive_sweep.predict_many, []

    def counting(checkpoints, *given, **more):
        for predictions in original(checkpoints, *given, **more):
            computed.append(len(checkpoints) * len(predictions.labels))
            yield predictions

    monkeypatch.setattr(adaptive_sweep, "predict_many", counting)
    return computed


def test_a_race_chooses_as_the_grid_does_or_as_well_and_asks_nothing_twice(run_store, tmp_path, counted):
    raced = sweep(run_store, tmp_path, alphas="auto", tasks=["Colors"], rule=Rule())
    assert "auto: " in raced.note
    assert raced.facts["evaluations"] == sum(counted) < 0.5 * raced.facts["grid_evaluations"]
    assert {0.0, 1.0, raced.choice.alpha} <= set(raced.checkpoints)
    assert [point.alpha for point in raced.points["val"]] == [point.alpha for point in raced.points["test"]]
    counted.clear()
    again = sweep(run_store, tmp_path, alphas="auto", tasks=["Colors"], rule=Rule())
    assert (again.choice, counted) == (raced.choice, [])
    assert again.facts["evaluations"] == 0
    grid = sweep(run_store, tmp_path, alphas="0:1:0.05", tasks=["Colors"], rule=Rule())
    assert raced.choice.mean_score >= grid.choice.mean_score - raced.facts["epsilon"] - 1e-9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "--alpha auto races alphas by a rule, and there is none"),
        (
            {"rule": "max-drop=0.01@95"},
            "--alpha auto looks at alphas that depend on the answers, and max-drop=0.01@95 tests",
        ),
        ({"rule": "knee"}, "--alpha auto cannot race by knee"),
        (
            {"rule": "best-mean", "metrics": "macro_f1"},
            "--alpha auto compares what is right or wrong image by image, and shapes",
        ),
    ],
)
def test_what_cannot_be_raced_is_said_before_any_work(run_store, tmp_path, settings, message, counted):
    with pytest.raises(WisepatchError) as caught:
        sweep(run_store, tmp_path, alphas="auto", tasks=["Colors"], **settings)
    assert message in caught.value.message
    assert not counted


def test_auto_stands_alone_and_without_supported_tasks_the_patching_task_is_raced(cli, run_store):
    fails(cli("interpolate", "--alpha", "auto,0.5"), 2, "alphas 'auto' are not understood", "auto alone")
    done = cli("interpolate", "--alpha", "auto", "--eval", "shapes", "--select", "best-mean", "--json")
    assert done.exit_code == 0, done.output
    choice = json.loads(done.stdout.splitlines()[-1])
    assert choice["grid_evaluations"] > choice["evaluations"] > 0
    assert "image evaluations" in choice["note"]


def test_several_seeds_are_not_raced(cli, shapes):
    words = ("--model", "demo", "--task", shapes, "--supported", "Colors", "--alpha", "auto", "--seeds", "0,1")
    fails(cli("patch", *words), 2, "--alpha auto leaves other alphas for each seed", "0:1:0.1")
