"""Accuracy by corruption, errors relative to the zero-shot checkpoint, and mCE, on answers that are known."""

import numpy as np
import pytest

from wisepatch import Annotations
from wisepatch.analysis.corruption_errors import ALEXNET, relative_error
from wisepatch.analysis.metrics import measurements
from wisepatch.datasets.corruption_parameters import KINDS

PER_KIND = 40


def answers(rates, kinds=15):
    """Labels, answers that are wrong at a rate of each kind, and annotations; severities run from 1 to 5."""
    wrong = np.concatenate([np.arange(PER_KIND) < round(rate * PER_KIND) for rate in rates])
    corruption = [(kind, 1 + image % 5) for kind in range(kinds) for image in range(PER_KIND)]
    return np.zeros(len(wrong), int), wrong.astype(int), Annotations(corruption=corruption)


def test_the_worst_kind_and_each_kind_have_rows():
    labels, predicted, annotations = answers([0.1] * 9 + [0.6] + [0.2] * 5)
    rows = dict(measurements("worst_corruption", labels, predicted, 2, annotations))
    assert rows["worst_corruption"].value == pytest.approx(0.4)
    assert rows["top1[fog]"].value == pytest.approx(0.4)
    assert rows["top1[fog]"].n == PER_KIND
    assert set(rows) == {"worst_corruption", *(f"top1[{kind}]" for kind in KINDS)}


def test_of_one_kind_the_severities_have_rows():
    labels, predicted = np.zeros(10, int), np.array([0, 0, 0, 0, 1] * 2)
    annotations = Annotations(corruption=[(9, 1 + image % 5) for image in range(10)])
    rows = dict(measurements("worst_corruption", labels, predicted, 2, annotations))
    assert [rows[f"top1[severity {level}]"].value for level in (1, 5)] == [1, 0]
    assert rows["worst_corruption"].value == 0


def test_mce_is_one_for_a_model_as_wrong_as_alexnet():
    rates = [round(error * PER_KIND) / PER_KIND for error in ALEXNET]
    labels, predicted, annotations = answers(rates)
    (_, row), *_ = measurements("mce", labels, predicted, 2, annotations)
    assert row.value == pytest.approx(np.mean(np.array(rates) / ALEXNET))
    assert row.low < row.value < row.high
    (_, half), *_ = measurements("mce", *answers([rate / 2 for rate in rates])[:2], 2, annotations)
    assert half.value == pytest.approx(row.value / 2, abs=0.02)


def test_relative_error_is_a_ratio_of_errors_with_a_paired_interval():
    labels, zeroshot, _ = answers([0.5] * 14 + [0.1])
    _, better, _ = answers([0.25] * 14 + [0.1])
    measured = relative_error(better == labels, zeroshot == labels)
    assert measured.value == pytest.approx((14 * 10 + 4) / (14 * 20 + 4))
    assert measured.low < measured.value < measured.high < 0.6
    same = relative_error(zeroshot == labels, zeroshot == labels)
    assert (same.value, same.low, same.high) == (1, 1, 1)
    assert relative_error(better == labels, labels == labels) is None
    once = np.arange(30) > 0  # many resamples have no error
    assert relative_error(once, once) == (1, 30, 1, 1)


def test_intervals_of_the_relative_error_cover_the_truth():
    generator, covered = np.random.default_rng(0), 0
    for _ in range(200):
        zeroshot = generator.random(300) < 0.6
        right = np.where(zeroshot, generator.random(300) < 0.9, generator.random(300) < 0.3)  # P(wrong) = 0.34
        measured = relative_error(right, zeroshot)
        covered += measured.low <= 0.34 / 0.4 <= measured.high
    assert covered >= 181  # of 200 at 95 %: fewer in 1 of 300 runs
