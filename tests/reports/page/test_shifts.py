"""Effective robustness in the report: the published numbers, and nothing where nothing is known of shifts."""

import pytest

from tests.synthetic_sweeps import DATA, PAINT, WISE_FT
from wisepatch.analysis.robustness import LINES, REFERENCE, expit, logit
from wisepatch.reports.page.shifts import robustness_charts
from wisepatch.reports.plots.look import Look
from wisepatch.reports.plots.robustness import draw_robustness
from wisepatch.reports.plots.shifts import robustness_table
from wisepatch.store.results import read


def test_published_sweep_has_the_rho_of_the_paper_at_each_alpha():
    rows = read(DATA / f"{WISE_FT}.jsonl")[0]
    table, (_, chart) = robustness_charts(rows, "test", 1)
    rho = {record["alpha"]: record["rho"] for record in table.records if record["shift"] == "ImageNetV2"}
    assert [rho[alpha] for alpha in (0, 0.5, 1)] == pytest.approx([6.7, 2.1, 0.7], abs=0.05)
    column = table.columns.index("rho, ImageNetV2")
    assert table.rows[0][column] == "+6.7"
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert "imagenet-testbed" in table.note
    drawn = [point["value"] for point in chart.spec["data"]["values"] if point["series"] == "ImageNetV2"]
    assert drawn == pytest.approx([rho[alpha] for alpha in sorted(rho)])


def test_page_has_the_logit_axes_of_the_picture_with_ticks_in_per_cent():
    rows = read(DATA / f"{WISE_FT}.jsonl")[0]
    _, (scatter, _) = robustness_charts(rows, "test", 1)
    table = robustness_table(rows)
    points = scatter.spec["data"]["values"]
    assert [point["x"] for point in points] == pytest.approx(logit(table["reference"]).tolist())
    assert [point["y"] for point in points] == pytest.approx(logit(table["value"]).tolist())
    only = table[table["shift"] == "ImageNetV2"]
    (axes, *_) = draw_robustness(only, None, Look()).axes
    _, (alone, _) = robustness_charts(rows[rows["task"].isin(["ImageNet", "ImageNetV2"])], "test", 1)
    for name, (ends, ticks) in {
        "x": (axes.get_xlim(), axes.get_xticks()),
        "y": (axes.get_ylim(), axes.get_yticks()),
    }.items():
        drawn = alone.spec["encoding"][name]
        assert drawn["scale"]["domain"] == pytest.approx(logit(ends).tolist())
        assert drawn["axis"]["values"] == pytest.approx(logit(ticks).tolist())
        assert "exp(-datum.value)" in drawn["axis"]["labelExpr"]


def test_line_of_standard_models_is_straight_on_the_page():
    _, (scatter, _) = robustness_charts(read(DATA / f"{WISE_FT}.jsonl")[0], "test", 1)
    (dashed,) = (layer["data"]["values"] for layer in scatter.spec["layer"] if "series" in str(layer.get("data")))
    by_shift = {line.shift: line for line in LINES if line.reference == REFERENCE}
    assert {end["series"] for end in dashed} == set(by_shift)
    for end in dashed:
        line = by_shift[end["series"]]
        assert expit(end["y"]) == pytest.approx(line.predict(expit(end["x"])))


def test_run_without_a_shift_has_no_section():
    assert robustness_charts(read(DATA / f"{PAINT}.jsonl")[0], "test", 1) is None


def test_shift_without_a_published_line_has_accuracies_and_no_rho():
    rows = read(DATA / f"{PAINT}.jsonl")[0]
    rows["task"] = rows["task"].replace({"CIFAR10": "corrupt:MNIST"})
    table, (scatter,) = robustness_charts(rows, "test", 1)
    assert "dashed" not in scatter.title
    assert table.columns == ("alpha", "MNIST", "corrupt:MNIST")
    assert "No line of standard models is published" in table.note
