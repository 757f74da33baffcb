"""Shifts on logit axes: the published figure, points at the ends, and what is said where something is missing."""

import math

import pandas as pd
import pytest

from tests.reports.plots.pictures import both, drawn, measured, texts, wise_ft
from wisepatch import draw_robustness, robustness_table
from wisepatch.analysis.robustness import expit, logit
from wisepatch.errors import ResultsError
from wisepatch.reports.plots.logit_axes import clamp_of

SHIFTS = ["ImageNetV2", "ImageNetSketch", "ImageNetR", "ObjectNet", "ImageNetA"]


def rho(table, shift, alpha):
    rows = table[(table["shift"] == shift) & (table["alpha"] == alpha)]
    return float(rows["rho"].iloc[0])


def test_published_sweep_has_the_published_numbers_for_every_point():
    table = robustness_table(wise_ft())
    assert list(table["shift"].unique()) == [*SHIFTS, "mean of 5 shifts"]
    assert [round(rho(table, "ImageNetV2", alpha), 1) for alpha in (0, 1, 0.5)] == [6.7, 0.7, 2.1]
    assert len(table) == 6 * 21
    assert table[table["shift"] == "mean of 5 shifts"]["rho"].isna().all()  # no line is published for it
    first = table[(table["shift"] == "mean of 5 shifts") & (table["alpha"] == 0)].iloc[0]
    assert first["value"] == pytest.approx((0.619 + 0.776 + 0.482 + 0.53 + 0.498) / 5)


def test_each_shift_has_a_panel_with_its_curve_line_and_rho_and_the_mean_has_no_line():
    figure = drawn("robustness")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [*SHIFTS, "mean of 5 shifts"]
    v2, mean = figure.axes[0], figure.axes[-1]
    curve = next(line for line in v2.lines if len(line.get_xydata()) == 21)
    assert curve.get_xydata()[0].tolist() == [0.683, 0.619]
    assert {text.get_text() for text in v2.texts} == {"+6.7", "+2.1", "+0.7"}
    assert not mean.texts
    standard = [line for line in v2.lines if len(line.get_xydata()) > 21 and line.get_linestyle() == "-"]
    x, y = standard[0].get_xydata()[30]
    assert y == pytest.approx(float(expit(0.923 * logit(x) - 0.498)))
    assert not [line for line in mean.lines if len(line.get_xydata()) > 21 and line.get_linestyle() == "-"]
    for axes in figure.axes:
        (same,) = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert (same.get_xdata() == same.get_ydata()).all()
    x, y = v2.transData.transform([(0.7, 0.6), (0.8, 0.7)]).T
    assert (x[1] - x[0]) / (y[1] - y[0]) == pytest.approx(
        (logit(0.8) - logit(0.7)) / (logit(0.7) - logit(0.6))
        * abs(_scale(v2, 0) / _scale(v2, 1))
    )  # fmt: skip


def _scale(axes, side):
    low, high = (axes.get_xlim, axes.get_ylim)[side]()
    return axes.get_window_extent().size[side] / (logit(high) - logit(low))


def test_restricted_accuracy_is_what_a_shift_is_compared_with_where_it_was_measured():
    results = wise_ft()
    own = results[results["task"] == "ImageNet"].assign(
        task="ImageNetRValClasses", value=lambda frame: frame["value"] + 0.1
    )
    table = robustness_table(pd.concat([results, own], ignore_index=True))
    assert list(table["shift"].unique()) == [*SHIFTS, "mean of 5 shifts"]
    row = table[(table["shift"] == "ImageNetR") & (table["alpha"] == 0)].iloc[0]
    assert (row["reference_task"], row["reference"]) == ("ImageNetRValClasses", pytest.approx(0.783))
    assert row["rho"] == pytest.approx(100 * (0.776 - float(expit(0.637 * logit(0.783) - 2.108))))
    assert row["slope"] == 0.637
    assert set(table[table["shift"] == "mean of 5 shifts"]["reference_task"]) == {"ImageNet"}
    labels = [axes.get_xlabel().replace("\n", " ") for axes in draw_robustness(table).axes]
    assert labels[2] == "accuracy on ImageNetRValClasses"


def test_any_pair_of_tasks_has_axes_and_intervals():
    table = robustness_table(both(), reference="Shapes")
    assert list(table["shift"].unique()) == ["corrupt:Shapes"]  # known by its name
    assert table["ci_low"].notna().all()
    assert table["rho"].isna().all()
    figure = drawn("robustness-pair")
    assert len(figure.axes) == 1
    assert "no line is known for corrupt:Shapes" in " ".join(text.replace("\n", " ") for text, _ in texts(figure))
    named = robustness_table(measured(), reference="Digits", shifts=["Colors", "Shapes"])
    assert list(named["shift"].unique()) == ["Colors", "Shapes", "mean of 2 shifts"]


