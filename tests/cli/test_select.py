"""``wisepatch select``: rules on records alone."""

import json

import pytest

from tests.samples import fails
from tests.synthetic_sweeps import DATA

PAINT = DATA / "paint-vitb32-mnist.jsonl"


def test_rules_choose_from_the_papers_records(cli):
    words = ("--results", PAINT, "--patching", "MNIST", "--supported", "CIFAR10")
    done = cli("select", *words, "--rule", "best-mean", "--rule", "max-drop=0.01", "--json")
    assert done.exit_code == 0, done.output
    best, kept = map(json.loads, done.stdout.splitlines())
    assert (best["rule"], best["alpha"], best["patching"], best["supported"]) == ("best-mean", 0.33, 0.9798, 0.8809)
    assert (kept["type"], kept["alpha"], kept["selected_on"]) == ("choice", 0.28, "test")
    shown = cli("select", *words).stdout
    assert "0.33" in shown
    assert "interval" not in shown  # the paper gives none


def test_a_sweep_of_the_store_is_chosen_from_again_and_certified_from_its_rows(cli, run_store):
    swept = cli("interpolate", "--alpha", "0,0.5,1", "--eval", "Colors", "--select", "max-drop=0.02@95", "--json")
    assert swept.exit_code == 0, swept.output
    *rows, choice = map(json.loads, swept.stdout.splitlines())
    assert all(row["broken"] >= 0 <= row["fixed"] for row in rows)
    again = cli("select", "--rule", "max-drop=0.02@95", "--rule", "max-drop=0.02@95,each", "--json")
    first, each = map(json.loads, again.stdout.splitlines())
    names = ("alpha", "rule", "selected_on", "note", "certified", "limit", "confidence")
    assert [first[name] for name in names] == [choice[name] for name in names]
    assert (first["selected_on"], each["of"]) == ("val", "each")
    shown = cli("select", "--rule", "max-drop=0.02@95").stdout
    assert choice["note"] in shown
    assert "in brackets 95 % intervals" in shown
    assert first["supported_low"] < first["supported"] < first["supported_high"] or first["supported"] in (0, 1)
    assert json.loads(cli("select", "--split", "test", "--json").stdout)["selected_on"] == "test"


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (("--patching", "SVHN"), 1, "'SVHN' was not measured", "CIFAR10, MNIST"),
        (("--supported", "STL10"), 1, "'STL10' was not measured", "CIFAR10, MNIST"),
        (("--split", "val"), 1, "the results hold no sweep over alpha on the 'val' split", "interpolate"),
        (("--metric", "macro_f1"), 1, "no row measures 'macro_f1'", "top1"),
        (("--rule", "max-drop=0.01@95"), 1, "no drop can be certified: the results do not say", "leave @"),
        (("--rule", "max-drop=0.01@5"), 2, "needs a confidence from 50 to below 100 after @, not '5'", "0.01@95"),
        (("--rule", "alpha=0.555"), 1, "alpha 0.555 is not among those of the sweep", "best-mean"),
        (("--run", "mine"), 1, "there is no run 'mine'", "paint"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(cli, words, code, message, hint):
    fails(cli("select", "--results", PAINT, *words), code, message, hint)


@pytest.mark.parametrize("rule", ["best-mean", "max-drop=0.1", "knee", "weights=Colors:3"])
def test_candidates_of_a_merge_are_chosen_from_again(cli, run_store, rule):
    words = (
        "finetuned",
        "--method",
        "task-arithmetic",
        "--param",
        "alpha=0.2:1:0.4",
        "--eval",
        "Colors",
        "--limit",
        "30",
    )
    merged = cli("merge", *words, "--select", rule, "--json")
    assert merged.exit_code == 0, merged.output
    *rows, first = map(json.loads, merged.stdout.splitlines())
    (again,) = map(json.loads, cli("select", "--run", rows[0]["run"], "--rule", rule, "--json").stdout.splitlines())
    names = ("candidate", "params", "rule", "selected_on")
    assert [again[name] for name in names] == [first[name] for name in names]
    assert json.loads(cli("select", "--rule", rule, "--json").stdout) == again  # the newest run
    assert f"candidate {first['candidate']:g} (" in cli("select", "--run", rows[0]["run"], "--rule", rule).stdout
    fails(cli("select", "--run", rows[0]["run"], "--rule", "max-drop=0.1@95"), 2, "in their order", "knee")
    over_alpha = cli("plot", "--kind", "alpha", "--run", rows[0]["run"])
    fails(over_alpha, 1, "is a merge", f"`wisepatch select --run {rows[0]['run']}`")


def test_a_sweep_without_alpha_0_has_no_drop(cli, tmp_path):
    records = [line for line in PAINT.read_text().splitlines() if '"alpha": 0.0,' not in line]
    (tmp_path / "part.jsonl").write_text("\n".join(records))
    fails(
        cli("select", "--results", "part.jsonl", "--rule", "max-drop=0.01"),
        1,
        "needs alpha 0 in the sweep",
        "best-mean",
    )
    (tmp_path / "bare.jsonl").write_text('{"alpha": 0.0, "MNIST:top1": 0.5}')
    fails(cli("select", "--results", "bare.jsonl"), 1, "'bare' does not say which task was patched", "--patching TASK")


def test_certifying_what_is_no_fraction_of_images_is_refused_before_any_work(cli, run_store):
    words = ("interpolate", "--eval", "Colors", "--metric", "macro_f1", "--select", "max-drop=0.01@95")
    fails(cli(*words), 2, "Colors is measured by macro_f1", "--metric top1")
