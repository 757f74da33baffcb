"""Every task over alpha, on one pair of axes or each on its own."""

from pathlib import Path

import pandas as pd
import pytest

from tests.reports.plots.pictures import both, drawn, measured, several_patched
from wisepatch import alpha_table, draw_over_alpha, draw_per_task, per_task_table, read_results
from wisepatch.errors import ResultsError

DATA = Path(__file__).parents[2] / "data"


def paint():
    return read_results(DATA / "paint-vitb32-mnist.jsonl")[0]


def test_every_task_is_drawn_over_alpha_point_by_point():
    results = read_results(DATA / "wiseft-vitb16-imagenet.jsonl")[0]
    table = alpha_table(results)
    assert set(table["task"]) == {"ImageNet", "ImageNetV2", "ImageNetR", "ImageNetSketch", "ObjectNet", "ImageNetA"}
    figure = draw_over_alpha(table)
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    assert len(lines) == 6
    assert tuple(lines["ImageNet, accuracy"][0]) == (0.0, 0.683)
    assert all(len(points) == 21 for points in lines.values())


def test_attack_success_stands_beside_the_accuracy_of_an_attacked_task():
    results = paint()
    attacked = results[results["task"] == "MNIST"].assign(metric="attack_success", value=0.25)
    further = results[results["task"] == "MNIST"].assign(metric="neither", value=0.1)
    both = pd.concat([results, attacked, further], ignore_index=True)
    both["chosen"], both["selected_on"] = both["alpha"] == 0.33, "val"
    lines = {line.get_label(): line for line in draw_over_alpha(alpha_table(both)).axes[0].lines}
    misled = "MNIST, says what is written"
    assert set(lines) == {
        "MNIST, accuracy", "CIFAR10, accuracy", misled, "chosen on validation data (alpha 0.33)",
    }  # fmt: skip
    assert lines[misled].get_linestyle() == "--"
    assert set(lines[misled].get_ydata()) == {0.25}
    alone = draw_over_alpha(alpha_table(both, metric="neither"))
    labels = [line.get_label() for line in alone.axes[0].lines]
    assert [label for label in labels if label.startswith("M")] == ["MNIST, neither"]


def test_over_alpha_there_has_to_be_one_sweep():
    two = pd.concat([paint(), paint().assign(run="second")], ignore_index=True)
    with pytest.raises(ResultsError, match="here are 2 sweeps on the 'test' split") as caught:
        alpha_table(two)
    assert "second" in caught.value.hint
    with pytest.raises(ResultsError, match="here are none on the 'val' split"):
        alpha_table(paint(), split="val")
    with pytest.raises(ResultsError, match="no row measures 'macro_f1'"):
        alpha_table(paint(), metric="macro_f1")


def test_each_task_has_its_own_axes_the_patching_task_first_and_each_run_a_curve():
    figure = drawn("per-task")
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]
    assert titles == ["Digits (patching)", "Shapes", "Colors", "corrupt:Shapes"]
    table = per_task_table(both())
    for axes, task in zip(figure.axes, ("Digits", "Shapes", "Colors", "corrupt:Shapes"), strict=True):
        assert len(axes.lines) == 2
        rows = table[(table["task"] == task) & (table["run"] == "second")]
        assert axes.lines[1].get_xydata().tolist() == rows[["alpha", "value"]].to_numpy().tolist()
        assert len(axes.collections) == 2  # bands
    only = draw_per_task(per_task_table(both(), tasks=["Colors"]))
    assert len(only.axes) == 1


def test_tasks_of_runs_that_patch_others_are_not_drawn_together():
    others = pd.concat([measured(), measured("second", 0.2, ("MNIST", "Shapes"))])
    with pytest.raises(ResultsError, match="'first' and 'second' patch different tasks \\(Digits; MNIST\\)"):
        per_task_table(others)
    with pytest.raises(ResultsError, match="'SVHN' was not measured") as caught:
        per_task_table(measured(), tasks=["SVHN"])
    assert "Colors" in caught.value.hint
    with pytest.raises(ResultsError, match="no sweep over alpha on the 'val' split"):
        per_task_table(measured(), split="val")


def test_tasks_that_are_patched_together_are_all_marked():
    axes = draw_over_alpha(alpha_table(several_patched())).axes[0]
    thick = {line.get_label() for line in axes.lines if line.get_linewidth() > 2}
    assert thick == {"A{x}, accuracy", "B, accuracy"}
    titles = [each.get_title(loc="left") for each in draw_per_task(per_task_table(several_patched())).axes]
    assert titles == ["A{x} (patching)", "B (patching)", "kept"]


def test_fifteen_tasks_are_told_apart():
    tasks = [f"task {number}" for number in range(15)]
    axes = draw_over_alpha(alpha_table(measured(tasks=tasks))).axes[0]
    curves = [line for line in axes.lines if ", accuracy" in str(line.get_label())]
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in curves}) == len(curves) == 15
