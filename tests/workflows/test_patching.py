"""The whole way: a folder and a CSV through ``patch``, alpha chosen on validation data."""

import json
import os
import subprocess
import sys

import pytest

from tests.samples import draw_folder
from wisepatch import ModelConfig, Rule, Store, TrainConfig, choose, patch, sweep
from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.workflows.patching import line_tasks

DEMO = ModelConfig("demo", "")


def test_alpha_is_chosen_on_validation_and_reported_on_test(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=(0, 0.5, 1), tasks=["Colors"], rule=Rule())
    assert list(swept.points) == ["val", "test"]
    assert swept.choice == choose(swept.points["val"], Rule())
    chosen = [row for row in swept.rows if row.get("chosen")]
    assert {row["split"] for row in chosen} == {"val", "test"}
    assert {row["selected_on"] for row in chosen} == {"val"}
    assert {row["alpha"] for row in chosen} == {swept.choice.alpha}
    assert {row["role"] for row in swept.rows if row["task"] == "shapes"} == {"patching"}
    kept = run_store.find("patched")
    assert (kept.name, kept.alpha, kept.is_recipe) == ("demo/shapes/patched", swept.choice.alpha, True)
    assert kept.config["select"] == "best-mean"
    assert kept.config["select_on"] == "val"


def test_choice_on_test_data_is_written_into_the_checkpoint(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=(0, 1), tasks=["Colors"], rule=Rule(), select_on="test")
    assert list(swept.points) == ["test"]
    assert swept.chosen.config["select_on"] == "test"


def test_without_a_rule_nothing_is_chosen(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=(0, 1))
    assert (swept.choice, swept.chosen, swept.supported) == (None, None, ("Colors",))
    assert list(swept.points) == ["test"]


def test_recipes_are_small_and_ends_are_the_parents(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=(0, 0.1, 1), tasks=())
    assert [c.kind for c in swept.checkpoints.values()] == ["zeroshot", "interpolated", "finetuned"]
    folder = run_store.checkpoints / swept.checkpoints[0.1].id
    assert [p.name for p in folder.iterdir()] == ["manifest.json"]
    assert (folder / "manifest.json").stat().st_size < 2500
    assert json.loads((folder / "manifest.json").read_text())["recipe"]["params"] == {"alpha": 0.1}


def test_select_on_is_val_or_test(run_store, tmp_path):
    with pytest.raises(UsageError, match="selected on val or test, not 'train'"):
        sweep(run_store, tmp_path, select_on="train")


def test_misspelt_supported_task_is_said_before_training(tmp_path, shapes):
    config = TrainConfig.with_defaults(str(shapes), supported=("Shpes",), steps=1)
    with pytest.raises(UnknownNameError, match="did you mean Shapes"):
        patch(config, DEMO, Store(tmp_path / "store"), tmp_path)
    assert not (tmp_path / "store").exists()


