"""The whole way: a folder and a CSV through ``patch``, alpha chosen on validation data."""

import json

import pytest

from tests.samples import draw_folder
from wisepatch import FinetuneConfig, ModelConfig, Rule, Store, choose, patch, sweep
from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.patching import line_tasks

DEMO = ModelConfig("demo", "")


def test_alpha_is_chosen_on_validation_and_reported_on_test(run_store, tmp_path):
    swept = sweep(run_store, tmp_path, alphas=(0, 0.5, 1), tasks=["Colors"], rule=Rule())
    assert list(swept.points) == ["val", "test"]
    assert swept.choice == choose(swept.points["val"], Rule())
    chosen = [row for row in swept.rows if row.get("chosen")]
    assert {row["split"] for row in chosen} == {"test"}
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
    assert json.loads((folder / "manifest.json").read_text())["alpha"] == 0.1


def test_select_on_is_val_or_test(run_store, tmp_path):
    with pytest.raises(UsageError, match="selected on val or test, not 'train'"):
        sweep(run_store, tmp_path, select_on="train")


def test_misspelt_supported_task_is_said_before_training(tmp_path, shapes):
    config = FinetuneConfig.with_defaults(str(shapes), supported=("Shpes",), steps=1)
    with pytest.raises(UnknownNameError, match="did you mean Shapes"):
        patch(config, DEMO, Store(tmp_path / "store"), tmp_path)
    assert not (tmp_path / "store").exists()


def test_task_named_with_a_split_is_still_trained_and_tested_on_its_own(run_store, shapes):
    end = run_store.find("finetuned")
    patching, others = line_tasks(end, ["Colors@val", str(shapes)])
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
