"""``wisepatch predict``: lines, records, tables and sheets; what is wrong is said before any work."""

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.samples import broken_png, fails


@pytest.fixture
def folder(run_store, shapes, tmp_path):
    broken_png(tmp_path / "shapes" / "broken.png")
    return run_store


def test_a_line_an_image_with_probabilities(cli, folder, tmp_path):
    result = cli("predict", "finetuned", "shapes", "--top", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 18
    assert all(line.startswith("shapes/") and line.count(" %") == 2 for line in lines)
    assert "note: shapes/broken.png cannot be read: " in result.stderr
    assert "answered 18 of 19 images, 1 cannot be read" in result.stderr
    result = cli(
        "predict", "zeroshot", "shapes/circle/0.png", "--classnames", "cat, dog", "--template", "a {}.", "--quiet"
    )
    assert set(result.stdout.replace(",", "").split()) >= {"cat", "dog"}


def test_several_checkpoints_answer_at_once_in_lines_and_records(cli, folder):
    for words in (
        ("finetuned,zeroshot",),
        ("--checkpoint", "finetuned,zeroshot"),
        ("finetuned", "--checkpoint", "zeroshot"),
    ):
        result = cli("predict", *words, "shapes/circle/0.png", "--json")
        assert result.exit_code == 0, result.output
        records = [json.loads(line) for line in result.stdout.splitlines()]
        assert [record["name"] for record in records] == ["demo/shapes/finetuned", "demo/zeroshot"]
        assert all(record["type"] == "prediction" for record in records)
        assert sum(records[0]["probabilities"]) == pytest.approx(1)
    result = cli("predict", "finetuned,zeroshot", "shapes/circle/0.png")
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == [
        "shapes/circle/0.png [demo/shapes/finetuned]", "shapes/circle/0.png [demo/zeroshot]",
    ]  # fmt: skip


def test_tables_and_sheets_hold_every_answer(cli, folder, tmp_path):
    outputs = [word for name in ("new/a.csv", "a.parquet", "sheet.png") for word in ("--output", name)]
    result = cli("predict", "finetuned", "shapes", *outputs, "--top", "2", "--images-per-class", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "written to new/a.csv and a.parquet and sheet.png" in result.stderr
    frame = pd.read_parquet("a.parquet")
    assert list(frame) == [
        "image",
        "checkpoint",
        "id",
        "class_1",
        "probability_1",
        "class_2",
        "probability_2",
        "problem",
    ]
    assert frame["problem"].notna().sum() == 1
    assert len(frame) == 19
    with Path("new/a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_1"] for row in rows] == frame["class_1"].fillna("").tolist()
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 800
    again = cli("predict", "finetuned", "shapes", *outputs)
    assert again.exit_code == 0, again.output


def test_mistakes_are_said_before_a_model_is_loaded(cli, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("wisepatch.evaluation.answers.answers", lambda *_, **__: pytest.fail("a model was loaded"))
    fails(cli("predict", "finetuned", "gone.jpg"), 1, "there is no image, folder or CSV gone.jpg", "check the path")
    fails(cli("predict", "finetuned"), 2, "no images are named", "after the checkpoint")
    fails(cli("predict", "shapes"), 2, "shapes is no checkpoint", "name one before the images")
    fails(cli("predict", "finetund", "shapes"), 2, "unknown checkpoint 'finetund'", "store list")
    fails(cli("predict", "finetuned", "shapes", "-o", "a.txt"), 2, "answers cannot be written as '.txt'", ".parquet")
    fails(cli("predict", "finetuned", "shapes", "-o", "shapes/circle/0.png/a.csv"), 2, "cannot be written", "--output")
    fails(cli("predict", "finetuned", "shapes", "--task", "Shapse"), 2, "unknown task 'Shapse'")
    fails(
        cli("predict", "finetuned", "shapes", "--classnames", "none.txt"), 2, "the class names none.txt cannot be read"
    )
    fails(cli("predict", "zeroshot", "shapes"), 2, "was not trained on a task", "--classnames")


def test_nothing_that_can_be_read_is_an_error(cli, folder):
    result = cli("predict", "finetuned", "shapes/broken.png", "--json")
    assert result.exit_code == 1
    kinds = [json.loads(line)["type"] for line in result.stdout.splitlines()]
    assert kinds == ["unreadable", "error"]
    fails(cli("predict", "finetuned", "shapes/broken.png"), 1, "none of the images can be read", "name others")


@pytest.mark.slow
def test_output_that_nobody_reads_any_more_ends_it_without_a_traceback(folder, shapes, tmp_path):
    command = f"{sys.executable} -m wisepatch predict finetuned shapes shapes shapes shapes --batch-size 4 | head -1"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_lines_go_where_stdout_goes_while_a_bar_is_drawn_on_a_terminal(cli, folder, monkeypatch):
    """As with ``> answers.txt``: stderr alone is a terminal, or is to be taken for one."""
    plain = cli("predict", "finetuned", "shapes/circle")
    monkeypatch.setenv("FORCE_COLOR", "1")
    drawn = cli("predict", "finetuned", "shapes/circle")
    assert "\x1b[" in drawn.stderr
    assert drawn.stdout == plain.stdout != ""


def test_full_disk_leaves_no_half_of_a_table(cli, folder, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        result = cli("predict", "finetuned", "shapes/circle", "shapes/square", "-o", "a.csv", "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 2
    assert "a.csv cannot be written: File too large" in result.stderr
    assert not [path for path in tmp_path.iterdir() if "a.csv" in path.name or "partial" in path.name]


def test_sheet_has_a_limit_and_counts_the_rest(cli, folder, monkeypatch):
    monkeypatch.setattr("wisepatch.reports.answer_files.MAX_GROUPS", 1)
    drawn = []
    monkeypatch.setattr(
        "wisepatch.reports.answer_files.contact_sheet", lambda groups: drawn.append(groups) or Image.new("RGB", (9, 9))
    )
    assert (
        cli(
            "predict", "finetuned,zeroshot", "shapes", "--task", "Shapes", "-o", "a.png", "--images-per-class", "2"
        ).exit_code
        == 0
    )
    (first, second) = drawn[0]
    assert first[0].startswith("demo/shapes/finetuned: ")
    assert 1 <= len(first[1]) <= 2
    assert second[0].startswith("and ")
    assert second[0].endswith(" more")