def test_task_named_with_a_split_is_still_trained_and_tested_on_its_own(run_store, shapes):
    end = run_store.find("finetuned")
    patching, others = line_tasks(end, ["Colors@val", end.config["task"]])
    assert (patching.name, patching.split) == ("shapes", None)
    assert [(t.name, t.split) for t in others] == [("Colors", "val")]


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_folder_and_csv_go_through_patch(cli, tmp_path, kind):
    root = draw_folder(tmp_path / "things", per_class=8, classes=("heart", "star", "ring"))
    task = root
    if kind == "csv":
        rows = [f"things/{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(root.rglob("*.png"))]
        task = tmp_path / "things.csv"
        task.write_text("path,label\n" + "\n".join(rows) + "\n")
    result = cli(
        "patch", "--model", "demo", "--task", task, "--supported", "Colors", "--steps", "4", "--batch-size", "8",
        "--lr", "1e-3", "--alpha", "0,0.5,1", "--select", "max-drop=0.02", "--output", "things.pdf",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "chosen on validation data; the patched model is demo/things/patched" in result.stdout
    assert (tmp_path / "things.pdf").read_bytes().startswith(b"%PDF")
    assert cli("eval", "patched", "--task", task).exit_code == 0


def test_choice_on_test_data_is_labelled_in_every_row_and_in_the_picture(cli, run_store):
    result = cli(
        "interpolate", "--alpha", "0,0.5,1", "--eval", "Colors", "--select", "best-mean", "--select-on", "test"
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in run_store.results.read_text().splitlines()]
    assert {row["selected_on"] for row in rows} == {"test"}
    assert sum(row["chosen"] for row in rows) == 2
    from wisepatch import draw_sweep, read_results, sweep_table

    figure = draw_sweep(sweep_table(read_results(run_store.results)[0]))
    assert any("chosen on TEST data" in text.get_text() for text in figure.axes[0].get_legend().get_texts())


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


def test_max_drop_needs_supported_tasks(run_store, tmp_path):
    with pytest.raises(UsageError, match="max-drop needs supported tasks"):
        sweep(run_store, tmp_path, tasks=(), rule=Rule("max-drop", 0.01))


def test_task_that_names_a_split_cannot_take_part_in_a_choice(run_store, tmp_path):
    with pytest.raises(UsageError, match="Colors@test names a split, and alpha is to be chosen on val"):
        sweep(run_store, tmp_path, tasks=["Colors@test"], rule=Rule())
    assert sweep(run_store, tmp_path, alphas=(0,), tasks=["Colors@val"]).rows[1]["split"] == "val"


def test_two_tasks_of_one_name_are_refused_before_training(tmp_path, shapes):
    other = draw_folder(tmp_path / "other" / "shapes")
    config = TrainConfig.with_defaults(str(shapes), supported=(str(other),), steps=1)
    with pytest.raises(UsageError, match="two tasks of one sweep are called 'shapes'"):
        patch(config, DEMO, Store(tmp_path / "store"), tmp_path)


def test_eval_keeps_class_names_and_prompts_of_the_run(cli, shapes, tmp_path):
    (tmp_path / "names.txt").write_text("star\nheart\nring\n")  # not what the folders say
    common = ("--task", shapes, "--json")
    cli(
        "finetune",
        "--model",
        "demo",
        "--task",
        shapes,
        "--classnames",
        "names.txt",
        "--steps",
        "1",
        "--batch-size",
        "4",
    )
    as_trained = json.loads(cli("eval", "zeroshot", "finetuned", *common).stdout.splitlines()[0])["value"]
    by_folder = json.loads(cli("eval", "zeroshot", *common).stdout.splitlines()[0])["value"]
    assert by_folder > as_trained


def test_line_from_a_checkpoint_with_a_trained_head(shapes, tmp_path):
    store = Store(tmp_path / "store")
    from wisepatch import finetune

    settings = {"steps": 1, "batch_size": 8, "warmup": 0}
    first = finetune(TrainConfig.with_defaults(str(shapes), head="trained", **settings), DEMO, store, tmp_path)
    again = finetune(TrainConfig.with_defaults(str(shapes), start="finetuned", **settings), DEMO, store, tmp_path)
    assert (again.zeroshot.kind, again.zeroshot.name, again.zeroshot.head) == ("start", "demo/shapes/start", None)
    assert again.zeroshot.parents == (first.finetuned.id,)
    rows = sweep(store, tmp_path, alphas=(0, 0.5, 1), tasks=["Colors"]).rows
    assert [row["alpha"] for row in rows if row["task"] == "Colors"] == [0, 0.5, 1]
    assert store.find("zeroshot").id == first.zeroshot.id


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
    *rows, chosen = (json.loads(line) for line in result.stdout.splitlines())
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
        "patch",
        "--model",
        "demo",
        "--task",
        shapes,
        "--steps",
        "2",
        "--alpha",
        "0,0.5,1",
        "--store",
        "store",
        "--json",
    ]
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
