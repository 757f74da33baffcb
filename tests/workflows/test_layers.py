"""Scales of blocks that are learned on validation data, and what is said where they cannot be."""

import pytest

from tests.samples import fails
from wisepatch import load_weights, sweep
from wisepatch.analysis.selection import choose
from wisepatch.analysis.sweep_frame import sweep_frame
from wisepatch.datasets import demo
from wisepatch.errors import ResultsError, UsageError
from wisepatch.store.results import load
from wisepatch.workflows.layers import blocks_of, tensor_names


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 60, "val": 60, "test": 10})


def best_mean(store, folder, **options):
    return sweep(store, folder, tasks=["Colors"], rule="best-mean", **options)


def test_learned_layers_are_as_good_as_every_alpha_and_the_same_each_time(run_store, tmp_path):
    pytest.importorskip("cma")
    plain = best_mean(run_store, tmp_path, alphas="0:1:0.1")
    learned = best_mean(run_store, tmp_path, alphas="0,1", layers="learned", evaluations=16)
    assert learned.at("val", 1.0).mean_score >= plain.choice.mean_score
    layers = learned.chosen.recipe.params["layers"] if learned.choice.alpha else {}
    again = best_mean(run_store, tmp_path, alphas="0,1", layers="learned", evaluations=16)
    assert again.checkpoints[1.0].id == learned.checkpoints[1.0].id
    names = tensor_names(run_store.find("finetuned"), run_store)
    assert set(learned.checkpoints[1.0].recipe.params["layers"]) == set(blocks_of(names))
    assert len(blocks_of(names)) == 6
    assert {row["fitted_on"] for row in learned.rows} == {"val"}  # which no certified rule takes
    assert not any("fitted_on" in row for row in plain.rows)
    assert all(0 <= scale <= 1 for scale in layers.values())


def test_nothing_is_certified_on_the_images_that_layers_were_learned_from(run_store, tmp_path):
    pytest.importorskip("cma")
    asked = {"tasks": ["Colors"], "alphas": "0,0.5,1", "rule": "max-drop=0.9"}
    plain = sweep(run_store, tmp_path, **asked)
    learned = sweep(run_store, tmp_path, **asked, layers="learned", evaluations=12)
    assert "certified" in plain.note
    assert learned.note == ""
    rows = load(run_store.results)
    of_val = rows[(rows["run"] == learned.run) & (rows["split"] == "val")].to_dict("records")
    with pytest.raises(ResultsError, match="no drop can be certified"):
        choose(sweep_frame(of_val, learned.patching_tasks, ["Colors"]), "max-drop=0.9@95")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": None}, "--layers learned finds scales by a rule, and there is none"),
        ({"rule": "max-drop=0.02@95"}, "certifies a drop on data that nothing was fitted to"),
        ({"rule": "knee"}, "--layers learned cannot go by knee"),
        ({"rule": "best-mean", "select_on": "test"}, "learned layers would be fitted to test data"),
        ({"rule": "best-mean", "evaluations": 11}, "11 evaluations are no search"),
        ({"rule": "best-mean", "layers": "lines", "evaluations": 30}, "--evaluations counts those of a search"),
        (
            {"rule": "best-mean", "alphas": "auto"},
            "--layers scales the blocks of linear mixes at alphas that are named",
        ),
    ],
)
def test_layers_that_cannot_be_learned_are_refused_before_any_work(run_store, tmp_path, options, message):
    before = len(list(run_store.checkpoints.iterdir()))
    with pytest.raises(UsageError) as caught:
        sweep(run_store, tmp_path, tasks=["Colors"], **{"layers": "learned"} | options)
    assert message in caught.value.message
    assert len(list(run_store.checkpoints.iterdir())) == before


@pytest.mark.parametrize("layers", ["learned", "lines", "0:1"])
def test_a_model_whose_encoder_was_not_trained_has_no_blocks_to_scale(run_store, tmp_path, layers):
    end, start = run_store.find("finetuned"), run_store.find("zeroshot")
    probe = run_store.save(
        load_weights(run_store, start), kind="finetuned", name="probe", model=end.model, training="linear-probe",
        trained_from=[start.id], config=end.config,
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"the image encoder of probe \(.*\) is that of its start") as caught:
        best_mean(run_store, tmp_path, checkpoint=probe, alphas="0,1", layers=layers)
    assert caught.value.hint == "leave --layers out"


def test_a_search_needs_its_package(run_store, tmp_path, monkeypatch, cli):
    monkeypatch.setattr("wisepatch.workflows.layers.find_spec", lambda _: None)
    fails(cli("interpolate", "--layers", "learned", "--select", "best-mean"), 2, "needs the package cma", "pip install")
