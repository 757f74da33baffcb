"""Rows of results with their intervals, predictions image by image, and the line that training shows."""

from dataclasses import replace

import pytest

from tests.samples import recipes
from wisepatch import evaluate, find_task
from wisepatch.datasets.samples import Annotations
from wisepatch.errors import DataError, UnknownNameError, UsageError
from wisepatch.evaluation.measurement import alpha_of
from wisepatch.store.predictions import load_predictions
from wisepatch.store.result_rows import COLUMNS
from wisepatch.tasks import Task


def test_rows_have_all_columns_and_are_appended(run_store, tasks, tmp_path):
    checkpoints = [run_store.find("zeroshot"), run_store.find("finetuned"), *recipes(run_store, [0.5])]
    before = len(run_store.results.read_text().splitlines()) if run_store.results.exists() else 0
    rows = evaluate(checkpoints, tasks, run_store, tmp_path, run="r")
    assert all(set(COLUMNS) <= set(row) for row in rows)
    assert [(row["task"], row["split"], row["alpha"], row["training"], row["method"]) for row in rows] == [
        (task, split, alpha, training, method)
        for task, split in (("shapes", "test"), ("Colors", "val"))
        for alpha, training, method in ((0.0, "zeroshot", ""), (1.0, "paint", ""), (0.5, "paint", "linear"))
    ]
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows)
    assert [row["checkpoint"] for row in rows[:3]] == [checkpoint.id for checkpoint in checkpoints]
    assert len(run_store.results.read_text().splitlines()) == before + len(rows)
    assert evaluate(checkpoints, tasks, run_store, tmp_path, run="r", record=False)
    assert len(run_store.results.read_text().splitlines()) == before + len(rows)


def test_predictions_are_kept_image_by_image_for_every_checkpoint(run_store, tasks, tmp_path):
    checkpoints, watched = [run_store.find("zeroshot"), *recipes(run_store, [0.5])], []
    rows = evaluate(checkpoints, tasks, run_store, tmp_path, watch=watched.append)
    assert [predictions.task for predictions in watched] == tasks
    assert len(list(run_store.predictions.glob("*/*"))) == 4
    for row in rows:
        checkpoint = run_store.get(row["checkpoint"])
        frame = load_predictions(run_store, checkpoint, row["task"], row["split"])
        assert len(frame) == row["n"]
        assert (frame["label"] == frame["answer"]).mean() == row["value"]
        (predictions,) = (each for each in watched if each.task.name == row["task"])
        assert frame["image"].tolist() == predictions.image_ids
        assert frame["confidence"].between(0, 1).all()
        assert frame.attrs["fingerprint"] == predictions.fingerprint
        assert (frame.attrs["spec"], frame.attrs["precision"]) == (predictions.task.base_spec, "no")


def test_further_fields_are_added_or_replace_a_rows_own(run_store, tasks, tmp_path):
    (mix,) = recipes(run_store, [0.5])
    rows = evaluate(
        [mix], tasks[:1], run_store, tmp_path,
        extra_fields=lambda checkpoint, task: {"role": f"{task.name} of {checkpoint.id}", "alpha": 0.25},
    )  # fmt: skip
    assert [(row["role"], row["alpha"]) for row in rows] == [(f"shapes of {mix.id}", 0.25)]


def test_groups_and_further_metrics_have_rows_of_their_own(finished, run_store, tasks, tmp_path):
    plain = tasks[0].dataset

    def with_groups(split, root, transform=None):
        samples = plain.open(split, root, transform)
        annotations = Annotations(groups=[i % 2 for i in range(len(samples))], group_names=("even", "odd"))
        return replace(samples, annotations=annotations)

    grouped = Task(
        "grouped", replace(plain, name="grouped", open=with_groups, extra_metrics=("worst_group", "macro_f1"))
    )
    rows = evaluate([finished[1].finetuned], [grouped], run_store, tmp_path, split="train")
    by_metric = {row["metric"]: row for row in rows}
    assert list(by_metric) == ["top1", "worst_group", "top1[even]", "top1[odd]", "macro_f1"]
    assert by_metric["top1[even]"]["n"] + by_metric["top1[odd]"]["n"] == by_metric["top1"]["n"]
    assert by_metric["worst_group"]["value"] == min(by_metric[f"top1[{name}]"]["value"] for name in ("even", "odd"))
    with pytest.raises(UsageError, match="pm0 needs sequences"):
        evaluate([finished[1].finetuned], [grouped], run_store, tmp_path, metrics=["pm0"])


def test_no_checkpoint_unknown_metrics_and_missing_splits_are_errors_before_any_work(
    run_store, tasks, tmp_path, decoded
):
    start = run_store.find("zeroshot")
    untested = Task("untested", replace(tasks[0].dataset, name="untested", splits=("train",)))
    with pytest.raises(UsageError, match="no checkpoint to evaluate"):
        evaluate([], tasks, run_store, tmp_path)
    with pytest.raises(UnknownNameError, match="unknown metric 'f1'"):
        evaluate([start], tasks, run_store, tmp_path, metrics=["f1"])
    with pytest.raises(DataError, match="task 'untested' has no 'test' split"):
        evaluate([start], [*tasks, untested], run_store, tmp_path)
    assert not decoded


def test_alpha_is_the_recipes_and_of_endpoints_that_of_their_kind(run_store):
    assert alpha_of(run_store.find("zeroshot")) == 0
    assert alpha_of(run_store.find("finetuned")) == 1
    assert [alpha_of(mix) for mix in recipes(run_store, [0.25, 0.5])] == [0.25, 0.5]


def test_a_corruption_has_a_row_a_severity_and_errors_relative_to_the_zeroshot_checkpoint(run_store, tmp_path):
    end = run_store.find("finetuned")
    rows = evaluate(["zeroshot", end], find_task("corrupt:Shapes:impulse_noise", limit=30), run_store, tmp_path)
    (top,) = [row for row in rows if row["checkpoint"] == end.id and row["metric"] == "top1"]
    kinds = [row for row in rows if row["checkpoint"] == end.id and row["metric"].startswith("top1[")]
    assert sum(row["n"] for row in kinds) == top["n"] == top["limit"] == 30
    assert sum(row["n"] * row["value"] for row in kinds) == pytest.approx(30 * top["value"])
    zero = next(row for row in rows if row["metric"] == "top1" and row["alpha"] == 0)
    relative = [row for row in rows if row["metric"] == "error_vs_zeroshot"]
    assert zero["value"] < 1
    assert [row["value"] for row in relative] == pytest.approx([1, (1 - top["value"]) / (1 - zero["value"])])
    assert not [
        row
        for row in evaluate(end, find_task("corrupt:Shapes:impulse_noise"), run_store, tmp_path)
        if "zeroshot" in row["metric"]
    ]
