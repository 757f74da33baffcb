"""``wisepatch report``: what it prints, where it writes, and what it refuses."""

import json
import shutil

import pytest

from tests.samples import fails

HOSTILE = "<b>a | name & 50 %_</b>"


@pytest.fixture(scope="module")
def once(finished, tmp_path_factory):
    """A store with a sweep of a named run."""
    import wisepatch as wp
    from wisepatch.datasets import demo

    root = tmp_path_factory.mktemp("once")
    shutil.copytree(finished[0] / "store", root / "store")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(demo, "SIZES", {"train": 20, "val": 20, "test": 20})
        wp.sweep(wp.Store(root / "store"), finished[0], alphas="0,1", rule="best-mean", run_name=HOSTILE)
    return root / "store"


@pytest.fixture
def swept(cli, once, finished, tmp_path, monkeypatch):
    """A copy of it where the command line looks for one, and the words that name the data."""
    from wisepatch.datasets import demo

    monkeypatch.setattr(demo, "SIZES", {"train": 20, "val": 20, "test": 20})
    monkeypatch.setattr("wisepatch.reports.page.writing._library", lambda: "")
    shutil.copytree(once, tmp_path / "wisepatch-store")
    return "--data", finished[0]


def test_report_prints_its_tables_and_the_path_of_the_page(cli, swept, tmp_path):
    done = cli("report", *swept, "--run", HOSTILE)
    assert done.exit_code == 0, done.output
    assert "Results on test data: top1 in per cent with 95 % intervals" in done.stdout
    assert "shapes (patched)" in done.stdout
    assert done.stdout.splitlines()[-1] == "the report is report.html"
    assert "&lt;b&gt;a | name &amp; 50 %_&lt;/b&gt;" in (tmp_path / "report.html").read_text()


def test_report_as_json_has_a_record_a_task_and_the_page(cli, swept):
    records = [json.loads(line) for line in cli("report", *swept, "--json").stdout.splitlines()]
    assert [record["type"] for record in records] == [*["report"] * 4, "page"]
    first = records[0]
    assert (first["task"], first["role"], first["split"], first["n"]) == ("shapes", "patched", "test", 3)
    assert first["difference"] == pytest.approx(first["after"] - first["before"])
    assert records[-1]["output"] == "report.html"


def test_report_in_latex_is_tables_and_comments_alone(cli, swept):
    lines = cli("report", *swept, "--format", "latex").stdout.splitlines()
    assert r"\toprule" in lines
    assert all(line.startswith(("%", "\\")) or line.endswith(r" \\") or not line for line in lines)


def test_what_cannot_be_reported_is_said_in_one_line_and_no_page_is_left(cli, swept, tmp_path):
    fails(cli("report", *swept, "--run", "nobody"), 1, "there is no run 'nobody'", "runs there are: ")
    fails(cli("report", *swept, "--output", "report.pdf"), 2, "a report cannot be written as '.pdf'", "ends in .html")
    fails(
        cli("report", *swept, "--store", "nothing"),
        1,
        "there are no results at nothing/results.jsonl",
        "run `wisepatch interpolate`",
    )
    fails(cli("report", "--data", "nowhere"), 1, "the data folder nowhere does not exist", "--data")
    assert not list(tmp_path.glob("*.html"))


def test_page_is_written_where_there_is_no_browser(cli, swept, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("chromium") is None
    assert cli("report", *swept, "--quiet").exit_code == 0
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
