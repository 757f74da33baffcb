"""What people see and what programs read."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.samples import draw_folder
from wisepatch import Point, Rule
from wisepatch.cli.output import Output, print_error, write
from wisepatch.cli.results import show_sweep
from wisepatch.errors import UsageError
from wisepatch.workflows.sweep import Sweep

TABLES = [
    (("task", "n"), [("MNIST", 10), ("Digits [x]", ""), ("", 7)], 1, 200),
    (("a", "", "per cent"), [], None, 200),
    (("a", "b"), [(["one", "two"], "x")], None, 200),
    (("a", "b"), [("Zürich", "日本")], None, 200),
    (("a", "b"), [("word " * 60, "x")], 0, 80),
]


@pytest.mark.parametrize(("columns", "rows", "strong", "width"), TABLES)
def test_tables_hold_every_word_and_are_as_wide_as_the_terminal(capsys, monkeypatch, columns, rows, strong, width):
    output = Output()
    monkeypatch.setitem(vars(output), "width", width)
    output.table(columns, rows, strong=strong)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    cells = [cell for row in (columns, *rows) for cell in row]
    words = [word for cell in cells for word in (cell if isinstance(cell, list) else str(cell).split())]
    shown = [
        word for word in text.replace("┃", " ").replace("│", " ").split() if not set(word) <= set("─━┏┓┗┛┡┩└┘┴┬┳┻╇")
    ]
    assert sorted(shown) == sorted(words)


def test_narrow_terminal_breaks_no_word(capsys, monkeypatch):
    output = Output()
    monkeypatch.setitem(vars(output), "width", 40)
    columns = ("checkpoint", "task", "per cent", "95 % interval", "")
    output.table(
        columns, [("demo/Digits/patched", "Digits", "62.2", "57.9 to 66.3", "[chosen]"), ("next", "b", "1", "-", "")]
    )
    lines = [re.split("│", line)[1:-1] for line in capsys.readouterr().out.splitlines() if line[0] == "│"]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["checkpoint", "demo/Digits/patched"], ["task", "Digits"], ["per cent", "62.2"], ["95 % interval", "57.9 to 66.3"],
        ["", "[chosen]"], ["checkpoint", "next"], ["task", "b"], ["per cent", "1"], ["95 % interval", "-"],
    ]  # fmt: skip


def test_column_without_a_number_is_as_wide_as_its_name(capsys):
    Output().table(("alpha", "n"), [("0.5", "-")])
    assert capsys.readouterr().out.splitlines()[-2] == "│   0.5 │ - │"


def test_words_that_fit_beside_each_other_stay_whole(capsys, monkeypatch):
    output = Output()
    monkeypatch.setitem(vars(output), "width", 80)
    columns = ("checkpoint", "clean", "attacked", "says what is written", "says neither", "n")
    output.table(columns, [("demo/Digits/patched", *["85.0 (70.9 to 92.9)"] * 4, "40")])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "│ demo/Digits/patched │" in text


def test_numbers_stand_right_and_words_left(capsys):
    Output().table(("word", "number"), [("a", "-1.5"), ("bcdefg", "22.25"), ("h", "-")])
    body = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert body == ["│ a      │   -1.5 │", "│ bcdefg │  22.25 │", "│ h      │      - │"]


def test_a_table_in_a_file_is_not_folded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    Output().table(("a", "b"), [("word " * 30, "x")])
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]) == 1


def swept(patching, supported, rows, points, **more):
    rows = [
        {"task": task, "split": split, "metric": metric, "alpha": alpha, "value": value}
        for task, split, metric, values in rows
        for alpha, value in values.items()
    ]
    return Sweep("run", patching, supported, rows, points, {}, **more)


def shown(capsys, sweep):
    show_sweep(Output(), sweep)
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in re.split("[┃│]", line)[1:-1]] for line in lines if line[0] in "┃│"]
    return [line for line in lines if line[0] not in "┏┡└┃│"], cells


def test_a_sweep_is_shown_with_the_means_that_rules_compare(capsys):
    rows = [("A", "test", "top1", {0: 0.1, 1: 0.9}), ("B", "test", "top1", {0: 0.9, 1: 0.8})]
    points = {"test": [Point(0, 0.1, 0.9), Point(1, 0.9, 0.8)]}
    titles, cells = shown(capsys, swept("A", ("B",), rows, points))
    assert titles == ["top1 in per cent, test split"]
    assert cells == [
        ["alpha", "A", "B", "supported", "mean"],
        ["0", "10.0", "90.0", "90.0", "50.0"],
        ["1", "90.0", "80.0", "80.0", "85.0"],
    ]


def test_a_metric_that_is_better_when_lower_says_so_and_keeps_its_mean(capsys):
    rows = [("A", "test", "neither", {0: 0.1}), ("B", "test", "neither", {0: 0.3})]
    titles, cells = shown(capsys, swept("A", ("B",), rows, {"test": [Point(0, 0.1, 0.3, -0.2)]}))
    assert titles == ["neither (lower is better) in per cent, test split"]
    assert cells[1] == ["0", "10.0", "30.0", "30.0", "20.0"]


def test_metrics_of_two_directions_have_a_mean_score_and_no_mean(capsys):
    rows = [("A", "test", "attack_success", {0: 0.9, 1: 0.2}), ("B", "test", "top1", {0: 0.8, 1: 0.7})]
    points = {"test": [Point(0, 0.9, 0.8, -0.05), Point(1, 0.2, 0.7, 0.25)]}
    titles, cells = shown(capsys, swept("A", ("B",), rows, points))
    assert titles == ["attack_success (lower is better) / top1 in per cent, test split"]
    assert cells == [["alpha", "A", "B", "mean score"], ["0", "90.0", "80.0", "-5.0"], ["1", "20.0", "70.0", "25.0"]]


def test_a_task_that_is_not_measured_on_a_split_has_a_dash(capsys):
    rows = [
        ("A", "val", "top1", {0: 0.2, 1: 0.9}), ("B", "val", "top1", {0: 0.5, 1: 0.5}),
        ("A", "test", "top1", {0: 0.1, 1: 0.8}), ("B", "test", "top1", {0: 0.5, 1: 0.5}), ("C", "test", "top1", {0: 0.7, 1: 0.6}),
    ]  # fmt: skip
    chosen = Point(1, 0.9, 0.5)
    points = {"val": [Point(0, 0.2, 0.5), chosen], "test": [Point(0, 0.1, 0.6), Point(1, 0.8, 0.55)]}
    titles, cells = shown(capsys, swept("A", ("B", "C"), rows, points, rule=Rule(), selected_on="val", choice=chosen))
    assert titles == [
        "top1 in per cent, val split (chosen on this split)",
        "top1 in per cent, test split (alpha was chosen on val)",
    ]
    assert cells[:3] == [
        ["alpha", "A", "B", "C", "supported", "mean", ""], ["0", "20.0", "50.0", "-", "50.0", "35.0", ""],
        ["1", "90.0", "50.0", "-", "50.0", "70.0", "chosen"],
    ]  # fmt: skip
    assert cells[5] == ["1", "80.0", "50.0", "60.0", "55.0", "67.5", "chosen"]


def test_no_supported_task_on_a_split_leaves_dashes(capsys):
    rows = [("A", "val", "top1", {0: 0.2}), ("A", "test", "top1", {0: 0.1}), ("C", "test", "top1", {0: 0.7})]
    point = Point(0, 0.2)
    points = {"val": [point], "test": [Point(0, 0.1, 0.7)]}
    _, cells = shown(capsys, swept("A", ("C",), rows, points, rule=Rule(), selected_on="val", choice=point))
    assert cells[1] == ["0", "20.0", "-", "-", "-", "chosen"]


def test_a_task_that_names_its_split_is_headed_by_it(cli, run_store):
    result = cli("interpolate", "--alpha", "0,1", "--eval", "Colors@val")
    assert result.exit_code == 0, result.output
    assert "Colors@val" in result.stdout


def test_json_is_one_object_a_line_and_nothing_else_on_stdout(cli, run_store):
    result = cli("interpolate", "--alpha", "0,0.5,1", "--eval", "Colors", "--select", "best-mean", "--json")
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    rows, last = records[:-1], records[-1]
    assert {row["task"] for row in rows} == {"shapes", "Colors"}
    assert {(row["split"], row["alpha"]) for row in rows if row["task"] == "shapes"} == {
        (split, alpha) for split in ("val", "test") for alpha in (0, 0.5, 1)
    }
    assert set(last) == {"type", "chosen", "checkpoint", "alpha", "rule", "selected_on", "cautions", "note", "means"}
    at_start = last["means"][0]
    assert (at_start["split"], at_start["alpha"]) == ("val", 0)
    assert at_start["mean"] == pytest.approx((at_start["patching"] + at_start["supported"]) / 2)
    assert at_start["mean_low"] < at_start["mean"] <= at_start["mean_high"]
    assert any("few images" in caution for caution in last["cautions"])
    assert last["selected_on"] == "val"


def test_choosing_on_test_data_is_labelled(cli, run_store):
    result = cli("interpolate", "--alpha", "0,1", "--eval", "Colors", "--select", "best-mean", "--select-on", "test")
    assert result.exit_code == 0, result.output
    assert "TEST DATA" in result.stdout
    assert "on TEST data" in result.stderr


def test_wide_prints_the_records_of_the_papers(cli, run_store):
    result = cli("interpolate", "--alpha", "0,1", "--eval", "Colors", "--wide")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["alpha"] for record in records] == [0, 1]
    assert {"shapes:top1", "Colors:top1"} <= set(records[0])


def test_quiet_draws_no_bars_of_what_the_hub_sends(monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    Output()
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "0"
    Output(quiet=True)
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"


def test_quiet_says_nothing_on_stderr(cli, shapes):
    result = cli("zeroshot", "--model", "demo", "--task", shapes, "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "demo/zeroshot" in result.stdout


def test_json_holds_no_nan(cli, run_store):
    cli("interpolate", "--alpha", "0,1", "--eval", "")
    for line in cli("plot", "--json").stdout.splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


HOSTILE = "a\nb\x1b[31mb\x1b]0;title\x07c\rd\u202ee\x9bf\ud800g"
SHOWN = "a\\nb\\x1b[31mb\\x1b]0;title\\x07c\\rd\\u202ee\\x9bf\\ud800g"


def test_what_a_terminal_would_obey_is_written_out(capsys):
    output = Output()
    output.say(HOSTILE)
    output.result(HOSTILE)
    output.table((HOSTILE, "b"), [(HOSTILE, "[bold]x[/bold]")])
    output.progress().note(HOSTILE)
    bar = output.progress()
    bar.start(HOSTILE, 1)
    bar.finish()
    print_error(UsageError(HOSTILE, HOSTILE))
    out, err = capsys.readouterr()
    assert out.count(SHOWN) == 3
    assert "[bold]x[/bold]" in out
    assert err.count(SHOWN) == 5
    assert not set(out + err) & set("\x1b\x07\r\u202e\x9b")


def test_a_terminal_of_few_signs_gets_tables_of_those(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    Output().table(("name", "n"), [("猫", 1), ("cat", 22)])
    lines = stream.buffer.getvalue().decode().splitlines()
    assert lines[1:4] == ["| name   |  n |", "|--------+----|", "| \\u732b |  1 |"]
    assert len(set(map(len, lines))) == 1


def test_names_are_right_where_the_locale_knows_ascii_alone(tmp_path, shapes):
    (shapes / "circle").rename(shapes / "猫")
    for folder in ("猫", "square"):
        image = next((shapes / folder).iterdir())
        image.rename(image.with_name("犬.png" if folder == "猫" else "猫.png"))
    (tmp_path / "list.csv").write_text(
        "path,label\nshapes/猫/犬.png,猫\nshapes/square/猫.png,square\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "wisepatch", "datasets", "check", str(shapes), "list.csv@all", "--json"]
    odd = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": os.pathsep.join(sys.path), "WISEPATCH_PLUGINS": "0"}
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | odd, capture_output=True, timeout=300, check=False)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    classes = [list(record["per_class"]) for record in records]
    assert (classes[0], classes[-1]) == (["0 square", "1 triangle", "2 猫"], ["0 square", "1 猫"])


def test_programs_read_names_as_they_are(capsys):
    Output(as_json=True).records([{"name": HOSTILE, "value": float("nan"), "more": {"values": [float("inf"), 1]}}])
    line = capsys.readouterr().out
    assert json.loads(line) == {"type": "result", "name": HOSTILE, "value": None, "more": {"values": [None, 1]}}
    assert "\x1b" not in line


def test_signs_that_the_terminal_cannot_show_are_written_out():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write(stream, "café 日\n")
    assert stream.buffer.getvalue() == b"caf\\xe9 \\u65e5\n"
    write(None, "nobody has a stream here")


def test_every_object_of_json_says_its_type(cli, run_store, shapes, tmp_path):
    others = draw_folder(tmp_path / "others")

    def types(*words):
        return list(dict.fromkeys(json.loads(line)["type"] for line in cli(*words, "--json").stdout.splitlines()))

    sweep = ("interpolate", "--alpha", "0,0.5", "--eval", others, "--select", "best-mean")
    assert types(*sweep) == ["result", "choice"]
    assert types("interpolate", "--alpha", "0,0.5", "--eval", others, "--wide") == ["wide"]
    assert types("eval", "zeroshot", "--task", others) == ["result"]
    assert types("finetune", "--model", "demo", "--task", shapes, "--steps", "1", "--batch-size", "4") == ["checkpoint"]
    assert types("store", "list") == types("store", "show", "patched") == ["checkpoint"]
    assert types("store", "diff", "zeroshot", "finetuned") == ["difference"]
    assert types("store", "verify") == ["verification"]
    assert types("plot") == types("plot", "--over-alpha") == types("plot", "--kind", "training") == ["point"]
    assert types("export", "zeroshot", "exported") == ["export"]
    assert types("typo-attack", "make", "--task", shapes, "--limit", "2") == ["attack"]
    assert types("datasets") == types("datasets", "show", "Colors") == ["dataset"]
    assert types("datasets", "check", "Colors") == ["check"]
    assert types("eval", "nonesuch") == types("eval", "--nothing") == ["error"]
    assert types("store", "rm", "patched") == ["removed"]
    printed = cli(*sweep, "--json").stdout
    (tmp_path / "printed.jsonl").write_text(printed)
    drawn = cli("plot", tmp_path / "printed.jsonl")
    assert drawn.exit_code == 0
    assert "not a result" not in drawn.stderr


def test_drops_beyond_chance_and_too_few_images_are_marked_and_means_have_intervals(capsys):
    def row(task, alpha, n, fixed, broken):
        value = (0.9 * n + fixed - broken) / n
        counts = {"fixed": fixed, "broken": broken} if task != "A" else {}
        return {"task": task, "split": "test", "metric": "top1", "alpha": alpha, "value": value, "n": n,
                "ci_low": value - 0.03, "ci_high": value + 0.04} | counts  # fmt: skip

    rows = [row("A", alpha, 1000, 0, 0) for alpha in (0, 0.5, 1)]
    rows += [row("B", 0, 1000, 0, 0), row("B", 0.5, 1000, 0, 0), row("B", 1, 1000, 2, 40)]
    rows += [row("C", 0, 100, 0, 0), row("C", 0.5, 100, 0, 0), row("C", 1, 100, 0, 5)]
    points = {"test": [Point(0, 0.9, 0.9), Point(0.5, 0.9, 0.9), Point(1, 0.9, 0.856)]}
    sweep = replace(swept("A", ("B", "C"), [], points), rows=rows)
    titles, cells = shown(capsys, sweep)
    assert cells[1:] == [
        [
            "0",
            "90.0 (87.0 to 94.0)",
            "90.0 (87.0 to 94.0)",
            "90.0 (87.0 to 94.0)",
            "90.0 (87.9 to 92.8)",
            "90.0 (88.2 to 92.4)",
        ],
        [
            "0.5",
            "90.0 (87.0 to 94.0)",
            "90.0 (87.0 to 94.0)",
            "90.0 (87.0 to 94.0)?",
            "90.0 (87.9 to 92.8)",
            "90.0 (88.2 to 92.4)",
        ],
        [
            "1",
            "90.0 (87.0 to 94.0)",
            "86.2 (83.2 to 90.2)*",
            "85.0 (82.0 to 89.0)?",
            "85.6 (83.5 to 88.4)",
            "87.8 (86.0 to 90.2)",
        ],
    ]
    assert titles[-2:] == [
        "* worse than at alpha 0 beyond chance (McNemar's exact test, p < 0.05, Holm over the supported tasks)",
        "? too few images to exclude, at 95 %, a drop of more than 1 point",
    ]
