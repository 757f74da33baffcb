"""Tables in the forms that people paste: escapes that the readers of each form undo, rules, widths of letters."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wisepatch.cli.tables import LATEX, render, sentence

COLUMNS = ("task", "per cent")
HOSTILE = "50%_of $x|y & z# {a}\\b~^<猫>"
NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


def test_markdown_names_its_alignment_and_escapes_what_would_be_markup():
    text = render("markdown", COLUMNS, [(HOSTILE, "90.2 (87 to 92)"), (["two", "lines"], "-")], strong=0)
    assert text.splitlines() == [
        "| task | per cent |", "|---|---:|",
        r"| **50%\_of \$x\|y \& z\# \{a\}\\b\~^\<猫\>** | **90.2 (87 to 92)** |", "| two<br>lines | - |",
    ]  # fmt: skip


def test_latex_has_the_rules_of_booktabs_and_escapes_every_sign_of_its_own():
    text = render("latex", COLUMNS, [(HOSTILE, "90.2"), ("mean", "-1 ± 2"), (["two", "lines"], "")], strong=1, ends={0})
    name = r"50\%\_of \$x\textbar{}y \& z\# \{a\}\textbackslash{}b\textasciitilde{}\textasciicircum{}\textless{}猫\textgreater{}"
    assert text.splitlines() == [
        r"\begin{tabular}{lr}", r"\toprule", r"task & per cent \\", r"\midrule", rf"{name} & 90.2 \\", r"\midrule",
        r"\textbf{mean} & \textbf{-1 \(\pm\) 2} \\", r"\shortstack[l]{two \\ lines} &  \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    assert r"{}[0.5] & 1 \\" in render("latex", COLUMNS, [("[0.5]", 1)])  # no length for the line before it


@settings(max_examples=30)
@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=4))
def test_csv_is_read_back_as_it_was(rows):
    assert list(csv.reader(io.StringIO(render("csv", COLUMNS, rows)))) == [list(COLUMNS), *map(list, rows)]


@settings(max_examples=30)
@given(NAMES)
def test_no_sign_of_latex_stands_bare(name):
    line = render("latex", COLUMNS, [(name, "")]).splitlines()[4].removesuffix(r" &  \\").removeprefix("{}")
    for written in sorted(LATEX.values(), key=len, reverse=True):
        line = line.replace(written, "")
    assert not set(line) & set(LATEX)


def test_wide_letters_are_two_columns_in_a_terminal_and_nothing_is_cut():
    text = render("table", COLUMNS, [("猫の写真", "90.2"), ("plain", "1.0")], width=60)
    assert "猫の写真" in text
    assert text.splitlines()[3].index("│", 1) == text.splitlines()[4].index("│", 1) - 4


WORDS = st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=4).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 9).flatmap(lambda n: st.lists(st.tuples(*[WORDS] * n), min_size=2, max_size=4)), st.integers(0, 60)
)
def test_a_table_that_is_wider_than_the_terminal_shows_every_word_of_every_column(rows, more):
    words = [max(len(word) for cell in cells for word in cell.split()) for cells in zip(*rows, strict=True)]
    width = sum(words) + 3 * len(words) + 1 + more  # not one is broken here
    lines = render("table", rows[0], rows[1:], width=width).splitlines()
    assert {len(line) for line in lines} <= set(range(width + 1))
    assert lines[0].count("┳") == len(words) - 1
    assert lines[0].endswith("┓")
    shown = sorted(word for line in lines for word in line.strip("┃│").replace("┃", "│").split() if word[0] in "abc")
    assert shown == sorted(word for row in rows for cell in row for word in cell.split())


def test_sentences_between_tables_are_paragraphs_comments_or_nothing():
    assert sentence("markdown", "top1 | n_a") == "\ntop1 \\| n\\_a\n\n"
    assert sentence("latex", "50 %\nnext") == "% 50 %\\nnext\n"
    assert sentence("csv", "words") == ""


def test_control_characters_of_a_name_are_written_out_in_every_form():
    for form in ("table", "markdown", "latex", "csv"):
        assert "\x1b" not in render(form, COLUMNS, [("\x1b[31mred", 1)])


@pytest.fixture
def printed(cli, monkeypatch):
    """Measure the embedded model on a few images, with tables in a form."""
    from wisepatch.datasets import demo

    monkeypatch.setattr(demo, "SIZES", {"train": 20, "val": 20, "test": 20})
    return lambda *words: cli("zeroshot", "--model", "demo", "--task", "Shapes,Colors", *words)


def test_command_prints_its_results_in_the_form_that_is_asked_for(printed):
    result = printed("--format", "csv", "--quiet")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["task"], row["metric"]) for row in rows] == [("Shapes", "top1"), ("Colors", "top1")]
    assert "n = 20" not in result.stdout  # a table and nothing else
    assert "n = 20" in printed("--format", "csv").stderr
    markdown = printed("--format", "markdown").stdout
    assert "| demo/zeroshot | Shapes | test | top1 |" in markdown
    assert r"\bottomrule" in printed("--format", "latex").stdout
    assert json.loads(printed("--json").stdout.splitlines()[0])["task"] == "Shapes"


def test_two_forms_at_once_and_unknown_ones_are_usage_errors(cli):
    words = ("zeroshot", "--model", "demo", "--task", "Shapes")
    both = cli(*words, "--format", "latex", "--json")
    assert both.exit_code == 2
    assert json.loads(both.stdout)["error"] == "--json and --format latex are two forms of the same results"
    assert cli(*words, "--format", "word").exit_code == 2


def test_a_name_between_colons_is_no_emoji_and_brackets_are_no_markup():
    name = r"corrupt:photos:fog:3 [bold]\[x]"
    assert name in render("table", ("task", name), [[name, "1"]])
