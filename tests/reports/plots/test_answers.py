"""Pictures of answers: counts of classes, and accuracy over confidence."""

import numpy as np
import pandas as pd
import pytest

from tests.reports.plots.pictures import CLASSES, answers, drawn
from wisepatch import calibration_table, confusion_table, draw_calibration, draw_confusion
from wisepatch.analysis.intervals import wilson
from wisepatch.analysis.metrics import measure
from wisepatch.hookspecs import Scores


def test_answers_are_counted_by_class_and_the_shade_is_their_share():
    frame = pd.DataFrame({"label": [0, 0, 0, 1, 1, 3], "answer": [0, 0, 2, 1, 0, 3]})
    table = confusion_table(frame, CLASSES, checkpoint="c", task="t")
    counts = table.pivot(index="label", columns="answer", values="images")
    assert counts.loc["circle", "circle"] == 2
    assert counts.loc["circle", "square"] == 1
    assert counts.to_numpy().sum() == 6
    shares = table.pivot(index="label", columns="answer", values="share")
    assert shares.loc["star", "circle"] == 0.5
    assert shares.loc["square"].isna().all()  # it has no images
    assert (table["accuracy"].iloc[0], table["n"].iloc[0]) == (pytest.approx(4 / 6), 6)
    assert (table["ci_low"].iloc[0], table["ci_high"].iloc[0]) == wilson(4 / 6, 6)
    figure = draw_confusion(table)
    assert {text.get_text() for text in figure.axes[0].texts} == {"1", "2"}
    assert figure.axes[0].images[0].get_array()[0, 0] == pytest.approx(2 / 3)


def test_of_many_classes_those_with_the_most_mistakes_are_shown():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 50, 3000)
    said = labels.copy()
    wrong = rng.random(3000) < 0.5
    said[wrong & (labels == 7)] = 9
    said[(labels == 30) & (np.arange(3000) % 50 == 0)] = 31
    table = confusion_table(pd.DataFrame({"label": labels, "answer": said}), [f"c{i}" for i in range(50)])
    names = list(table["label"].unique())
    assert len(names) == 20
    assert {"c7", "c9", "others"} <= set(names)
    assert table["images"].sum() == 3000
    assert table["accuracy"].iloc[0] == pytest.approx((labels == said).mean())
    hits = table[(table["label"] == "c7") & (table["answer"] == "c9")]["images"].iloc[0]
    assert hits == int(((labels == 7) & (said == 9)).sum())


def test_mistakes_among_the_other_classes_are_no_hits():
    labels = np.repeat(np.arange(60), 10)
    said = labels.copy()
    said[:300] = (labels[:300] + 1) % 30  # 30 classes with ten mistakes each: most are among the others
    table = confusion_table(pd.DataFrame({"label": labels, "answer": said}), [str(i) for i in range(60)])
    assert table["accuracy"].iloc[0] == pytest.approx(0.5)


def test_bins_have_the_accuracy_and_confidence_of_their_images():
    frame = answers()
    table = calibration_table({"c": frame}, task="t")
    assert table["images"].sum() == len(frame)
    for _, row in table.iterrows():
        inside = frame[(frame["confidence"] >= row["low"]) & (frame["confidence"] < row["high"] + 1e-9)]
        if len(inside) == row["images"]:  # no confidence at an edge
            assert row["accuracy"] == pytest.approx((inside["label"] == inside["answer"]).mean())
            assert row["confidence"] == pytest.approx(inside["confidence"].mean())
            assert (row["ci_low"], row["ci_high"]) == wilson(row["accuracy"], row["images"])
    zeros = np.zeros(len(frame))
    columns = (frame[name].to_numpy() for name in ("label", "answer"))
    ece = measure("ece", *columns, len(CLASSES), Scores(frame["confidence"].to_numpy(), zeros, zeros))
    assert (table["ece"].iloc[0], table["ece_low"].iloc[0]) == (ece.value, ece.low)
    gaps = ((table["accuracy"] - table["confidence"]).abs() * table["images"]).sum() / len(frame)
    assert ece.value == pytest.approx(gaps)


def test_each_checkpoint_has_points_and_the_diagonal_is_drawn():
    upper, lower = drawn("calibration").axes
    assert [line.get_xydata().tolist() for line in upper.lines if line.get_linestyle() == ":"] == [[[0, 0], [1, 1]]]
    labels = [text.get_text() for text in drawn("calibration").legends[0].get_texts()]
    assert [label.split(": ECE")[0] for label in labels] == ["demo/zeroshot", "demo/Shapes/patched"]
    assert len(lower.patches) >= 10


def test_a_model_that_is_always_sure_is_drawn():
    frame = pd.DataFrame({"label": [0, 1], "answer": [0, 1], "confidence": [1.0, 1.0]})
    table = calibration_table({"c": frame})
    assert len(table) == 1
    assert table["high"].iloc[0] == 1
    assert draw_calibration(table).axes


def test_checkpoints_with_answers_to_different_images_have_their_own_numbers():
    figure = draw_calibration(calibration_table({"one": answers(), "other": answers(1).iloc[:60]}, task="Digits"))
    assert any(text.get_text().startswith("n = 500 (one), 60 (other); bars") for text in figure.texts)
