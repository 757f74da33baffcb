"""What a patch will take: images, steps, time, memory and disk, without training and with nothing kept but heads."""

import itertools
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode

from wisepatch import ModelConfig, Store, TrainConfig
from wisepatch.datasets import demo
from wisepatch.errors import UsageError
from wisepatch.hookspecs import Objective
from wisepatch.models.clip import load_clip
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.task_roles import RunTasks
from wisepatch.tasks import find_task
from wisepatch.training import rates
from wisepatch.workflows import planning
from wisepatch.workflows.planning import plan_patch
from wisepatch.workflows.sweep_plan import plan_sweep


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 90, "val": 30, "test": 40})
    monkeypatch.setattr(rates, "MEASURED_SECONDS", 0)  # one image will do


def planned(tmp_path, supported=("Colors",), also=(), **settings):
    config = TrainConfig.with_defaults("Shapes", supported=supported, **{"steps": 10, "batch_size": 16, **settings})
    tasks = RunTasks.of(config)
    sweep = plan_sweep(tasks.patching, tasks.supported, alphas="0,0.5,1", rule="best-mean")
    sweep = replace(sweep, also=tasks.further(also, config.limit))
    store = Store(tmp_path / "store")
    return plan_patch(config, ModelConfig("demo", ""), store, tmp_path, sweep, tasks=tasks), store


def test_a_plan_names_every_split_that_is_read_and_keeps_nothing_but_the_head(tmp_path):
    plan, store = planned(tmp_path, eval_every=1.0, limit=20)
    read = {(each.task, each.split, each.purpose): (each.images, each.passes) for each in plan.readings}
    assert read == {
        ("Shapes", "train", "training"): (20, 5),
        ("Shapes", "val", "validation in training"): (20, 5), ("Colors", "val", "validation in training"): (20, 5),
        ("Shapes", "val", "the sweep"): (20, 3), ("Colors", "val", "the sweep"): (20, 3),
        ("Shapes", "test", "the sweep"): (20, 3), ("Colors", "test", "the sweep"): (20, 3),
    }  # fmt: skip
    assert plan.epochs == 5  # a step does not span two epochs
    assert plan.train_seconds > 0 < plan.eval_seconds
    assert not store.results.exists()
    assert not list(store.checkpoints.glob("*"))
    assert {path.parent.name for path in store.root.glob("cache/*/*")} == {"heads"}
    assert json.loads(json.dumps(plan.to_json()))["steps"] == 10


def test_tasks_that_are_measured_besides_count_for_the_start_the_end_and_the_choice(tmp_path):
    plan, _ = planned(tmp_path)
    more, _ = planned(tmp_path, also=("Textures",))
    (besides,) = [each for each in more.readings if each.purpose == "the end"]
    assert (besides.task, besides.split, besides.images, besides.passes) == ("Textures", "test", 40, 3)
    assert len(more.readings) == len(plan.readings) + 1
    assert more.kept > plan.kept


def test_memory_and_disk_follow_from_what_is_trained(tmp_path):
    whole, _ = planned(tmp_path)
    double, _ = planned(tmp_path, batch_size=32)
    probe, _ = planned(tmp_path, freeze_encoder=True, steps=10)
    assert whole.kept > 2 * 6e6  # two checkpoints of the embedded model
    assert whole.disk == whole.kept
    saved, _ = planned(tmp_path, steps=600)
    assert saved.disk > saved.kept
    assert double.memory > whole.memory > probe.memory
    assert probe.free > 0


