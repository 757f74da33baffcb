"""``--alpha auto``: alphas are raced on the real model, answers are kept, and what cannot be raced is refused."""

import json
import subprocess
import sys
from functools import partial
from itertools import product

import pytest

from tests.samples import fails
from wisepatch import ModelConfig, Rule, Store, TrainConfig, finetune, sweep
from wisepatch.analysis.racing import Race
from wisepatch.datasets import demo
from wisepatch.errors import WisepatchError
from wisepatch.evaluation import recall
from wisepatch.evaluation.endpoints import Endpoints
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


def test_the_ends_are_read_once_for_all_rounds_of_a_race(tmp_path, counted, monkeypatch):
    store, loaded = Store(tmp_path), []
    finetune(TrainConfig.with_defaults("Shapes", steps=3, batch_size=20, lr=1e-3), ModelConfig("demo"), store, tmp_path)
    read = Endpoints.read

    def reading(own, checkpoints):
        missing = {each.id: each.kind for each in checkpoints if each.id not in own._weights}
        loaded.extend((id(own), kind) for kind in missing.values())
        read(own, checkpoints)

    monkeypatch.setattr(Endpoints, "read", reading)
    sweep(store, tmp_path, alphas="auto", tasks=["Colors"], rule=Rule())
    racing = loaded[0][0]
    assert len(counted) > 4
    assert sorted(kind for own, kind in loaded if own == racing) == ["finetuned", "zeroshot"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "fisher"])
def test_a_race_in_two_processes_and_by_fisher_information_chooses_as_in_one(run_store, tmp_path, method):
    words = ["interpolate", "--alpha", "auto", "--eval", "Colors", "--method", method, "--fisher-examples", "20"]
    words += [
        "--store",
        str(run_store.root),
        "--data",
        str(tmp_path),
        "--json",
        "--again",
        "--select",
        "best-mean",
        "--limit",
        "100",
    ]
    answers = []
    for more in ([], ["--processes", "2"]):
        done = subprocess.run(
            [sys.executable, "-m", "wisepatch", *words, *more], capture_output=True, text=True, check=True, timeout=300
        )
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        answers.append(next(row for row in rows if row["type"] == "choice"))
    assert answers[0]["alpha"] == answers[1]["alpha"]
    assert answers[0]["evaluations"] == answers[1]["evaluations"] > 0


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


def test_what_a_race_leaves_is_certified_by_other_images_alone(cli, run_store):
    assert cli("interpolate", "--alpha", "auto", "--eval", "Colors", "--select", "max-drop=0.5").exit_code == 0
    fails(
        cli("select", "--rule", "max-drop=0.5@95"), 1, "depends on the answers to these very images", "--alpha 0:1:0.1"
    )
    assert "certified" in cli("select", "--rule", "max-drop=0.5@95", "--split", "test").output


def test_several_seeds_are_not_raced(cli, shapes):
    words = ("--model", "demo", "--task", shapes, "--supported", "Colors", "--alpha", "auto", "--seeds", "0,1")
    fails(cli("patch", *words), 2, "--alpha auto leaves other alphas for each seed", "0:1:0.1")


def test_no_image_is_asked_twice_of_an_alpha_and_the_note_counts_them_all(tmp_path, monkeypatch):
    """Also of the ends, which the sweep reports: a race may drop them half-way."""
    monkeypatch.setattr(adaptive_sweep, "Race", partial(Race, epsilon=0.95))  # in which nearly all lose soon
    store, asked = Store(tmp_path), []
    finetune(TrainConfig.with_defaults("Shapes", steps=3, batch_size=20, lr=1e-3), ModelConfig("demo"), store, tmp_path)
    for place in (adaptive_sweep, recall):
        original = place.predict_many

        def counting(checkpoints, *given, original=original, **more):
            for answers in original(checkpoints, *given, **more):
                if answers.split == "val":
                    pairs = product(checkpoints, answers.image_ids)
                    asked.extend((each.id, answers.task.name, image) for each, image in pairs)
                yield answers

        monkeypatch.setattr(place, "predict_many", counting)
    raced = sweep(store, tmp_path, alphas="auto", tasks=["Colors"], rule=Rule())
    assert len(asked) == len(set(asked)) == raced.facts["evaluations"]
