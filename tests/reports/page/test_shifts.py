"""Effective robustness in the report: the published numbers, and nothing where nothing is known of shifts."""

import pytest

from tests.synthetic_sweeps import DATA, PAINT, WISE_FT
from wisepatch.reports.page.shifts import robustness_chart
from wisepatch.store.results import read


def test_published_sweep_has_the_rho_of_the_paper_at_each_alpha():
    rows = read(DATA / f"{WISE_FT}.jsonl")[0]
    table, chart = robustness_chart(rows, "test", 1)
    rho = {record["alpha"]: record["rho"] for record in table.records if record["shift"] == "ImageNetV2"}
    assert [rho[alpha] for alpha in (0, 0.5, 1)] == pytest.approx([6.7, 2.1, 0.7], abs=0.05)
    column = table.columns.index("rho, ImageNetV2")
    assert table.rows[0][column] == "+6.7"
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert "imagenet-testbed" in table.note
    drawn = [point["value"] for point in chart.spec["data"]["values"] if point["series"] == "ImageNetV2"]
    assert drawn == pytest.approx([rho[alpha] for alpha in sorted(rho)])


def test_run_without_a_shift_has_no_section():
    assert robustness_chart(read(DATA / f"{PAINT}.jsonl")[0], "test", 1) is None


def test_shift_without_a_published_line_has_accuracies_and_no_rho():
    rows = read(DATA / f"{PAINT}.jsonl")[0]
    rows["task"] = rows["task"].replace({"CIFAR10": "corrupt:MNIST"})
    table, chart = robustness_chart(rows, "test", 1)
    assert chart is None
    assert table.columns == ("alpha", "MNIST", "corrupt:MNIST")
    assert "No line of standard models is published" in table.note
