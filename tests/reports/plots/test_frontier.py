"""Pictures: what is drawn is what was measured."""

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from tests.reports.plots.pictures import both, drawn, measured, several_patched
from wisepatch import draw_sweep, read_results, save_figure, sweep_table
from wisepatch.errors import ResultsError, UsageError

DATA = Path(__file__).parents[2] / "data"


def paint():
    return read_results(DATA / "paint-vitb32-mnist.jsonl")[0]


def legend_of(figure):
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


def curve(figure):
    return next(line for line in figure.axes[0].lines if line.get_linestyle() == "-").get_xydata()


def test_published_paint_sweep_is_drawn_point_by_point():
    figure = draw_sweep(sweep_table(paint()))
    points = curve(figure)
    assert len(points) == 101
    assert tuple(points[0]) == (0.8984, 0.4838)
    axes = figure.axes[0]
    assert "CIFAR10" in axes.get_xlabel()
    assert "MNIST" in axes.get_ylabel()
    figure.canvas.draw()
    assert all(text.get_text().endswith(" %") for text in axes.get_xticklabels() if text.get_text())


def test_mean_is_over_all_supported_tasks_or_those_named():
    results = read_results(DATA / "wiseft-vitb16-imagenet.jsonl")[0]
    table = sweep_table(results)
    assert len(table) == 21
    first = table.iloc[0]
    assert first["patching"] == 0.683
    assert first["supported"] == pytest.approx((0.619 + 0.776 + 0.482 + 0.53 + 0.498) / 5)
    only = sweep_table(results, supported=["ObjectNet"])
    assert only.iloc[0]["supported"] == 0.53
    assert sweep_table(results, patching="ImageNetV2").iloc[0]["patching"] == 0.619


@pytest.mark.parametrize(
    ("numbers", "said"),
    [((500, 500, 500), "n = 500 images a task"), ((400, 600, 500), "n = 400 (A{x}), 600 (B), 500 (kept)")],
)
def test_several_patching_tasks_count_the_images_of_each(numbers, said):
    figure = draw_sweep(sweep_table(several_patched(numbers)))
    assert f"{said}; bars: 95 % intervals" in [text.get_text() for text in figure.texts]
    assert figure.axes[0].get_ylabel().replace("\n", " ") == "mean accuracy on the 2 patching tasks (A{x} and B)"


def test_alphas_of_ends_and_chosen_point_are_labelled():
    results = paint()
    results["chosen"] = results["alpha"] == 0.33
    results["selected_on"] = "val"
    figure = draw_sweep(sweep_table(results))
    written = {text.get_text() for text in figure.axes[0].texts}
    assert {"0", "1", "0.33"} <= written
    assert len(written) < 60  # the others only where there is room
    legend = legend_of(figure)
    assert "chosen on validation data (alpha 0.33)" in legend
    assert "zero-shot (alpha 0)" in legend
    assert "fine-tuned (alpha 1)" in legend


def test_choice_on_test_data_is_labelled_in_the_picture():
    results = paint()
    results["chosen"] = results["alpha"] == 0.33
    results["selected_on"] = "test"
    legend = legend_of(draw_sweep(sweep_table(results)))
    assert "chosen on TEST data (alpha 0.33)" in legend


def test_without_supported_tasks_the_axis_is_alpha():
    results = paint()
    figure = draw_sweep(sweep_table(results[results["task"] == "MNIST"]))
    assert figure.axes[0].get_xlabel().startswith("alpha")
    assert tuple(curve(figure)[-1]) == (
        1.0,
        results[(results["task"] == "MNIST") & (results["alpha"] == 1)]["value"].iloc[0],
    )


def test_runs_get_a_curve_each():
    results = paint()
    other = results.copy()
    other["run"] = "other"

    figure = draw_sweep(sweep_table(pd.concat([results, other])))
    assert len([line for line in figure.axes[0].lines if line.get_linestyle() == "-"]) == 2


def curve_names(results):
    others = ("zero-shot", "fine-tuned", "chosen", "optimal")
    return [name for name in legend_of(draw_sweep(sweep_table(results))) if not name.startswith(others)]


def test_a_run_is_called_by_its_own_name_where_it_has_one():

    results = paint()
    assert curve_names(results.assign(run_name=None)) == curve_names(results)
    assert curve_names(results.assign(run_name="slow rate")) == ["slow rate"]
    other = results.assign(run="other", run_name="", method="fisher", training="paint")
    both = pd.concat([results.assign(run_name="slow rate"), other])
    assert curve_names(both) == ["slow rate", "other, weighed by Fisher information"]