def test_an_interval_that_is_missing_follows_from_n():
    from wisepatch.analysis.intervals import wilson

    results = measured().assign(ci_low=math.nan, ci_high=math.nan)
    row = robustness_table(results, reference="Shapes").iloc[0]
    assert (row["ci_low"], row["ci_high"]) == wilson(row["value"], 500)
    bare = robustness_table(results.assign(n=math.nan), reference="Shapes")
    assert bare["ci_low"].isna().all()


def test_lines_can_be_fitted_to_models_of_ones_own(tmp_path):
    from wisepatch.analysis.robustness import fit_lines, read_models

    path = tmp_path / "models.csv"
    path.write_text("model,Shapes,corrupt:Shapes\n" + "".join(f"m{i},{0.5 + i / 10},{0.3 + i / 9}\n" for i in range(5)))
    lines = fit_lines(path, "Shapes", ["corrupt:Shapes"])
    table = robustness_table(measured(), reference="Shapes", lines=lines)
    assert table["rho"].notna().all()
    assert set(table["line"]) == {"models.csv, 5 models"}
    figure = draw_robustness(table, models=read_models(path))
    assert [len(line.get_xydata()) for line in figure.axes[0].lines if line.get_marker() == "x"] == [5]
    assert "models.csv, 5 models" in " ".join(text.replace("\n", " ") for text, _ in texts(figure))


@pytest.mark.parametrize(
    "points",
    [
        [(0.0, 0.0), (1.0, 1.0)],
        [(1.0, 0.0)],
        [(0.9, 0.8)],
        [(math.nan, 0.5), (0.5, 0.6), (0.6, math.nan)],
        [(math.nan, math.nan)],
        [(0.952, 0.5), (0.9999, 0.99)],
        [(0.5, 0.5), (0.5, 0.5)],
    ],
)
def test_accuracies_of_nothing_all_and_none_and_a_single_point_are_drawn(tmp_path, points):
    from wisepatch import save_figure

    rows = [
        {"run": "r", "run_name": "r", "alpha": alpha, "task": task, "split": "test", "metric": "top1", "value": value, "n": 10,
         "ci_low": math.nan, "ci_high": math.nan, "patching": "ImageNet", "chosen": False, "selected_on": None}
        for alpha, pair in zip((0.0, 1.0, 0.5), points, strict=False)
        for task, value in zip(("ImageNet", "ImageNetV2"), pair, strict=True)
    ]  # fmt: skip
    table = robustness_table(pd.DataFrame(rows))
    figure = draw_robustness(table)
    save_figure(figure, tmp_path / "r.png")  # a warning would be an error
    (axes,) = figure.axes
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert 0 < low < high < 1
    known = [pair for pair in points if not any(map(math.isnan, pair))]
    marks = [
        line.get_xydata()[0] for line in axes.lines if line.get_marker() in ("o", "s", "D") and len(line.get_xydata())
    ]
    assert len(marks) == len(known)
    for x, y in marks:
        for at, (low, high) in ((x, axes.get_xlim()), (y, axes.get_ylim())):
            assert low - 1e-9 <= at <= high + 1e-9


def test_points_are_clamped_nearer_to_the_ends_than_any_that_is_neither():
    assert clamp_of([0, 1, math.nan]) == 0.002
    assert clamp_of([0.9999, 0.5]) == pytest.approx(0.00005)
    assert clamp_of([1e-9]) == 1e-5


def test_what_is_missing_is_named_with_what_there_is():
    results = wise_ft()
    for words, match, hint in (
        ({"reference": "CIFAR10"}, "the reference task 'CIFAR10' was not measured", "ImageNetV2"),
        ({"shifts": ["ImageNetV3"]}, "the shift 'ImageNetV3' was not measured", "ImageNetV2"),
        ({"shifts": ["ImageNet"]}, "the shift 'ImageNet' is the reference task itself", "--shift"),
        ({"reference": "ImageNetV2"}, "no shift of ImageNetV2 that is known", "--shift"),
        ({"split": "val"}, "no sweep over alpha on the 'val' split", "interpolate"),
    ):
        with pytest.raises(ResultsError, match=match) as caught:
            robustness_table(results, **words)
        assert hint in caught.value.hint
    with pytest.raises(ResultsError, match="does not say which task was patched"):
        robustness_table(measured().assign(patching=None))
    other = pd.concat([measured(), measured("second", 0.2, ("Digits", "Shapes", "Colors"))])
    with pytest.raises(ResultsError, match="no shift of Shapes that is known was measured in the run 'second'"):
        robustness_table(other, reference="Shapes")
