"""Metrics against scikit-learn, intervals against published values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    recall_score,
    top_k_accuracy_score,
)

from wisepatch.analysis.intervals import clopper_pearson, wilson
from wisepatch.analysis.metrics import (
    find_metric,
    macro_f1,
    macro_f1_present,
    mean_per_class,
    measure,
    measurements,
    missing_needs,
    register_metrics,
)
from wisepatch.datasets.samples import Annotations
from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.hookspecs import Measured, Metric, Scores

NAMES = [metric.name for metric in register_metrics()]
OF_COUNTS = {"mean_per_class": mean_per_class, "macro_f1": macro_f1, "macro_f1_present": macro_f1_present}
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
    assert measure("top1", labels, predicted, classes).value == pytest.approx(accuracy_score(labels, predicted))
    assert mean_per_class(counts) == pytest.approx(recall)
    assert macro_f1(counts) == pytest.approx(f1)


@settings(deadline=None, max_examples=25)
@given(PREDICTIONS, st.sampled_from(["top1", *OF_COUNTS]))
def test_measuring_gives_the_metric_and_an_ordered_interval_within_zero_and_one(case, name):
    classes, pairs = case
    labels, predicted = split(pairs)
    measured = measure(name, labels, predicted, classes)
    counts = confusion_matrix(labels, predicted, labels=range(classes))
    expected = OF_COUNTS.get(name, lambda counts: counts.trace() / counts.sum())(counts)
    assert measured.value == pytest.approx(float(expected))
    assert measured.n == len(pairs)
    assert 0 <= measured.low <= measured.high <= 1


@pytest.mark.parametrize("name", OF_COUNTS)
def test_metrics_take_a_stack_of_confusion_matrices(name):
    stack = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 4))
    together = OF_COUNTS[name](stack)
    assert together.shape == (2, 3)
    for index in np.ndindex(2, 3):
        assert together[index] == pytest.approx(float(OF_COUNTS[name](stack[index])))


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
def test_predictions_without_a_mistake_measure_one_and_few_of_them_prove_little(name):
    labels = np.array([0, 1, 1, 2])
    few, many = measure(name, labels, labels, 4), measure(name, np.tile(labels, 100), np.tile(labels, 100), 4)
    assert (few.value, few.high, many.value, many.high) == (1, 1, 1, 1)
    assert few.low < 0.7
    assert 0.98 < many.low < 1


def scores_of(probabilities, labels):
    predicted, own = probabilities.argmax(1), np.take_along_axis(probabilities, labels[:, None], 1)
    brier = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1)
    return predicted, Scores(probabilities.max(1), (probabilities > own).sum(1), brier)


def test_top5_calibration_and_brier_score_by_scikit_learn_and_by_hand():
    pytest.importorskip("sklearn", "1.7")  # the first with a Brier score of several classes
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet(np.ones(12) * 0.4, 500), generator.integers(0, 12, 500)
    predicted, scores = scores_of(probabilities, labels)
    top5 = measure("top5", labels, predicted, 12, scores)
    assert top5.value == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5))
    assert (top5.low, top5.high) == wilson(top5.value, 500)
    brier = measure("brier", labels, predicted, 12, scores)
    assert brier.value == pytest.approx(brier_score_loss(labels, probabilities, scale_by_half=False))
    mean_interval = ttest_1samp(scores.brier, 0).confidence_interval(0.95)
    assert (brier.low, brier.high) == pytest.approx((mean_interval.low, mean_interval.high))
    sure = Scores(np.array([0.9, 0.95, 0.61, 0.65]), np.zeros(4, int), np.zeros(4))
    ece = measure("ece", np.array([0, 0, 0, 1]), np.array([0, 1, 0, 1]), 2, sure)
    # Bins of 1/15: 0.9 and 0.95 fall into different ones, 0.61 and 0.65 into one.
    assert ece.value == pytest.approx((0.1 + 0.95 + (2 - 1.26)) / 4)
    assert 0 <= ece.low <= ece.value <= ece.high
    with pytest.raises(UsageError, match="ece needs the scores of the answers"):
        measure("ece", labels, predicted, 12)
    one = measure("brier", labels[:1], predicted[:1], 12, Scores(*(each[:1] for each in scores)))
    assert (one.low, one.high) == (0, 2)


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_interval_of_the_calibration_error_covers_it(calibrated):
    generator, kept = np.random.default_rng(1), []
    many = generator.uniform(0.4, 1, 400_000)
    power = 1 if calibrated else 2
    truth = 0.0 if calibrated else measure_ece(many, many**power, generator).value
    for _ in range(200):
        confidence = generator.uniform(0.4, 1, 500)
        measured = measure_ece(confidence, confidence**power, generator)
        kept.append(measured.low <= truth + 1e-3 and truth <= measured.high)
    assert np.mean(kept) >= 0.9


def measure_ece(confidence, chance_of_right, generator):
    right = generator.random(len(confidence)) < chance_of_right
    scores = Scores(confidence, 1 - right, np.zeros(len(confidence)))
    return measure("ece", np.zeros(len(confidence), int), 1 - right, 2, scores)


@pytest.mark.parametrize("name", NAMES)
def test_a_known_metric_is_found(name):
    assert find_metric(name).name == name


def test_metrics_know_their_direction_and_their_needs():
    assert {name for name in NAMES if not find_metric(name).higher_is_better} == {
        "attack_success", "neither", "ece", "brier", "mce",
    }  # fmt: skip
    assert {name: find_metric(name).needs for name in NAMES if find_metric(name).needs} == {
        "worst_group": ("groups",), "pm0": ("sequences",), "pm10": ("sequences",),
        "attack_success": ("written",), "neither": ("written",), "worst_corruption": ("corruption",),
            "mce": ("corruption",),
    }  # fmt: skip


def test_an_unknown_metric_proposes_close_ones_and_lists_all():
    with pytest.raises(UnknownNameError) as caught:
        find_metric("macro-f1")
    assert caught.value.message == "unknown metric 'macro-f1'; did you mean macro_f1 or macro_f1_present?"
    assert caught.value.hint.removeprefix("known: ").split(", ") == sorted(NAMES)


def test_measuring_an_unknown_metric_is_the_same_error():
    with pytest.raises(UnknownNameError, match=r"^unknown metric 'zzz'$"):
        measure("zzz", np.array([0]), np.array([0]), 1)


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
    assert found["worst_group"][2:] == (
        min(clopper_pearson(3, 4, 0.975)[0], clopper_pearson(2, 4, 0.975)[0]),
        min(clopper_pearson(3, 4, 0.975)[1], clopper_pearson(2, 4, 0.975)[1]),
    )


def test_worst_group_of_one_group_has_the_exact_interval_of_scipy():
    labels, predicted = np.zeros(40, int), np.array([0] * 31 + [1] * 9)
    annotations = Annotations(groups=[0] * 40, group_names=("Asia",))
    worst = dict(measurements("worst_group", labels, predicted, 2, annotations))["worst_group"]
    exact = binomtest(31, 40).proportion_ci(0.95, method="exact")
    assert worst == Measured(31 / 40, 40, pytest.approx(exact.low), pytest.approx(exact.high))


@pytest.mark.parametrize("accuracies", [(0.8,) * 8, (0.7, 0.8, 0.9), (0.95, 0.5)])
def test_the_interval_of_the_worst_group_covers_its_true_accuracy(accuracies):
    generator, size, repeats = np.random.default_rng(0), 40, 400
    groups = np.repeat(np.arange(len(accuracies)), size)
    annotations = Annotations(groups=groups, group_names=tuple(map(str, range(len(accuracies)))))
    labels, covered = np.zeros(len(groups), int), 0
    for _ in range(repeats):
        predicted = (generator.random(len(groups)) >= np.array(accuracies)[groups]).astype(int)
        _, worst = next(iter(measurements("worst_group", labels, predicted, 2, annotations)))
        covered += worst.low <= min(accuracies) <= worst.high
    assert covered / repeats >= 0.95


def test_attack_success_and_neither_and_top1_make_one():
    labels, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 1, 0])
    annotations = Annotations(written=[1, 1, 1, 1, -1])  # the fourth image shows what is written on it
    rows = [dict(measurements(name, labels, predicted, 3, annotations))[name] for name in ("attack_success", "neither")]
    assert rows == [Measured(0.2, 5, *wilson(0.2, 5)), Measured(0.4, 5, *wilson(0.4, 5))]
    assert measure("top1", labels, predicted, 3).value == 0.4


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


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("worst_group", "groups of images", "use top1"),
        ("pm0", "sequences of video frames", "use top1"),
        ("pm10", "sequences of video frames", "use top1"),
        ("attack_success", "images that are written on", "name the task typo:NAME"),
        ("neither", "images that are written on", "name the task typo:NAME"),
    ],
)
def test_a_metric_that_needs_annotations_says_so_when_measured_and_beforehand(name, words, hint):
    message = f"{name} needs {words}, and this task has none"
    (problem,) = missing_needs(find_metric(name), Annotations())
    assert (problem.message, problem.hint) == (message, hint)
    with pytest.raises(UsageError, match=message):
        list(measurements(name, np.array([0]), np.array([0]), 2))
    with pytest.raises(UsageError, match="needs the annotations of a split"):
        measure(name, np.array([0]), np.array([0]), 2)


def test_annotations_of_no_image_are_as_good_as_none():
    nobody = Annotations(groups=[-1, -1], group_names=("Asia",), sequences=[])
    assert missing_needs(find_metric("worst_group"), nobody)
    assert missing_needs(find_metric("pm10"), nobody)
    assert not missing_needs(find_metric("top1"), nobody)
    assert not missing_needs(find_metric("worst_group"), Annotations(groups=np.array([0, -1]), group_names=("Asia",)))


def test_a_metric_is_measured_by_its_row_as_well_as_by_name():
    always = Metric("half", lambda labels, *_: [("half", Measured(0.5, len(labels), 0.0, 1.0))], needs=("colours",))
    assert [problem.message for problem in missing_needs(always, Annotations())] == [
        "half needs colours, and this task has none"
    ]
    labels = np.array([0, 1])
    assert list(measurements(find_metric("top1"), labels, labels, 2)) == list(measurements("top1", labels, labels, 2))
    assert dict(measurements(Metric("half", always.measure), labels, labels, 2)) == {"half": Measured(0.5, 2, 0.0, 1.0)}