def test_a_metric_of_which_less_is_better_says_so_on_its_axes():
    axes = draw_sweep(sweep_table(paint().assign(metric="attack_success"))).axes[0]
    assert axes.get_ylabel().replace("\n", " ") == "says what is written (lower is better) on the patching task (MNIST)"
    assert (
        axes.get_xlabel().replace("\n", " ")
        == "mean says what is written (lower is better) on the supported tasks (CIFAR10)"
    )


def test_each_axis_names_the_metric_of_its_own_tasks():
    results = paint()
    results.loc[results["task"] == "MNIST", "metric"] = "of the papers"
    axes = draw_sweep(sweep_table(results)).axes[0]
    assert axes.get_ylabel().startswith("of the papers on the patching task")
    assert axes.get_xlabel().startswith("mean accuracy on the supported tasks")


def test_intervals_are_drawn_where_the_rows_have_them(run_store, tmp_path):
    from wisepatch import sweep

    sweep(run_store, tmp_path, alphas=(0, 0.5, 1), tasks=["Colors"])
    table = sweep_table(read_results(run_store.results)[0])
    assert (table["patching_low"] <= table["patching"]).all()
    assert (table["patching_high"] >= table["patching"]).all()
    assert (table["supported_low"] < table["supported"]).all()
    assert (table["supported_high"] >= table["supported"]).all()
    assert len(draw_sweep(table).axes[0].collections) >= 2


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_suffix_decides_the_format(tmp_path, suffix, magic):
    path = tmp_path / "new" / f"plot{suffix}"
    save_figure(draw_sweep(sweep_table(paint())), path)
    assert path.read_bytes().startswith(magic)


def test_what_cannot_be_drawn_says_why(tmp_path):
    results = paint()
    with pytest.raises(UsageError, match=r"cannot draw '\.bmp'"):
        save_figure(draw_sweep(sweep_table(results)), tmp_path / "plot.bmp")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        save_figure(draw_sweep(sweep_table(results)), tmp_path / "file" / "plot.png")
    with pytest.raises(ResultsError, match="no row measures 'f1'") as caught:
        sweep_table(results, metric="f1")
    assert "top1" in caught.value.hint
    with pytest.raises(ResultsError, match="'SVHN' was not measured"):
        sweep_table(results, patching="SVHN")
    with pytest.raises(ResultsError, match="no sweep over alpha on the 'val' split"):
        sweep_table(results, split="val")
    results["patching"] = None
    with pytest.raises(ResultsError, match="does not say which task was patched") as caught:
        sweep_table(results)
    assert "--patching" in caught.value.hint


def test_first_metric_of_a_run_is_drawn_and_named(run_store, tmp_path):
    from wisepatch import sweep

    swept = sweep(run_store, tmp_path, alphas=(0, 1), tasks=["Colors"], metrics=("macro_f1", "top1"))
    table = sweep_table(read_results(run_store.results)[0])
    first = [row["value"] for row in swept.rows if row["task"] == "shapes" and row["metric"] == "macro_f1"]
    assert list(table["patching"]) == first
    assert draw_sweep(table).axes[0].get_ylabel().startswith("macro F1")
    assert (
        draw_sweep(sweep_table(read_results(run_store.results)[0], metric="top1"))
        .axes[0]
        .get_ylabel()
        .startswith("accuracy")
    )


def test_runs_that_swept_nothing_are_left_out_of_all(cli, run_store):
    cli("eval", "zeroshot", "--task", "Colors")
    cli("interpolate", "--alpha", "0,1", "--eval", "Colors")
    result = cli("plot", "--run", "all")
    assert result.exit_code == 0, result.output
    assert "drew 2 points of 1 run to" in result.stdout


def test_runs_without_supported_tasks_are_named_and_not_drawn_beside_others(cli, run_store):
    cli("interpolate", "--alpha", "0,1", "--eval", "Colors")
    cli("interpolate", "--alpha", "0,1", "--eval", "")
    result = cli("plot", "--run", "all")
    assert "drew 2 points of 1 run to" in result.stdout
    assert "warning: runs without supported tasks are not drawn beside others: demo, " in result.stderr


def test_supported_task_that_was_not_measured_is_an_error():
    with pytest.raises(ResultsError, match="'bogus' was not measured in run"):
        sweep_table(paint(), supported=["bogus"])


def test_many_supported_tasks_fit_on_the_axis():
    figure = draw_sweep(sweep_table(read_results(DATA / "wiseft-vitb16-imagenet.jsonl")[0]))
    assert figure.axes[0].get_xlabel() == "mean accuracy on the supported tasks (5 tasks)"


