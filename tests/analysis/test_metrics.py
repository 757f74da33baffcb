"""Metrics against scikit-learn, intervals against published values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from wisepatch.analysis.metrics import (
    ALL,
    METRICS,
    Measured,
    find_metric,
    macro_f1,
    macro_f1_present,
    mean_per_class,
    measure,
    measurements,
    top1,
    wilson,
)
from wisepatch.datasets.base import Annotations
from wisepatch.errors import UnknownNameError, UsageError

PREDICTIONS = st.integers(2, 5).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40),
    )
)


def split(pairs):
    labels, predicted = np.array(pairs).T
    return labels, predicted


@settings(deadline=None, max_examples=100)
@given(PREDICTIONS)
def test_every_metric_agrees_with_scikit_learn(case):
    classes, pairs = case
    labels, predicted = split(pairs)
    counts = confusion_matrix(labels, predicted, labels=range(classes))
    present = np.unique(labels)
    either = np.union1d(labels, predicted)
    recall = recall_score(labels, predicted, labels=present, average="macro", zero_division=0)
    f1 = f1_score(labels, predicted, labels=either, average="macro", zero_division=0)
    assert top1(counts) == pytest.approx(accuracy_score(labels, predicted))
    assert mean_per_class(counts) == pytest.approx(recall)
    assert macro_f1(counts) == pytest.approx(f1)


@settings(deadline=None, max_examples=25)
@given(PREDICTIONS, st.sampled_from(sorted(METRICS)))
def test_measuring_gives_the_metric_and_an_ordered_interval_within_zero_and_one(case, name):
    classes, pairs = case
    labels, predicted = split(pairs)
    measured = measure(name, labels, predicted, classes)
    counts = confusion_matrix(labels, predicted, labels=range(classes))
    assert measured.value == pytest.approx(float(METRICS[name](counts)))
    assert measured.n == len(pairs)
    assert 0 <= measured.low <= measured.high <= 1


@pytest.mark.parametrize("name", sorted(METRICS))
def test_metrics_take_a_stack_of_confusion_matrices(name):
    stack = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 4))
    together = METRICS[name](stack)
    assert together.shape == (2, 3)
    for index in np.ndindex(2, 3):
        assert together[index] == pytest.approx(float(METRICS[name](stack[index])))


def test_the_metrics_differ_where_classes_are_unbalanced():
    labels = np.array([0] * 8 + [1] * 2)
    predicted = np.array([0] * 8 + [0, 1])
    assert measure("top1", labels, predicted, 2).value == pytest.approx(0.9)
    assert measure("mean_per_class", labels, predicted, 2).value == pytest.approx((1 + 0.5) / 2)
    assert measure("macro_f1", labels, predicted, 2).value == pytest.approx((16 / 17 + 2 / 3) / 2)


def test_classes_without_images_do_not_count():
    labels, predicted = np.array([0, 0, 2, 2]), np.array([0, 0, 2, 0])
    assert measure("mean_per_class", labels, predicted, 5).value == pytest.approx(0.75)
    assert measure("macro_f1", labels, predicted, 5).value == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_a_class_that_is_only_predicted_counts_in_f1_but_not_in_recall():
    labels, predicted = np.array([0, 0]), np.array([0, 1])
    assert measure("mean_per_class", labels, predicted, 3).value == pytest.approx(0.5)
    assert measure("macro_f1", labels, predicted, 3).value == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilsons_interval_has_the_values_of_newcombes_table(hits, n, low, high):
    assert wilson(hits / n, n) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_of_one_in_two_by_hand():
    z2 = 1.959963984540054**2
    half = (z2 / (4 * 2) + z2**2 / (4 * 4)) ** 0.5 / (1 + z2 / 2)
    assert wilson(0.5, 2) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n) | st.sampled_from([0, n]), st.just(n))))
def test_wilsons_interval_holds_the_value_and_lies_within_zero_and_one(case):
    hits, n = case
    low, high = wilson(hits / n, n)
    assert 0 <= low <= hits / n <= high <= 1
    assert low < high


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_symmetric_and_narrows_with_more_images(case):
    hits, n = case
    low, high = wilson(hits / n, n)
    mirrored_low, mirrored_high = wilson((n - hits) / n, n)
    assert (low, high) == pytest.approx((1 - mirrored_high, 1 - mirrored_low), abs=1e-9)
    more_low, more_high = wilson(hits / n, 4 * n)
    assert more_high - more_low < high - low


def test_top1_carries_wilsons_interval():
    labels = np.zeros(263, int)
    predicted = np.array([0] * 81 + [1] * 182)
    assert measure("top1", labels, predicted, 2) == Measured(81 / 263, 263, *wilson(81 / 263, 263))


@pytest.mark.parametrize("name", ["mean_per_class", "macro_f1"])
def test_the_bootstrap_is_repeatable_holds_the_value_and_is_about_as_wide_as_wilsons(name):
    generator = np.random.default_rng(3)
    labels = np.arange(600) % 3
    predicted = np.where(generator.random(600) < 0.8, labels, generator.integers(0, 3, 600))
    first = measure(name, labels, predicted, 3)
    assert first == measure(name, labels, predicted, 3)
    assert first.low < first.value < first.high
    wilson_low, wilson_high = wilson(first.value, 600)
    assert first.high - first.low == pytest.approx(wilson_high - wilson_low, rel=0.15)


@pytest.mark.parametrize("name", ["mean_per_class", "macro_f1"])
def test_predictions_without_a_mistake_measure_one_whatever_is_resampled(name):
    labels = np.array([0, 1, 1, 2])
    assert measure(name, labels, labels, 4) == Measured(1.0, 4, 1.0, 1.0)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_known_metric_is_found(name):
    assert find_metric(name) == name


def test_an_unknown_metric_proposes_close_ones_and_lists_all():
    with pytest.raises(UnknownNameError) as caught:
        find_metric("macro-f1")
    assert caught.value.message == "unknown metric 'macro-f1'; did you mean macro_f1 or macro_f1_present?"
    assert caught.value.hint.removeprefix("known: ").split(", ") == sorted(ALL)


def test_measuring_an_unknown_metric_is_the_same_error():
    with pytest.raises(UnknownNameError, match=r"^unknown metric 'zzz'$"):
        measure("zzz", np.array([0]), np.array([0]), 1)


def test_bootstrap_in_pieces_is_as_good_and_small(monkeypatch):
    import wisepatch.analysis.metrics

    labels = np.arange(400) % 4
    predicted = np.where(np.arange(400) % 3 == 0, (labels + 1) % 4, labels)
    whole = measure("macro_f1", labels, predicted, 4)
    monkeypatch.setattr(wisepatch.analysis.metrics, "CELLS_AT_ONCE", 1)
    assert measure("macro_f1", labels, predicted, 4) == whole
    assert measure("mean_per_class", labels, predicted, 1000).n == 400


@settings(deadline=None, max_examples=100)
@given(PREDICTIONS)
def test_f1_over_the_classes_that_have_images_is_scikit_learns(case):
    classes, pairs = case
    labels, predicted = split(pairs)
    counts = confusion_matrix(labels, predicted, labels=range(classes))
    expected = f1_score(labels, predicted, average="macro", labels=np.unique(labels), zero_division=0)
    assert macro_f1_present(counts) == pytest.approx(expected)


def test_worst_group_and_every_group_with_its_size():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    predicted = np.array([0, 0, 0, 1, 1, 0, 0, 1, 1])
    annotations = Annotations(groups=[0, 0, 0, 0, 2, 2, 2, 2, -1], group_names=("Asia", "Europe", "Africa"))
    found = dict(measurements("worst_group", labels, predicted, 2, annotations))
    assert {name: (value.value, value.n) for name, value in found.items()} == {
        "worst_group": (0.5, 4),
        "top1[Asia]": (0.75, 4),
        "top1[Africa]": (0.5, 4),  # Europe has no images; -1 belongs to no group
    }
    assert found["worst_group"].low <= 0.5 <= found["worst_group"].high
    assert found["top1[Asia]"][2:] == wilson(0.75, 4)
    # Of two groups that are equally hard the worse one is, by chance alone, lower than either.
    assert found["worst_group"].high < found["top1[Africa]"].high


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_pm0_and_pm10_by_the_definition(seed):
    """Anchors that are right, and anchors that are right together with every similar frame (Shankar et al.)."""
    rng = np.random.default_rng(seed)
    frames = 30
    predicted = rng.integers(0, 3, frames)
    accepted = [set(rng.integers(0, 3, rng.integers(1, 3)).tolist()) for _ in range(frames)]
    anchors = rng.permutation(frames)[:5]
    sequences = [[int(a), *rng.permutation(frames)[: rng.integers(0, 4)].tolist()] for a in anchors]
    labels = np.array([min(each) for each in accepted])
    benign = worst = 0
    for anchor, *similar in sequences:
        if predicted[anchor] in accepted[anchor]:
            benign += 1
            wrong = [frame for frame in similar if predicted[frame] not in accepted[frame]]
            worst += not wrong
    annotations = Annotations(accepted=accepted, sequences=sequences)
    (pm0,) = measurements("pm0", labels, predicted, 3, annotations)
    (pm10,) = measurements("pm10", labels, predicted, 3, annotations)
    assert pm0 == ("pm0", Measured(benign / 5, 5, *wilson(benign / 5, 5)))
    assert pm10 == ("pm10", Measured(worst / 5, 5, *wilson(worst / 5, 5)))


def test_pm0_takes_the_label_where_nothing_else_is_accepted():
    annotations = Annotations(sequences=[[0, 1], [2]])
    (pm0,) = measurements("pm0", np.array([0, 1, 2]), np.array([0, 0, 2]), 3, annotations)
    (pm10,) = measurements("pm10", np.array([0, 1, 2]), np.array([0, 0, 2]), 3, annotations)
    assert (pm0[1].value, pm10[1].value) == (1.0, 0.5)


@pytest.mark.parametrize(("name", "what"), [("worst_group", "groups"), ("pm0", "sequences"), ("pm10", "sequences")])
def test_metric_that_needs_context_says_so(name, what):
    with pytest.raises(UsageError, match=f"{name} needs {what} of .*, and this task has none"):
        list(measurements(name, np.array([0]), np.array([0]), 2))
    with pytest.raises(UsageError, match="needs the context of a split"):
        measure(name, np.array([0]), np.array([0]), 2)
