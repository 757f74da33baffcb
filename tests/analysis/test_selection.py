"""The rules that choose alpha, judged by the published sweeps."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import or_an_error_for_users, texts
from wisepatch.analysis.drops import Bound
from wisepatch.analysis.rules import Weights
from wisepatch.analysis.selection import BEST_MEAN, MAX_DROP, Rule, choose, missing_for_rule, parse_rule
from wisepatch.analysis.sweep_frame import Point, points, sweep_frame, with_mean_of_patched
from wisepatch.errors import ResultsError, UnknownNameError, UsageError
from wisepatch.hookspecs import SelectionRule
from wisepatch.plugins import Plugin, registry
from wisepatch.store.results import read

DATA = Path(__file__).parents[1] / "data"
NAN = float("nan")


def framed(measured, tasks, metrics=None, below=None):
    """The frame of ``alpha -> values of the tasks``, the patching task first; ``below`` are those of the zero-shot model."""
    rows = [
        {"alpha": alpha, "task": task, "metric": (metrics or {}).get(task, "top1"), "value": value}
        for alpha, values in [*measured.items(), *([(None, below)] if below else [])]
        for task, value in zip(tasks, values, strict=True)
    ]
    return sweep_frame(rows, tasks[0], tasks[1:])


def line(*points):
    """A sweep of ``(alpha, patching, supported)``."""
    return framed({alpha: values for alpha, *values in points}, ["A", "B"][: len(points[0]) - 1])


def alpha(frame, rule):
    return choose(frame, rule).alpha


@pytest.fixture(scope="module")
def paint():
    return sweep_frame(read(DATA / "paint-vitb32-mnist.jsonl")[0], "MNIST", ["CIFAR10"])


@pytest.fixture(scope="module")
def wise_ft():
    shifts = ["ImageNetV2", "ImageNetR", "ImageNetSketch", "ObjectNet", "ImageNetA"]
    return sweep_frame(read(DATA / "wiseft-vitb16-imagenet.jsonl")[0], "ImageNet", shifts)


# By hand: the farthest point beyond the straight line between the ends, the weighted means, the drops.
@pytest.mark.parametrize(
    ("rule", "on_paint", "on_wise_ft"),
    [
        ("best-mean", 0.33, 0.5),
        ("max-drop=0.01", 0.28, 0.65),
        ("max-drop=0.01,each", 0.28, 0.6),
        ("max-drop=0,each", 0.21, 0.55),
        ("knee", 0.33, 0.5),
        ("alpha=0.5", 0.5, 0.5),
    ],
)
def test_rules_choose_the_alphas_of_the_published_sweeps(paint, wise_ft, rule, on_paint, on_wise_ft):
    assert (alpha(paint, rule), alpha(wise_ft, rule)) == (on_paint, on_wise_ft)


def test_values_at_the_published_choices(paint):
    at = {point.alpha: point for point in points(paint)}
    assert len(at) == 101
    assert (at[0.33].patching, at[0.33].supported, at[0.28].patching, at[0.28].supported) == (
        0.9798, 0.8809, 0.9649, 0.8890,
    )  # fmt: skip


def test_weights_count_tasks_as_asked_and_the_others_once(paint, wise_ft):
    assert alpha(paint, "weights=MNIST:1,CIFAR10:1") == alpha(paint, "best-mean")
    assert alpha(wise_ft, "weights=ImageNet:5") == alpha(wise_ft, "best-mean")
    assert alpha(paint, "weights=MNIST:0") == 0.07  # the largest accuracy on CIFAR-10
    sums = {point.alpha: 2 * point.patching + point.supported for point in points(paint)}
    assert alpha(paint, "weights=MNIST:2") == max(sums, key=sums.get)


def test_the_order_of_the_rows_does_not_matter(paint):
    shuffled = paint.sample(frac=1, random_state=0)
    assert [alpha(shuffled, rule) for rule in ("best-mean", "max-drop=0.01", "knee")] == [0.33, 0.28, 0.33]


def test_max_drop_takes_the_best_patching_accuracy_not_the_largest_alpha():
    assert alpha(line((0.0, 0.1, 0.9), (0.5, 0.8, 0.9), (1.0, 0.7, 0.9)), "max-drop=0.01") == 0.5


def test_a_drop_of_exactly_what_is_allowed_is_allowed_whatever_floats_make_of_it():
    assert 0.96 - 0.95 > 0.01
    assert alpha(line((0.0, 0.1, 0.96), (0.5, 0.8, 0.95), (1.0, 0.9, 0.9499)), "max-drop=0.01") == 0.5


@pytest.mark.parametrize("rule", ["best-mean", "max-drop=0.5", "knee", "weights=A:1"])
def test_of_equally_good_points_the_smallest_alpha_is_taken(rule):
    assert alpha(line((1.0, 0.75, 0.5), (0.5, 0.75, 0.5), (0.75, 0.75, 0.5), (0.0, 0.25, 0.5)), rule) == 0.5


def test_means_that_are_equal_but_for_rounding_are_a_tie():
    assert alpha(line((0.2, 0.1, 0.7), (0.5, 0.3, 0.5)), "best-mean") == 0.2


def test_best_mean_without_supported_tasks_is_the_best_patching_accuracy():
    assert alpha(line((0.0, 0.1), (0.5, 0.7), (1.0, 0.6)), "best-mean") == 0.5


def test_each_holds_every_supported_task_to_the_bound_and_the_mean_does_not():
    frame = framed({0.0: (0.1, 0.9, 0.5), 0.5: (0.5, 0.9, 0.49), 1.0: (0.9, 0.95, 0.45)}, ["A", "B", "C"])
    assert (alpha(frame, "max-drop=0.01"), alpha(frame, "max-drop=0.01,each")) == (1.0, 0.5)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 64)), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.125, 0.5]),
)
def test_no_allowed_point_is_better_than_the_chosen_one(accuracies, drop):
    known = {i / 16: (a / 64, b / 64) for i, (a, b) in enumerate(accuracies)}
    frame = framed(known, ["A", "B"])
    best, kept = alpha(frame, "best-mean"), alpha(frame, Rule(MAX_DROP, drop))
    allowed = {a: p for a, (p, s) in known.items() if s >= known[0.0][1] - drop}
    assert sum(known[best]) == max(map(sum, known.values()))
    assert kept == min(a for a, p in allowed.items() if p == max(allowed.values()))


def test_an_empty_sweep_is_an_error(paint):
    with pytest.raises(ResultsError) as caught:
        choose(paint.iloc[:0], "best-mean")
    assert (caught.value.message, caught.value.hint) == ("there are no alphas to choose from", "evaluate at least one")


@pytest.mark.parametrize(
    ("frame", "rule", "missing"),
    [
        (line((0.1, 0.5, 0.9), (1.0, 0.9, 0.5)), "max-drop=0.01", "max-drop needs alpha 0 in the sweep to measure the"),
        (line((0.0, 0.5), (1.0, 0.9)), "max-drop=0.01@95", "max-drop needs supported tasks to measure the drop from zero"),
        (line((0.0, 0.5), (0.5, 0.7), (1.0, 0.9)), "knee", "knee needs supported tasks: without them there is no curve"),
        (line((0.0, 0.5, 0.9), (1.0, 0.9, 0.5)), "knee", "knee needs three alphas or more"),
        (line((0.0, 0.5, 0.9), (1.0, 0.9, 0.5)), "alpha=0.5", "alpha 0.5 is not among those of the sweep"),
        (line((0.0, 0.5, 0.9), (1.0, 0.9, 0.5)), "weights=A:0,B:0", "the weights of all tasks are 0"),
        (line((0.0, 0.5, 0.9), (1.0, 0.9, 0.5)), "weights=C:2", "C has a weight and is not among the tasks: A, B"),
        (
            line((0.0, 0.5, 0.9), (1.0, 0.9, 0.5)), "max-drop=0.01@95",
            "no drop can be certified: the results do not say how many images of B were broken and fixed",
        ),
    ],
)  # fmt: skip
def test_a_rule_says_what_a_sweep_lacks(frame, rule, missing):
    with pytest.raises(ResultsError) as caught:
        choose(frame, rule)
    assert caught.value.message.startswith(missing)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("best-mean", Rule()),
        (" best-mean ", Rule(BEST_MEAN)),
        ("max-drop=0.01", Rule(MAX_DROP, 0.01)),
        ("max-drop=0", Rule(MAX_DROP, 0.0)),
        ("max-drop=0.01@95", Rule(MAX_DROP, Bound(0.01, 0.95))),
        ("max-drop=0.01@97.5,each", Rule(MAX_DROP, Bound(0.01, 0.975, each=True))),
        ("max-drop=0.01,each", Rule(MAX_DROP, Bound(0.01, each=True))),
        ("weights=MNIST:2,typo:Shapes:0.5", Rule("weights", Weights((("MNIST", 2.0), ("typo:Shapes", 0.5))))),
        ("alpha=0.5", Rule("alpha", 0.5)),
    ],
)
def test_rules_are_read_and_read_back(text, rule):
    assert parse_rule(text) == rule == parse_rule(str(rule))


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 1, exclude_max=True), st.none() | st.floats(0.5, 0.999), st.booleans())
def test_a_bound_reads_back_from_its_own_text(drop, confidence, each):
    read_back = parse_rule(str(Rule(MAX_DROP, Bound(drop, confidence, each)))).value
    assert (read_back.drop, read_back.each) == (drop, each)
    assert read_back.confidence == (None if confidence is None else pytest.approx(confidence, abs=1e-9))


@pytest.mark.parametrize("value", ["", "one", "-0.1", "1", "nan", "inf", "0.01,all", "0.01,each,each"])
def test_a_drop_that_is_no_fraction_is_a_usage_error(value):
    with pytest.raises(UsageError) as caught:
        parse_rule(f"max-drop={value}")
    assert caught.value.message == f"max-drop needs a fraction, not {value!r}"
    assert caught.value.hint == "write max-drop=0.01 for one point, 0.01@95 to certify it"


@pytest.mark.parametrize("value", ["", "sure", "100", "0.95", "nan"])
def test_a_confidence_that_is_none_is_a_usage_error(value):
    with pytest.raises(UsageError, match=f"needs a confidence from 50 to below 100 after @, not '{value}'"):
        parse_rule(f"max-drop=0.01@{value}")


@pytest.mark.parametrize("value", ["", "MNIST", "MNIST:", ":1", "MNIST:-1", "MNIST:x", "A:1,A:2"])
def test_weights_that_are_none_are_a_usage_error(value):
    with pytest.raises(UsageError) as caught:
        parse_rule(f"weights={value}")
    assert caught.value.message == f"weights needs tasks with weights, not {value!r}"
    assert caught.value.hint == "write weights=MNIST:2,CIFAR10:1"


@pytest.mark.parametrize("text", ["best", ""])
def test_an_unknown_rule_is_a_usage_error_that_lists_all(text):
    with pytest.raises(UnknownNameError, match=f"^unknown rule '{text}'") as caught:
        parse_rule(text)
    assert caught.value.hint == "known: alpha, best-mean, knee, max-drop, weights"


def test_a_value_for_a_rule_that_takes_none_is_a_usage_error():
    with pytest.raises(UsageError) as caught:
        parse_rule("best-mean=1")
    assert (caught.value.message, caught.value.hint) == (
        "best-mean takes no value, and '1' is given", "write best-mean",
    )  # fmt: skip


@pytest.fixture
def closest(monkeypatch):
    """Register a further rule, as a plugin does: the alpha that is closest to a number."""
    rule = SelectionRule(
        "closest", lambda frame, value: min(frame["alpha"], key=lambda alpha: abs(alpha - value)), takes="ALPHA"
    )
    known = registry()
    plugin = Plugin("more", "more 1.0", {"register_rules": (rule,)})
    monkeypatch.setattr("wisepatch.plugins.registry", lambda: replace(known, plugins=(plugin,)))


@pytest.mark.usefixtures("closest")
def test_a_further_rule_is_read_and_chooses(paint):
    rule = parse_rule("closest=1.5")
    assert rule == Rule("closest", 1.5)
    assert str(rule) == "closest=1.5"
    assert alpha(paint, rule) == 1
    with pytest.raises(UsageError) as caught:
        parse_rule("closest=near")
    assert caught.value.message == "closest needs a number (ALPHA), not 'near'"
    assert caught.value.hint == "write closest=ALPHA"


LOWER = {"A": "attack_success", "B": "attack_success"}


def test_where_lower_is_better_the_lowest_value_is_chosen():
    attack = {0.0: (0.6, 0.5), 0.5: (0.1, 0.55), 1.0: (0.3, 0.9)}
    frame = framed(attack, ["A", "B"], LOWER)
    assert choose(frame, "best-mean").alpha == 0.5
    assert points(frame)[1] == Point(0.5, 0.1, 0.55, pytest.approx(-0.325))
    assert alpha(frame, "max-drop=0.02") == 0.0
    assert alpha(frame, "max-drop=0.05") == 0.5
    assert alpha(framed({a: v[:1] for a, v in attack.items()}, ["A"], LOWER), "best-mean") == 0.5


def test_tasks_of_different_directions_are_weighed_against_each_other():
    mixed, metrics = {0.0: (0.5, 0.2, 0.9), 1.0: (0.8, 0.6, 0.95)}, {"B": "attack_success"}
    frame = framed(mixed, ["A", "B", "C"], metrics)
    assert alpha(frame, "best-mean") == 1.0
    assert alpha(framed({a: v[:2] for a, v in mixed.items()}, ["A", "B"], metrics), "best-mean") == 0.0
    assert [point.supported for point in points(frame)] == pytest.approx([0.55, 0.775])


@pytest.mark.parametrize("rule", ["best-mean", "max-drop=0.5"])
def test_an_alpha_without_a_value_is_never_chosen(rule):
    assert alpha(line((0.0, 0.1, 0.9), (0.25, NAN, 0.9), (0.5, 0.8, 0.8), (0.75, 0.95, NAN)), rule) == 0.5


@pytest.mark.parametrize(
    ("frame", "rule", "alphas"),
    [
        (line((0.0, NAN), (0.5, NAN)), "best-mean", "0, 0.5"),
        (line((0.0, NAN, 0.9), (0.5, 0.3, NAN)), "max-drop=0.01", "0, 0.5"),
        (line((0.0, 0.1, NAN), (0.5, 0.3, 0.9)), "max-drop=0.01", "0"),
    ],
)
def test_a_sweep_without_the_values_that_a_rule_needs_is_an_error_that_names_the_alphas(frame, rule, alphas):
    with pytest.raises(ResultsError) as caught:
        choose(frame, rule)
    assert caught.value.message == f"{parse_rule(rule).name} cannot choose: the metric has no value at alpha {alphas}"
    assert caught.value.hint == "choose by another metric with --metric, or measure more images"


def test_what_a_rule_needs_of_a_sweep_is_known_beforehand():
    drop = Rule(MAX_DROP, 0.01)
    assert missing_for_rule(Rule(), [1], "A", []) == ""
    assert missing_for_rule(drop, [0, 1], "A", ["B"]) == ""
    assert "needs alpha 0 in the sweep" in missing_for_rule(drop, [0.5], "A", ["B"])
    assert "needs supported tasks" in missing_for_rule(drop, [0, 0.5], "A", [])


def test_max_drop_allows_no_more_below_zero_shot_than_below_the_start():
    measured, rule = {0: (0.1, 0.80), 0.5: (0.5, 0.795), 1: (0.9, 0.79)}, "max-drop=0.02"
    chosen = [alpha(framed(measured, ["A", "B"], below=below), rule) for below in (None, (0.1, 0.814), (0.1, 0.99))]
    assert chosen == [1, 0.5, 0]
    assert alpha(framed(measured, ["A", "B"], below=(0.1, 0.99)), "best-mean") == 1


def test_supported_tasks_count_equally_and_alphas_are_sorted():
    frame = framed({1.0: (0.9, 0.25, 0.75), 0.0: (0.5, 1.0, 0.5)}, ["A", "B", "C"])
    assert points(frame) == [Point(0.0, 0.5, 0.75, 0.625), Point(1.0, 0.9, 0.5, 0.7)]


def test_without_supported_tasks_there_is_no_mean():
    assert points(line((0.5, 0.9))) == [Point(0.5, 0.9, None, 0.9)]


@pytest.mark.parametrize(
    ("patching", "supported", "message"),
    [
        ("A", ["B", "C"], "'C' was not measured at alpha 0.25"),
        ("D", ["B"], "'D' was not measured at alpha 0.25"),
        ("A", ["E"], "'E' was not measured"),
    ],
)
def test_a_task_that_was_not_measured_everywhere_is_named_with_its_alpha(patching, supported, message):
    measured = {0.0: {"A": 0.5, "B": 0.5, "C": 0.5, "D": 0.5}, 0.25: {"A": 0.5, "B": 0.5}}
    rows = [
        {"alpha": alpha, "task": task, "metric": "top1", "value": value}
        for alpha, values in measured.items()
        for task, value in values.items()
    ]
    with pytest.raises(ResultsError) as caught:
        sweep_frame(rows, patching, supported)
    assert caught.value.message == message


@given(
    texts
    | st.tuples(
        st.sampled_from([BEST_MEAN, MAX_DROP, "max_drop", "MAX-DROP", "weights", "alpha", "knee"]) | texts,
        st.sampled_from(["=", "==", " = "]),
        texts | st.sampled_from(["0.01@95", "0.01@", "@", "A:1,B:2", "0.1,each"]),
    ).map("".join)
)
def test_fuzzed_rules_are_read_and_written_or_give_an_error(text):
    with or_an_error_for_users:
        rule = parse_rule(text)
        assert parse_rule(str(rule)) == rule
        assert math.isfinite(getattr(rule.value, "drop", 0))


def several(measured):
    """The frame of ``alpha -> values`` of two patching tasks, A and B, and two supported ones, C and D."""
    rows = [
        {"alpha": alpha, "task": task, "metric": "top1", "value": value}
        for alpha, values in measured.items()
        for task, value in zip("ABCD", values, strict=True)
    ]
    return sweep_frame(rows, ["A", "B"], ["C", "D"])


# P: 0.15, 0.6, 0.7, 0.75; S: 0.9, 0.875, 0.85, 0.5; best means 0.525, 0.7375, 0.775, 0.625.
TWO = {0.0: (0.1, 0.2, 1.0, 0.8), 0.3: (0.4, 0.8, 0.95, 0.8), 0.6: (0.9, 0.5, 0.9, 0.8), 1.0: (0.7, 0.8, 0.6, 0.4)}


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ("best-mean", 0.6),
        ("max-drop=0.03", 0.3),
        ("max-drop=0.06", 0.6),
        ("max-drop=0.06,each", 0.3),  # C drops by ten points at 0.6
        ("weights=A:0,C:0,D:0", 0.3),  # B alone: 0.8 at 0.3 and at 1, and the smaller one moves less
        ("knee", 0.6),
        ("alpha=1", 1.0),
    ],
)
def test_rules_of_several_patching_tasks_go_by_their_mean(rule, chosen):
    assert alpha(several(TWO), rule) == chosen


def test_points_of_several_patching_tasks_are_means():
    at = {point.alpha: point for point in points(several(TWO))}
    assert at[0.3].patching == pytest.approx(0.6)
    assert at[0.3].supported == pytest.approx(0.875)
    assert at[0.3].mean_score == pytest.approx(0.7375)


def test_a_knee_needs_supported_tasks_however_many_are_patched():
    assert "knee needs supported tasks" in missing_for_rule(Rule("knee"), (0, 0.5, 1), ["A", "B"], [])


def test_several_patching_tasks_become_one_row_with_their_mean_for_pictures():
    shared = {"run": "r", "patching": "A+B", "split": "test", "alpha": 0.5, "checkpoint": "c", "n": 10}
    rows = [
        shared | {"task": "A", "role": "patching", "metric": "top1", "value": 0.4, "ci_low": 0.3, "ci_high": 0.5},
        shared | {"task": "A", "role": "patching", "metric": "worst", "value": 0.1, "ci_low": 0.0, "ci_high": 0.2},
        shared | {"task": "B", "role": "patching", "metric": "top1", "value": 0.8, "ci_low": 0.7, "ci_high": 0.9},
        shared | {"task": "C", "role": "supported", "metric": "top1", "value": 0.9, "ci_low": 0.8, "ci_high": 1.0},
        {**shared, "run": "s", "patching": "A", "task": "A", "role": "patching", "metric": "top1", "value": 0.4},
    ]
    frame = with_mean_of_patched(pd.DataFrame(rows))
    (mean,) = frame[(frame["run"] == "r") & (frame["role"] == "patching")].to_dict("records")
    assert (mean["task"], mean["metric"], mean["n"]) == ("A+B", "top1", 20)
    assert mean["value"] == pytest.approx(0.6)
    assert mean["ci_low"] == pytest.approx(0.6 - math.sqrt(2 * 0.1**2) / 2)
    assert frame[frame["run"] == "s"]["task"].tolist() == ["A"]
    assert frame[frame["task"] == "C"]["value"].tolist() == [0.9]


@pytest.mark.parametrize(
    ("rule", "number", "told"),
    [("max-drop=0.01@95", 4, "choose by max-drop=0.01@98.75"), ("max-drop=0.01", 4, ""), ("max-drop=0.01@95", 1, "")],
)
def test_several_certified_choices_say_what_holds_of_the_best_of_them(rule, number, told):
    words = parse_rule(rule).of_several(number)
    assert words.endswith(told)
    assert bool(words) == bool(told)
