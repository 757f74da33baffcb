"""The whole way: a folder and a CSV through ``patch``, alpha chosen on validation data."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import torch

from tests.samples import draw_folder
from wisepatch import EvalConfig, ModelConfig, Rule, Store, TrainConfig, patch
from wisepatch.errors import DataError, ResourceError, UnknownNameError, UsageError
from wisepatch.store.results import read

DEMO = ModelConfig("demo", "")


def test_misspelt_supported_task_is_said_before_training(tmp_path, shapes):
    config = TrainConfig.with_defaults(str(shapes), supported=("Shpes",), steps=1)
    with pytest.raises(UnknownNameError, match="did you mean Shapes"):
        patch(config, DEMO, Store(tmp_path / "store"), tmp_path)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_folder_and_csv_go_through_patch(cli, tmp_path, kind):
    root = draw_folder(tmp_path / "things", per_class=8, classes=("heart", "star", "ring"))
    task = root
    if kind == "csv":
        rows = [f"{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(root.rglob("*.png"))]
        task = root / "things.csv"
        task.write_text("path,label\n" + "\n".join(rows) + "\n")
    result = cli(
        "patch", "--model", "demo", "--task", task, "--supported", "Colors", "--steps", "4", "--batch-size", "8",
        "--lr", "1e-3", "--alpha", "0,0.5,1", "--select", "max-drop=0.02", "--output", "things.pdf",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "chosen on validation data; the patched model is demo/things/patched" in result.stdout
    assert (tmp_path / "things.pdf").read_bytes().startswith(b"%PDF")
    assert cli("eval", "patched", "--task", task).exit_code == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select_on": "both"}, "selected on val or test, not 'both'"),
        ({"rule": Rule("max-drop", 0.01), "alphas": (0.5, 1)}, "max-drop needs alpha 0 in the sweep"),
    ],
)
def test_choice_that_cannot_be_made_is_said_before_training(tmp_path, shapes, settings, message):
    config = TrainConfig.with_defaults(str(shapes), supported=("Colors",), steps=1)
    with pytest.raises(UsageError, match=message):
        patch(config, DEMO, Store(tmp_path / "store"), tmp_path, **settings)
    assert not (tmp_path / "store").exists()


def test_two_tasks_of_one_name_are_refused_before_training(tmp_path, shapes):
    other = draw_folder(tmp_path / "other" / "shapes")
    config = TrainConfig.with_defaults(str(shapes), supported=(str(other),), steps=1)
    with pytest.raises(UsageError, match="two tasks of one sweep are called 'shapes'"):
        patch(config, DEMO, Store(tmp_path / "store"), tmp_path)


@pytest.mark.slow
def test_patching_cures_the_embedded_model_of_reading(cli):
    """What the README says of typographic attacks, as it is measured here."""
    result = cli(
        "patch", "--model", "demo", "--task", "typo:Shapes", "--supported", "Shapes,Colors,Textures",
        "--steps", 300, "--lr", "5e-4", "--select", "max-drop=0.01", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    *rows, chosen = (json.loads(line) for line in result.stdout.splitlines())
    value = {(r["alpha"], r["task"], r["metric"]): r["value"] for r in rows if r["split"] == "test"}
    supported = [sum(value[alpha, task, "top1"] for task in ("Shapes", "Colors", "Textures")) / 3 for alpha in (0, 0.5)]
    assert chosen["alpha"] == 0.5
    assert value[0, "typo:Shapes", "top1"] < 0.05
    assert value[0, "typo:Shapes", "attack_success"] > 0.9
    assert value[0.5, "typo:Shapes", "top1"] > 0.5
    assert value[0.5, "typo:Shapes", "attack_success"] < 0.25
    assert supported[1] > supported[0] - 0.01


@pytest.mark.slow
def test_demo_patches_the_embedded_model_on_real_digits(cli, tmp_path):
    """What the README shows, as it is measured here."""
    result = cli("demo", "--json")
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    rows, (chosen,) = ([each for each in records if each["type"] == kind] for kind in ("result", "choice"))
    accuracy = {(row["alpha"], row["task"]): row["value"] for row in rows if row["split"] == "test"}

    def supported(alpha):
        return sum(accuracy[alpha, task] for task in ("Shapes", "Colors", "Textures")) / 3

    assert chosen["selected_on"] == "val"
    assert accuracy[0, "Digits"] < 0.25
    assert accuracy[chosen["alpha"], "Digits"] >= 0.85
    assert supported(chosen["alpha"]) >= supported(0) - 0.02
    assert supported(1) < supported(chosen["alpha"]) - 0.02
    assert (tmp_path / "wisepatch-demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_two_processes_train_and_one_sweeps(shapes, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "wisepatch"]
    words = [
        "patch", "--model", "demo", "--task", shapes, "--steps", "2", "--alpha", "0,0.5,1", "--store", "store", "--json",
    ]  # fmt: skip
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launch, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    kept = (tmp_path / "store" / "results.jsonl").read_text().splitlines()
    assert len(kept) == 6  # three alphas, val and test
    assert len(rows) == len(kept) + 1  # and the choice
    assert {row["run"] for row in rows if "run" in row} == {json.loads(line)["run"] for line in kept}


def test_a_setting_that_there_is_not_is_refused_before_training(tmp_path, shapes):
    config = TrainConfig.with_defaults(str(shapes), steps=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'workers'"):
        patch(config, DEMO, Store(tmp_path / "store"), tmp_path, workers=0)
    assert not (tmp_path / "store").exists()


def test_settings_of_the_sweep_travel_whole(tmp_path, shapes, monkeypatch):
    from wisepatch.workflows import run as module

    seen, original = [], module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *a, **k: seen.append(k["settings"]) or original(*a, **k))
    training = TrainConfig.with_defaults(str(shapes), steps=1, batch_size=8, workers=0)
    settings = EvalConfig(batch_size=5, workers=0)
    patch(training, DEMO, Store(tmp_path / "store"), tmp_path, alphas=(0, 1), settings=settings)
    assert seen == [settings, settings]
    patch(training, DEMO, Store(tmp_path / "store"), tmp_path, alphas=(0, 1))
    assert seen[2:] == [EvalConfig(workers=0)] * 2


def test_memory_that_runs_out_in_the_sweep_names_the_option_of_the_sweep(cli, shapes, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0")

    monkeypatch.setattr("wisepatch.workflows.run.evaluate", fail)
    words = ("patch", "--model", "demo", "--task", shapes, "--steps", "1", "--batch-size", "8")
    result = cli(*words)
    assert result.exit_code == 1
    assert "error: the GPU's memory ran out" in result.stderr
    assert "hint: give a smaller --eval-batch-size" in result.stderr
    assert Store(tmp_path / "wisepatch-store").find("finetuned").kind == "finetuned"  # the training is not lost
    assert "go on with: wisepatch interpolate --checkpoint=" in result.stderr
    with pytest.raises(ResourceError, match="memory ran out"):
        patch(TrainConfig.with_defaults(str(shapes), steps=1, batch_size=8), DEMO, Store(tmp_path / "store"), tmp_path)
    monkeypatch.setattr("wisepatch.workflows.patch_job.finetune", fail)
    assert "hint: give a smaller --batch-size" in cli(*words).stderr


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), DataError("it went away", "")])
def test_what_stops_the_sweep_names_the_command_that_goes_on(cli, shapes, tmp_path, monkeypatch, stop):
    def fail(*_, **__):
        raise stop

    store = tmp_path / "a store"  # not the default one
    words = [
        "--steps",
        "1",
        "--batch-size",
        "8",
        "--store",
        str(store),
        "--fisher-examples",
        "8",
        "--mixed-precision",
        "bf16",
    ]
    plan = [
        "--alpha",
        "0,0.123456789",
        "--select",
        "max-drop=0.5",
        "--select-on",
        "test",
        "--method",
        "fisher",
        "--name",
        "my run",
    ]
    with monkeypatch.context() as broken:
        broken.setattr("wisepatch.workflows.run.evaluate", fail)
        result = cli("patch", "--model", "demo", "--task", shapes, "--supported", "Colors", *words, *plan)
    assert result.exit_code in (1, 130)
    _, command = result.stderr.rstrip().split("the fine-tuned model is stored; go on with: wisepatch ")
    assert cli(*shlex.split(command)).exit_code == 0
    patched = Store(store).find("patched")
    assert patched.parents[1] == Store(store).find("finetuned").id
    assert patched.recipe.method == "fisher"
    assert patched.recipe.params["fisher"]["examples"] == 8
    assert patched.config["select"] == "max-drop=0.5"
    rows = read(Store(store).results)[0]
    assert set(rows["alpha"]) == {0, 0.123456789}
    assert set(rows["role"]) == {"patching", "supported"}
    assert set(rows["run_name"]) == {"my run"}
    assert set(rows["selected_on"]) == {"test"}


def test_a_task_that_names_its_training_split_is_judged_on_the_others(tmp_path, shapes):
    config = TrainConfig.with_defaults(f"{shapes}@train", supported=("Colors",), steps=1, batch_size=4, warmup=0)
    done = patch(config, DEMO, Store(tmp_path / "store"), tmp_path, alphas=(0, 1))
    measured = {(row["split"], row["n"]) for row in done.sweep.rows if row["role"] == "patching"}
    assert {split for split, _ in measured} == {"val", "test"}


@pytest.mark.parametrize("alphas", [(), (0, 1.5), "01x"])
def test_alphas_that_are_none_are_refused_before_training(tmp_path, shapes, alphas):
    config = TrainConfig.with_defaults(str(shapes), steps=1, batch_size=4)
    with pytest.raises(UsageError):
        patch(config, DEMO, Store(tmp_path / "store"), tmp_path, alphas=alphas)
    assert not Store(tmp_path / "store").everything()
