"""Two checkpoints compared by the answers in the store: what is shown, what is refused, what is written."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest

import wisepatch as wp
from tests.samples import recipes
from wisepatch.analysis.comparison import class_differences, confusions, difference
from wisepatch.analysis.intervals import wilson
from wisepatch.datasets import demo
from wisepatch.errors import DataError, StoreError, UnknownNameError, UsageError
from wisepatch.evaluation.measurement import evaluate
from wisepatch.store.predictions import save_predictions
from wisepatch.tasks import find_tasks
from wisepatch.workflows.comparing import draw_changes, write_changes

CLASSES = ["circle", "square", "star"]
ABOUT = {"spec": "Shapes", "fingerprint": "same", "precision": "no", "classes": CLASSES}
LABELS = np.arange(90) % 3


def answer(store, reference, wrong, task="Shapes", split="test", labels=LABELS, **about):
    """Save answers that are wrong for some images."""
    n = len(labels)
    answers = np.where(np.isin(np.arange(n), list(wrong)), (labels + 1) % 3, labels)
    columns = {
        "image": [f"{number}.png" for number in range(n)], "label": labels, "answer": answers,
        "confidence": np.linspace(0.5, 0.9, n), "rank": (answers != labels).astype(int), "brier": np.full(n, 0.25),
    }  # fmt: skip
    save_predictions(store, store.find(reference), task, split, columns, ABOUT | about)


def test_differences_are_paired_tested_exactly_and_adjusted_over_the_tasks(run_store):
    answer(run_store, "zeroshot", range(20))
    answer(run_store, "finetuned", [*range(15, 20), *range(40, 42)])
    answer(run_store, "zeroshot", [1], task="Colors", spec="Colors")
    answer(run_store, "finetuned", [2], task="Colors", spec="Colors")
    answer(run_store, "finetuned", [2], task="Digits")
    notes = []
    compared = wp.compare(run_store, "zeroshot", "finetuned", note=notes.append)
    assert notes == ["answered by one of the two alone: Digits"]
    shapes, colors = sorted(compared.tasks, key=lambda each: each.task, reverse=True)
    row = shapes.difference
    assert (row.n, row.fixed, row.broken, row.difference) == (90, 15, 2, 13 / 90)
    assert row.p == pytest.approx(binomtest(2, 17).pvalue)
    assert (row.p_holm, colors.difference.p_holm) == (pytest.approx(2 * row.p), 1)
    assert (row.verdict, colors.difference.verdict) == ("better", "too few images")
    assert row.low < row.difference < row.high
    value, low, high = compared.mean
    assert value == pytest.approx(13 / 180)
    assert low < value < high
    assert shapes.calibrations[0]["brier"].value == pytest.approx(0.25)
    assert [each["task"] for each in compared.records()] == [each.task for each in compared.tasks]
    (record,) = (each for each in compared.records() if each["task"] == shapes.task)
    assert (record["before_low"], record["before_high"]) == wilson(70 / 90, 90)
    json.dumps(compared.records())


def test_classes_and_confusions_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    before, after = np.array([0, 1, 1, 1, 0, 2]), np.array([0, 0, 1, 1, 2, 2])
    rows = class_differences(labels, before, after, [*CLASSES, "never"])
    assert [(row.name, row.n, row.fixed, row.broken) for row in rows] == [
        ("circle", 3, 1, 0), ("square", 2, 0, 0), ("star", 1, 0, 0),
    ]  # fmt: skip
    assert confusions(labels, before, after) == [(0, 1, 2, 1), (1, 0, 1, 0), (1, 2, 0, 1)]
    many = np.ones(1000, dtype=bool)
    assert difference("enough", many, many).verdict == "no difference"


def test_a_mix_has_the_answers_of_another_with_the_same_recipe(run_store):
    (mix,) = recipes(run_store, [0.5])
    patched = run_store.save(
        None, kind="patched", name="patched", model=mix.model, training=mix.training, recipe=mix.recipe, config=mix.config,
    )  # fmt: skip
    answer(run_store, "zeroshot", [1])
    answer(run_store, mix.id, [2])
    assert wp.compare(run_store, "zeroshot", patched).tasks[0].difference.fixed == 1


def test_answers_to_other_images_are_refused_and_missing_ones_named(run_store):
    first, second = (run_store.find(each).id for each in ("zeroshot", "finetuned"))
    with pytest.raises(StoreError, match="the store holds no predictions of demo/zeroshot") as caught:
        wp.compare(run_store, "zeroshot", "finetuned")
    assert caught.value.hint == f"make them: wisepatch eval {first} {second} --task TASK"
    answer(run_store, "zeroshot", [1])
    with pytest.raises(StoreError, match=r"finetuned \(.*\) of Shapes") as caught:
        wp.compare(run_store, "zeroshot", "finetuned", tasks="Shapes@test")
    assert caught.value.hint == f"make them: wisepatch eval {first} {second} --task Shapes"
    answer(run_store, "finetuned", [1], fingerprint="other")
    with pytest.raises(StoreError, match="are of other images or classes") as caught:
        wp.compare(run_store, "zeroshot", "finetuned")
    assert caught.value.hint.endswith(
        f"with the same --limit or without: wisepatch eval {first} {second} --task Shapes"
    )
    answer(run_store, "finetuned", [1], labels=LABELS[::-1], precision="bf16")
    with pytest.raises(StoreError, match="are of other images: they form no pairs"):
        wp.compare(run_store, "zeroshot", "finetuned")
    answer(run_store, "finetuned", [1], labels=LABELS[:30])
    with pytest.raises(StoreError, match="are of other images: they form no pairs"):
        wp.compare(run_store, "zeroshot", "finetuned")
    answer(run_store, "finetuned", [2])
    assert wp.compare(run_store, "zeroshot", "finetuned").tasks[0].difference.broken == 1


def test_unknown_tasks_and_one_checkpoint_twice_are_mistakes(run_store):
    answer(run_store, "zeroshot", [1])
    with pytest.raises(UnknownNameError, match="unknown task 'Shappes'; did you mean Shapes") as caught:
        wp.compare(run_store, "zeroshot", "finetuned", tasks=["Shappes"])
    assert caught.value.hint == "known: Shapes"
    with pytest.raises(UsageError, match="both are demo/zeroshot"):
        wp.compare(run_store, "zeroshot", "zeroshot")


def test_the_command_prints_draws_and_writes_what_changed(cli, run_store, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 40, "val": 40, "test": 40})
    assert (
        cli("eval", "zeroshot", "finetuned", "--task", "Colors,Shapes", "-q", "--per-class", "--confusion").exit_code
        == 0
    )
    shown = [
        json.loads(line)
        for line in cli(
            "eval", "zeroshot", "--task", "Colors", "--per-class", "--confusion", "--json"
        ).stdout.splitlines()
    ]
    (whole,) = (each for each in shown if each["type"] == "result")
    by_class = [each for each in shown if each["type"] == "class"]
    assert sum(each["n"] * each["accuracy"] for each in by_class) == pytest.approx(whole["n"] * whole["value"])
    mistakes = sum(each["images"] for each in shown if each["type"] == "confusion")
    assert mistakes == pytest.approx(whole["n"] * (1 - whole["value"]))
    words = ("compare", "zeroshot", "finetuned")
    result = cli(*words, "--per-class", "--confusion", "--show", "changed.png", "--output", "changed.csv")
    assert result.exit_code == 0, result.output
    for legend in (
        "in brackets 95 % intervals",
        "p: McNemar's exact test; p (Holm): adjusted over",
        "too few images: at 95 %",
    ):
        assert legend in result.stdout
    compared = wp.compare(run_store, "zeroshot", "finetuned")
    table = pd.read_csv("changed.csv")
    assert len(table) == sum(each.difference.fixed + each.difference.broken for each in compared.tasks) > 0
    assert set(table["change"]) <= {"fixed", "broken"}
    right = np.where(table["change"] == "fixed", table["after"], table["before"])
    assert (right == table["label"]).all()
    with Image.open("changed.png") as picture:
        assert picture.width > 500
    records = [json.loads(line) for line in cli(*words, "--per-class", "--confusion", "--json").stdout.splitlines()]
    assert {each["type"] for each in records} == {"comparison", "mean_comparison", "class_comparison", "confusion"}
    for words_that_fail, said in (
        (("--show", "changed.gif"), "cannot draw '.gif'"),
        (("--output", "."), "the table . cannot be written"),
    ):
        failed = cli(*words, *words_that_fail)
        assert failed.exit_code == 2
        assert said in failed.stderr


def test_a_mix_that_saw_some_images_is_compared_with_an_end_that_saw_all(cli, run_store, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 40, "val": 40, "test": 40})
    evaluate("finetuned", ["Colors", "Shapes"], run_store, tmp_path)
    (half,) = recipes(run_store, [0.5])
    evaluate(["finetuned", half], find_tasks("Colors", limit=20), run_store, tmp_path)
    (compared,) = wp.compare(run_store, "finetuned", half).tasks
    assert compared.difference.n == 20
    assert cli("compare", "finetuned", half.id, "--show", "changed.png").exit_code == 0
    evaluate(half, find_tasks("Shapes", limit=10), run_store, tmp_path)
    with pytest.raises(StoreError, match="form no pairs") as caught:
        wp.compare(run_store, "finetuned", half, tasks="Shapes")
    assert cli(*shlex.split(caught.value.hint.partition(": wisepatch ")[2]), "-q").exit_code == 0
    (compared,) = wp.compare(run_store, "finetuned", half, tasks="Shapes").tasks
    assert compared.difference.n == 40


def test_the_hint_names_a_folder_by_its_path(cli, run_store, shapes, tmp_path):
    folder = shapes.rename(shapes.with_name("my shapes"))
    evaluate("zeroshot", str(folder), run_store, tmp_path)
    with pytest.raises(StoreError, match=r"no predictions of demo/.*finetuned") as caught:
        wp.compare(run_store, "zeroshot", "finetuned")
    assert cli(*shlex.split(caught.value.hint.partition(": wisepatch ")[2]), "-q").exit_code == 0
    assert wp.compare(run_store, "zeroshot", "finetuned").tasks[0].task == "my shapes"


def test_images_that_changed_since_are_not_shown(run_store, tmp_path):
    answer(run_store, "zeroshot", [1])
    answer(run_store, "finetuned", [2])
    compared = wp.compare(run_store, "zeroshot", "finetuned")
    with pytest.raises(DataError, match="have changed since they were answered"):
        draw_changes(compared, tmp_path)
    assert write_changes(compared, tmp_path / "deep" / "changed.csv") == 2
