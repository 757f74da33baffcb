"""The rules that choose alpha, judged by the published PAINT sweep."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import or_an_error_for_users, texts
from wisepatch.analysis.selection import (
    BEST_MEAN,
    MAX_DROP,
    Point,
    Rule,
    choose,
    missing_for_rule,
    parse_rule,
    points,
)
from wisepatch.errors import ResultsError, UnknownNameError, UsageError
from wisepatch.hookspecs import SelectionRule
from wisepatch.plugins import Plugin, registry

PUBLISHED = Path(__file__).parents[1] / "data" / "paint-vitb32-mnist.jsonl"


@pytest.fixture(scope="module")
def sweep():
    records = [json.loads(line) for line in PUBLISHED.read_text().splitlines()]
    by_alpha = {r["alpha"]: {"MNIST": r["MNIST:top1"], "CIFAR10": r["CIFAR10:top1"]} for r in records}
    return points(by_alpha, "MNIST", ["CIFAR10"])


def test_best_mean_chooses_the_alpha_of_the_published_sweep(sweep):
    assert len(sweep) == 101
    assert choose(sweep, parse_rule("best-mean")) == Point(0.33, 0.9798, 0.8809)


def test_max_drop_of_one_point_chooses_the_alpha_of_the_published_sweep(sweep):
    assert choose(sweep, parse_rule("max-drop=0.01")) == Point(0.28, 0.9649, 0.8890)


def test_the_order_of_the_points_does_not_matter(sweep):
    assert choose(sweep[::-1], Rule()).alpha == 0.33
    assert choose(sweep[::-1], Rule(MAX_DROP, 0.01)).alpha == 0.28


def test_no_drop_allowed_keeps_every_supported_point(sweep):
    chosen = choose(sweep, Rule(MAX_DROP, 0.0))
    assert chosen.supported >= sweep[0].supported
    assert chosen.patching == max(p.patching for p in sweep if p.supported >= sweep[0].supported)


def test_max_drop_takes_the_best_patching_accuracy_not_the_largest_alpha():
    line = [Point(0.0, 0.1, 0.9), Point(0.5, 0.8, 0.9), Point(1.0, 0.7, 0.9)]
    assert choose(line, Rule(MAX_DROP, 0.01)).alpha == 0.5


def test_a_drop_of_exactly_what_is_allowed_is_allowed_whatever_floats_make_of_it():
    line = [Point(0.0, 0.1, 0.96), Point(0.5, 0.8, 0.95), Point(1.0, 0.9, 0.9499)]
    drop = 0.01
    assert line[0].supported - line[1].supported > drop
    assert choose(line, Rule(MAX_DROP, drop)).alpha == 0.5


@pytest.mark.parametrize("rule", [Rule(), Rule(MAX_DROP, 0.5)], ids=str)
def test_of_equally_good_points_the_smallest_alpha_is_taken(rule):
    line = [Point(1.0, 0.75, 0.5), Point(0.5, 0.75, 0.5), Point(0.75, 0.75, 0.5), Point(0.0, 0.25, 0.5)]
    assert choose(line, rule).alpha == 0.5


def test_means_that_are_equal_but_for_rounding_are_a_tie():
    line = [Point(0.2, 0.1, 0.7), Point(0.5, 0.3, 0.5)]
    assert choose(line, Rule()).alpha == 0.2


def test_best_mean_without_supported_tasks_is_the_best_patching_accuracy():
    assert choose([Point(0.0, 0.1), Point(0.5, 0.7), Point(1.0, 0.6)], Rule()).alpha == 0.5


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 64)), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.125, 0.5]),
)
def test_no_allowed_point_is_better_than_the_chosen_one(accuracies, drop):
    line = [Point(i / 16, a / 64, b / 64) for i, (a, b) in enumerate(accuracies)]
    best = choose(line, Rule())
    assert all(p.patching + p.supported <= best.patching + best.supported for p in line)
    kept = choose(line, Rule(MAX_DROP, drop))
    assert kept.supported >= line[0].supported - drop
    assert all(p.patching <= kept.patching for p in line if p.supported >= line[0].supported - drop)
    assert all(p.patching < kept.patching or p.supported < line[0].supported - drop for p in line[: line.index(kept)])


def test_an_empty_sweep_is_an_error():
    with pytest.raises(ResultsError) as caught:
        choose([], Rule())
    assert (caught.value.message, caught.value.hint) == ("there are no alphas to choose from", "evaluate at least one")


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ([Point(0.1, 0.5, 0.9), Point(1.0, 0.9, 0.5)], "alpha 0 in the sweep"),
        ([Point(0.0, 0.5), Point(1.0, 0.9)], "supported tasks"),
    ],
)
def test_max_drop_says_what_it_lacks(line, missing):
    with pytest.raises(ResultsError) as caught:
        choose(line, Rule(MAX_DROP, 0.01))
    assert caught.value.message == f"max-drop needs {missing} to measure the drop from zero-shot"
    assert caught.value.hint == "add them, or use --select best-mean"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("best-mean", Rule()),
        (" best-mean ", Rule(BEST_MEAN)),
        ("max-drop=0.01", Rule(MAX_DROP, 0.01)),
        ("max-drop=0", Rule(MAX_DROP, 0.0)),
    ],
)
def test_rules_are_read(text, rule):
    assert parse_rule(text) == rule


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 1, exclude_max=True))
def test_a_rule_reads_back_from_its_own_text(drop):
    assert parse_rule(str(Rule(MAX_DROP, drop))) == Rule(MAX_DROP, drop)
    assert str(Rule()) == "best-mean"


@pytest.mark.parametrize("value", ["", "one", "-0.1", "1", "nan", "inf"])
def test_a_drop_that_is_no_fraction_is_a_usage_error(value):
    with pytest.raises(UsageError) as caught:
        parse_rule(f"max-drop={value}")
    assert caught.value.message == f"max-drop needs a fraction, not {value!r}"
    assert caught.value.hint == "write --select max-drop=0.01 for one point"


@pytest.mark.parametrize("text", ["best", ""])
def test_an_unknown_rule_is_a_usage_error_that_lists_all(text):
    with pytest.raises(UnknownNameError, match=f"^unknown rule '{text}'") as caught:
        parse_rule(text)
    assert caught.value.hint == "known: best-mean, max-drop"


def test_a_value_for_a_rule_that_takes_none_is_a_usage_error():
    with pytest.raises(UsageError) as caught:
        parse_rule("best-mean=1")
    assert (caught.value.message, caught.value.hint) == (
        "best-mean takes no value, and '1' is given",
        "write --select best-mean",
    )


@pytest.fixture
def closest(monkeypatch):
    """Register a further rule, as a plugin does: the alpha that is closest to a number."""
    rule = SelectionRule(
        "closest", lambda points, value: min(points, key=lambda p: abs(p.alpha - value)), takes="ALPHA"
    )
    known = registry()
    plugin = Plugin("more", "more 1.0", {"register_rules": (rule,)})
    monkeypatch.setattr("wisepatch.plugins.registry", lambda: replace(known, plugins=(plugin,)))


@pytest.mark.usefixtures("closest")
def test_a_further_rule_is_read_and_chooses(sweep):
    rule = parse_rule("closest=1.5")
    assert rule == Rule("closest", 1.5)
    assert str(rule) == "closest=1.5"
    assert choose(sweep, rule).alpha == 1
    with pytest.raises(UsageError) as caught:
        parse_rule("closest=near")
    assert caught.value.message == "closest needs a number (ALPHA), not 'near'"
    assert caught.value.hint == "write --select closest=ALPHA"


def test_where_lower_is_better_the_lowest_value_is_chosen():
    attack = {0.0: {"A": 0.6, "B": 0.5}, 0.5: {"A": 0.1, "B": 0.55}, 1.0: {"A": 0.3, "B": 0.9}}
    lower = {"A": False, "B": False}
    assert choose(points(attack, "A", ["B"], lower), Rule()) == Point(0.5, 0.1, 0.55)
    assert choose(points(attack, "A", ["B"], lower), Rule(MAX_DROP, 0.02)).alpha == 0.0
    assert choose(points(attack, "A", ["B"], lower), Rule(MAX_DROP, 0.05)).alpha == 0.5
    assert choose(points(attack, "A", [], lower), Rule()).alpha == 0.5


def test_tasks_of_different_directions_are_weighed_against_each_other():
    mixed = {0.0: {"A": 0.5, "B": 0.2, "C": 0.9}, 1.0: {"A": 0.8, "B": 0.6, "C": 0.95}}
    directions = {"A": True, "B": False, "C": True}
    assert choose(points(mixed, "A", ["B", "C"], directions), Rule()).alpha == 1.0
    assert choose(points(mixed, "A", ["B"], directions), Rule()).alpha == 0.0
    assert [point.supported for point in points(mixed, "A", ["B", "C"], directions)] == pytest.approx([0.55, 0.775])


NAN = float("nan")


@pytest.mark.parametrize("rule", [Rule(), Rule(MAX_DROP, 0.5)], ids=str)
def test_an_alpha_without_a_value_is_never_chosen(rule):
    line = [Point(0.0, 0.1, 0.9), Point(0.25, NAN, 0.9), Point(0.5, 0.8, 0.8), Point(0.75, 0.95, NAN)]
    assert choose(line, rule).alpha == 0.5


@pytest.mark.parametrize(
    ("line", "rule", "alphas"),
    [
        ([Point(0.0, NAN), Point(0.5, NAN)], Rule(), "0, 0.5"),
        ([Point(0.0, NAN, 0.9), Point(0.5, 0.3, NAN)], Rule(MAX_DROP, 0.01), "0, 0.5"),
        ([Point(0.0, 0.1, NAN), Point(0.5, 0.3, 0.9)], Rule(MAX_DROP, 0.01), "0"),
    ],
)
def test_a_sweep_without_the_values_that_a_rule_needs_is_an_error_that_names_the_alphas(line, rule, alphas):
    with pytest.raises(ResultsError) as caught:
        choose(line, rule)
    assert caught.value.message == f"{rule.name} cannot choose: the metric has no value at alpha {alphas}"
    assert caught.value.hint == "choose by another metric with --metric, or measure more images"


def test_alphas_below_zero_do_not_stand_for_zero_shot():
    line = [Point(-0.5, 0.9, 0.5), Point(0.0, 0.1, 0.9), Point(0.5, 0.8, 0.9)]
    assert choose(line, Rule(MAX_DROP, 0.01)).alpha == 0.5


def test_what_a_rule_needs_of_a_sweep_is_known_beforehand():
    assert missing_for_rule(Rule(), [1], supported=False) == ""
    assert missing_for_rule(Rule(MAX_DROP, 0.01), [0, 1], supported=True) == ""
    assert "needs alpha 0 in the sweep" in missing_for_rule(Rule(MAX_DROP, 0.01), [0.5], supported=True)
    assert "needs supported tasks" in missing_for_rule(Rule(MAX_DROP, 0.01), [0, 0.5], supported=False)


def test_supported_tasks_count_equally_and_alphas_are_sorted():
    measured = {1.0: {"A": 0.9, "B": 0.25, "C": 0.75}, 0.0: {"A": 0.5, "B": 1.0, "C": 0.5}}
    assert points(measured, "A", ["B", "C"]) == [Point(0.0, 0.5, 0.75), Point(1.0, 0.9, 0.5)]


def test_without_supported_tasks_there_is_no_mean():
    assert points({0.5: {"A": 0.9}}, "A", []) == [Point(0.5, 0.9, None)]


@pytest.mark.parametrize(("patching", "supported", "missing"), [("A", ["B", "C"], "C"), ("D", ["B"], "D")])
def test_a_task_that_was_not_measured_everywhere_is_named_with_its_alpha(patching, supported, missing):
    measured = {0.0: {"A": 0.5, "B": 0.5, "C": 0.5, "D": 0.5}, 0.25: {"A": 0.5, "B": 0.5}}
    with pytest.raises(ResultsError) as caught:
        points(measured, patching, supported)
    assert caught.value.message == f"{missing!r} was not measured at alpha 0.25"
    assert caught.value.hint == "evaluate every task at every alpha"


@given(
    texts
    | st.tuples(
        st.sampled_from([BEST_MEAN, MAX_DROP, "max_drop", "MAX-DROP"]) | texts,
        st.sampled_from(["=", "==", " = "]),
        texts,
    ).map("".join)
)
def test_fuzzed_rules_are_read_and_written_or_give_an_error(text):
    with or_an_error_for_users:
        rule = parse_rule(text)
        assert parse_rule(str(rule)) == rule
