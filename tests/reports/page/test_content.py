"""What a run's rows become: several patched tasks, coefficients in place of alpha, metrics that differ, results without counts."""

import pytest

from wisepatch.reports.page.content import run_content
from wisepatch.reports.page.thumbnails import Budget
from wisepatch.store.checkpoints import Store
from wisepatch.store.results import append, read


def row(task, alpha, value, **own):
    shared = {
        "run": "r", "checkpoint": "0" * 12, "model": "demo", "training": "paint", "method": "linear", "task": task, "split": "test",
        "metric": "top1", "n": 100, "ci_low": value - 0.1, "ci_high": min(value + 0.1, 1.0), "patching": "A", "role": "supported",
    }  # fmt: skip
    return shared | {"alpha": alpha, "value": value} | own


@pytest.fixture
def content(tmp_path):
    """Gather the content of rows, through a store's file of results."""

    def gather(rows):
        store = Store(tmp_path / "store")
        append(store.results, rows)
        return run_content(store, read(store.results)[0], tmp_path, 1, Budget())

    return gather


def test_several_patched_tasks_are_told_by_name_and_by_their_mean(content):
    rows = []
    for alpha, values in ((0.0, (0.2, 0.4, 0.9)), (1.0, (0.8, 0.8, 0.7))):
        for task, value in zip("ABC", values, strict=True):
            role = "supported" if task == "C" else "patching"
            rows.append(row(task, alpha, value, patching="A+B", role=role, chosen=alpha == 1, selected_on="val"))
    page = content(rows)
    assert "the mean of A and B went from 30.0 % (zero-shot) to 80.0 % at alpha 1" in page.outcome
    assert [cells[0] for cells in page.results[0].rows] == ["A (patched)", "B (patched)", "C (supported)"]
    points = page.charts[0].spec["data"]["values"]
    assert [point["y"] for point in points] == pytest.approx([30, 80])
    assert [point["x"] for point in points] == pytest.approx([90, 70])


def test_coefficients_stand_in_for_alpha_and_no_line_joins_them(content):
    rows = []
    for number, alphas in enumerate([(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)]):
        one = alphas[0] if len(set(alphas)) == 1 else None
        own = {"candidate": number, "params": {"alphas": list(alphas)}, "method": "task-arithmetic", "patching": "A+B"}
        for task, value in zip("ABC", (0.3, 0.5 + number / 10, 0.9), strict=True):
            role = "supported" if task == "C" else "patching"
            rows.append(row(task, one, value, role=role, chosen=number == 1, selected_on="val", **own))
    page = content(rows)
    assert "at coefficients 0.5, 1" in page.outcome
    assert page.chosen[0].startswith("Coefficients 0.5, 1 were chosen on validation data")
    (frontier,) = page.charts  # there is no alpha to draw tasks over
    assert {point["line"] for point in frontier.spec["data"]["values"]} == {0}
    assert frontier.table.rows[1][0] == "coefficients 0.5, 1"
    assert page.results[0].columns[2:4] == ("zero-shot (coefficients 0, 0)", "chosen (coefficients 0.5, 1)")


def test_tasks_patched_one_after_the_other_are_told_by_the_last_sweep(content):
    first = [
        row(task, alpha, 0.5, role="patching" if task == "A" else "supported") for task in "AC" for alpha in (0.0, 1.0)
    ]
    second = [
        row(task, alpha, 0.6, patching="A+B", role="supported" if task == "C" else "patching")
        for task in "ABC" for alpha in (0.0, 1.0)
    ]  # fmt: skip
    page = content([*first, *second])
    assert [cells[0] for cells in page.results[0].rows] == ["A (patched)", "B (patched)", "C (supported)"]


def test_tests_are_shown_where_images_were_counted_and_nowhere_else(content):
    bare = content([row("A", alpha, 0.5 + alpha / 4, role="patching") for alpha in (0.0, 1.0)])
    assert "verdict" not in bare.results[0].columns
    assert bare.certified == "Nothing was certified."
    assert bare.charts[0].title == "A over alpha, test data"


def test_paired_test_is_that_of_the_counts_adjusted_over_the_tasks(content):
    from scipy.stats import binomtest

    rows = [row(task, 0.0, 0.5, role="patching" if task == "A" else "supported") for task in "AC"]
    rows += [row("A", 1.0, 0.7, role="patching", fixed=25, broken=5), row("C", 1.0, 0.5, fixed=3, broken=3)]
    table = content(rows).results[0]
    assert "too few images: at 95 %, they leave open" in table.note
    record, other = table.records
    assert record["p"] == pytest.approx(binomtest(5, 30).pvalue)
    assert record["p_holm"] == pytest.approx(2 * record["p"])
    assert (record["before"], record["after"], record["difference"], record["verdict"]) == (0.5, 0.7, 0.2, "better")
    assert other["p"] == 1


def test_metrics_that_differ_are_named_beside_their_task(content):
    rows = [
        row(task, alpha, 0.5, metric=metric)
        for task, metric in (("A", "top1"), ("C", "macro_f1"))
        for alpha in (0.0, 1.0)
    ]
    page = content([each | {"role": "patching" if each["task"] == "A" else "supported"} for each in rows])
    assert [cells[0] for cells in page.results[0].rows] == ["A (patched, top1)", "C (supported, macro_f1)"]


def test_tasks_that_were_measured_besides_have_a_table_of_their_own(content):
    rows = [row("A", alpha, 0.5, role="patching") for alpha in (0.0, 1.0)]
    page = content([*rows, row("D", None, 0.25, patching=None, role="also")])
    assert page.results[-1].rows == [["D", "25.0 (15.0 to 35.0)"]]


def test_answers_that_are_not_those_of_the_run_are_not_shown(store, swept):
    frame = read(store.results)[0]
    whole = run_content(store, frame, swept[1], 1, Budget())
    assert whole.classes
    other = run_content(store, frame.assign(n=frame["n"] + 1), swept[1], 1, Budget())
    assert other.classes == []
    assert "the answers of shapes that the store holds are to" in other.missing["classes"]


def test_each_section_without_content_says_why(content):
    page = content([row("A", alpha, 0.5, role="patching") for alpha in (0.0, 1.0)])
    assert not any([page.classes, page.galleries, page.training, page.lineage, page.commands])
    assert {"classes", "images", "training", "lineage", "commands"} <= set(page.missing)
    assert all(page.missing.values())