def test_seconds_are_those_of_a_step_and_an_image_times_their_number(tmp_path, monkeypatch):
    real, ticks = planning.measure_rates, itertools.count()
    monkeypatch.setattr(
        planning, "measure_rates", lambda *given: real(*given)._replace(step=0.5, forward=0.25, preparation=0)
    )
    monkeypatch.setattr(planning, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setattr(planning, "text_seconds", lambda *_, **__: 0)
    plan, _ = planned(tmp_path)
    reading = {each.purpose: each.seconds for each in plan.readings}
    assert plan.train_seconds == pytest.approx(10 * 16 * (0.5 + reading["training"]))
    assert plan.eval_seconds == pytest.approx(sum(n * (3 * 0.25 + reading["the sweep"]) for n in (30, 30, 40, 40)))


def test_texts_count_once_for_each_head_and_at_every_alpha_where_their_tower_is_trained(tmp_path, monkeypatch):
    none, _ = planned(tmp_path / "none")
    monkeypatch.setattr(planning, "_seconds_of_head", lambda *_: 1000.0)
    plain, store = planned(tmp_path / "plain")
    assert plain.eval_seconds // 1000 == 1  # Colors': that of Shapes is made for the plan
    zeroshot_head(load_clip(ModelConfig("demo", "")), *head_of_task("Colors"), store)
    again, _ = planned(tmp_path / "plain")
    assert again.eval_seconds < 1000
    flyp, _ = planned(tmp_path / "flyp", objective="flyp", also=("Textures",), eval_every=1.0)
    assert flyp.eval_seconds // 1000 == 3 * 3  # alphas, heads
    assert flyp.train_seconds // 1000 == 2 * 1  # heads, looks: an epoch of 90 images has 6 steps of 16
    assert none.train_seconds + none.eval_seconds < 1000


def head_of_task(name):
    dataset = find_task(name).dataset
    return dataset.head_names, dataset.templates


def test_plan_prints_a_table_or_an_object_and_says_all_that_is_wrong(cli, monkeypatch):
    words = ["patch", "--model", "demo", "--task", "Shapes", "--supported", "Colors", "--steps", "3", "--plan"]
    done = cli(*words)
    assert done.exit_code == 0
    assert "3 steps of 128 images" in done.stdout
    assert "nothing was trained" in done.stdout
    (record,) = [json.loads(line) for line in cli(*words, "--json").stdout.splitlines()]
    assert record["type"] == "plan"
    broken = cli(*words, "--supported", "MNIST,corrupt:Shapes", "--limit", "5")
    assert broken.exit_code == 1
    assert "corrupt:Shapes needs 15 images at least" in broken.stderr
    assert "MNIST" in broken.stderr
    monkeypatch.setattr(planning, "_free", lambda _: 1000)
    assert "the disk of the store has no room for that" in cli(*words).stdout


def test_a_plan_is_measured_in_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "size", lambda: 2)
    with pytest.raises(UsageError, match="--plan measures in one process"):
        planned(tmp_path)


def test_a_step_is_one_of_the_objective_that_is_asked_for(tmp_path, monkeypatch):
    """A loss that waits takes the plan as long as the training."""
    seen = []

    def prepare(start):
        def loss(model, batch):
            time.sleep(0.05)
            seen.append(batch.others is not None)
            return start.cross_entropy(model(batch.images), batch)

        return loss

    slow = Objective("slow", prepare, unlabelled=True)
    monkeypatch.setattr(rates, "find_objective", lambda _: slow)
    plan, _ = planned(tmp_path, objective="distill", distill_on="Colors")
    assert plan.train_seconds > 10 * 16 * 0.05
    assert seen
    assert all(seen)
    beside = [each for each in plan.readings if each.purpose == planning.UNLABELLED]
    assert [(each.task, each.split, each.images, each.passes) for each in beside] == [("Colors", "train", 90, 2)]


@pytest.mark.slow
def test_memory_counts_what_an_objective_holds_beside_the_model(tmp_path):
    clip = load_clip(ModelConfig("demo", "")).model
    image_tower = sum(each.nbytes for each in clip.visual.parameters())
    text_tower = sum(each.nbytes for each in clip.parameters()) - image_tower
    plain, _ = planned(tmp_path)
    more = {
        name: planned(tmp_path, **settings)[0].memory - plain.memory
        for name, settings in {
            "distill": {"objective": "distill"}, "car-ft": {"objective": "car-ft"}, "l2-sp": {"objective": "l2-sp"},
            "ema": {"ema": 0.9}, "swa": {"swa": True}, "flyp": {"objective": "flyp"},
        }.items()
    }  # fmt: skip
    for name in ("distill", "car-ft", "l2-sp", "ema", "swa"):
        assert image_tower * 0.99 < more[name], name
    assert more["ema"] == more["swa"] < image_tower * 1.01
    assert more["flyp"] > 4 * text_tower  # weights, gradients, moments
    flyp, _ = planned(tmp_path, objective="flyp", steps=600)
    saved, _ = planned(tmp_path, steps=600)
    assert flyp.disk - flyp.kept > saved.disk - saved.kept  # states have both towers


def test_a_plan_of_lp_ft_counts_the_features_that_its_linear_classifier_takes(tmp_path):
    plan, _ = planned(tmp_path, objective="lp-ft", head="trained", objective_param=("steps=2",))
    probe, _ = planned(tmp_path, freeze_encoder=True)
    assert plan.train_seconds > 0
    assert plan.memory > probe.memory


def test_tensors_without_memory_are_passed_over(tmp_path):
    """An export leaves tensors behind that have a size and no memory."""
    with FakeTensorMode():
        left_behind = [torch.nn.Parameter(torch.ones(3)), torch.ones(2)]
    left_behind.append(torch._to_functional_tensor(torch.ones(5)))
    plan, _ = planned(tmp_path)
    assert plan.memory > 0