def test_labels_of_a_narrow_range_stand_beside_each_other():
    table = sweep_table(paint())
    table["supported"] = 0.9962 + 0.0038 * table["alpha"]
    figure = draw_sweep(table.assign(supported_low=float("nan"), supported_high=float("nan")))
    figure.canvas.draw()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    shown = [label for label, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True) if low <= at <= high]
    boxes = [label.get_window_extent() for label in shown]
    assert len(boxes) > 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_points_and_runs_are_counted_in_words(cli, run_store):
    cli("interpolate", "--alpha", "0.5", "--eval", "Colors")
    assert "drew 1 point of 1 run to" in cli("plot").stdout
    cli("interpolate", "--alpha", "0.25,0.5", "--eval", "Colors")
    assert "drew 3 points of 2 runs to" in cli("plot", "--run", "all").stdout


def test_the_interval_of_the_supported_mean_takes_tasks_of_the_same_images_together():
    from wisepatch.analysis.intervals import of_means

    results = measured()
    row = sweep_table(results).set_index("alpha").loc[0.6]
    rows = results[(results["alpha"] == 0.6) & (results["task"] != "Digits")]
    low, high = of_means(rows["value"], rows["ci_low"], rows["ci_high"], list(rows["task"]))
    assert low < of_means(rows["value"], rows["ci_low"], rows["ci_high"])[0]
    assert (row["supported_low"], row["supported_high"]) == (low, high)
    assert row["supported"] - low != pytest.approx(high - row["supported"])  # near 100 % it is no symmetric one
    results.loc[results["task"] == "Shapes", ["ci_low", "ci_high"]] = float("nan")
    assert sweep_table(results)["supported_low"].isna().all()


def test_the_table_has_the_measures_of_paint_and_the_picture_the_optimum():
    table = sweep_table(paint()).set_index("alpha")
    assert table.loc[0.33, "to_zeroshot"] == pytest.approx(0.8984 - 0.8809)
    assert table.loc[0.33, "to_optimal"] == pytest.approx((0.8984 + table.loc[1.0, "patching"] - 0.8809 - 0.9798) / 2)
    assert table.loc[0.33, "on_frontier"]
    assert not table.loc[1.0, "on_frontier"]
    (mark,) = [line for line in drawn("frontier").axes[0].lines if line.get_marker() == "+"]
    assert mark.get_xydata().tolist() == [[0.8984, table.loc[1.0, "patching"]]]


def test_measures_of_a_metric_of_which_less_is_better_are_what_is_lost():
    results = measured()
    table = sweep_table(results.assign(metric="attack_success", value=1 - results["value"])).set_index("alpha")
    expected = sweep_table(results).set_index("alpha")
    for name in ("to_finetuned", "to_zeroshot", "to_optimal"):
        assert table[name].tolist() == pytest.approx(expected[name].tolist())
    assert (table["on_frontier"] == expected["on_frontier"]).all()


def test_runs_come_in_order_of_time_and_are_told_apart_by_names():
    results = both()
    results["run"] = results["run"].map({"first": "z-20260101T000000-aaaa", "second": "a-20260102T000000-bbbb"})
    assert list(sweep_table(results)["run_name"].unique()) == ["first", "second"]
    swapped = pd.concat([results[results["run_name"] == "second"], results[results["run_name"] == "first"]])
    assert list(sweep_table(swapped)["run_name"].unique()) == ["first", "second"]
    nameless = results.assign(run_name="")
    nameless.loc[nameless["run"].str.startswith("a"), "seed"] = 1
    assert list(sweep_table(nameless)["run_name"].unique()) == ["demo, seed 0", "demo, seed 1"]


def test_runs_without_axes_in_common_are_not_drawn_together():
    tasks = ("Digits", "Shapes", "Colors", "corrupt:Shapes")
    other_task = pd.concat([measured(), measured("second", 0.2, ("MNIST", *tasks[1:]))])
    with pytest.raises(ResultsError, match="'first' and 'second' patch different things \\(Digits; MNIST\\)") as caught:
        sweep_table(other_task)
    assert "--compare" in caught.value.hint
    fewer = pd.concat([measured(), measured("second", 0.2, tasks[:3])])
    with pytest.raises(ResultsError, match="support different things") as caught:
        sweep_table(fewer)
    assert caught.value.hint == "average the tasks that both have: --supported Shapes,Colors"
    assert len(sweep_table(fewer, supported=["Shapes", "Colors"])["run"].unique()) == 2
    with pytest.raises(ResultsError, match="measure different things"):
        sweep_table(pd.concat([measured(), measured("second", 0.2).assign(metric="macro_f1")]))
