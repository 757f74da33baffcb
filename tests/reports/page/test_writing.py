"""The report: one valid page that loads nothing, says what is there and what is missing, and is whole or not there."""

import json
import re
import shutil

import html5lib
import pytest

import wisepatch as wp
from tests.reports.plots.pictures import measured
from wisepatch.errors import ResultsError, UsageError
from wisepatch.files import PARTIAL
from wisepatch.reports.page import writing
from wisepatch.store.results import read

MAX_BYTES = 5_000_000
SECTIONS = [
    "What was done", "Results", "Why this alpha", "What is certified", "Over alpha", "Worst classes", "Images fixed and broken",
    "Training", "Where it comes from", "How to make it again",
]  # fmt: skip


@pytest.fixture
def library(monkeypatch):
    """Leave the drawing library out: it takes a second and most of the page."""
    monkeypatch.setattr(writing, "_library", lambda: "")


def parsed(path):
    """Parse a page strictly; return its tree."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(path.read_text(encoding="utf-8"))


def words(element):
    return " ".join("".join(element.itertext()).split())


def test_page_is_valid_html_below_five_megabytes_that_names_no_address_to_load(store, swept, tmp_path):
    page = tmp_path / "new" / "report.html"
    wp.write_report(store, page, data=swept[1])
    assert page.stat().st_size < MAX_BYTES
    tree = parsed(page)
    assert [heading.text for heading in tree.iter("h3")] == SECTIONS
    addresses = [
        (element.tag, name, value)
        for element in tree.iter()
        if isinstance(element.tag, str)
        for name, value in element.attrib.items()
        if name in ("src", "href", "data", "action", "poster", "srcset")
    ]
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for _, _, value in addresses)
    assert not re.search(r"@import|url\(", words(tree.find(".//style")))
    policy = tree.find(".//meta[@http-equiv]").attrib["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'unsafe-inline'" not in policy


def test_a_result_that_was_changed_is_left_out_of_the_page_and_named(store, swept, tmp_path, library, caplog):
    *lines, last = store.results.read_text().splitlines()
    lines.append(last.replace('"value": 0.', '"value": 0.1'))
    assert lines[-1] != last
    store.results.write_text("\n".join([*lines, last]) + "\n")
    wp.write_report(store, tmp_path / "r.html", data=swept[1])
    assert f"line {len(lines)} is not a result and was left out: it is damaged" in caplog.text


def test_page_can_be_read_by_a_screen_reader(store, swept, tmp_path, library):
    wp.write_report(store, tmp_path / "r.html", data=swept[1])
    tree = parsed(tmp_path / "r.html")
    assert tree.attrib["lang"] == "en"
    assert [len(tree.findall(f".//{landmark}")) for landmark in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    identities = [element.attrib["id"] for element in tree.iter() if "id" in element.attrib]
    assert len(identities) == len(set(identities))
    for element in tree.iter():
        assert element.attrib.get("aria-labelledby", identities[0]) in identities
        assert element.attrib.get("href", "#" + identities[0])[1:] in identities
    tables = list(tree.iter("table"))
    assert tables
    for table in tables:
        assert words(table.find("caption"))
        assert {head.attrib["scope"] for head in table.find("thead").iter("th")} == {"col"}
        rows = table.find("tbody").findall("tr")
        assert all(row[0].tag == "th" and row[0].attrib["scope"] == "row" for row in rows)
        assert {len(row) for row in rows} == {len(table.find("thead")[0])}
    drawings = tree.findall(".//div[@role='img']")
    assert len(drawings) >= 4
    assert all(len(drawing.attrib["aria-label"]) > 30 for drawing in drawings if "training" not in drawing.attrib["id"])
    figures = [figure for figure in tree.iter("figure") if "training" not in figure.attrib["aria-labelledby"]]
    assert all(figure.find("details//table") is not None for figure in figures)
    assert all(image.attrib["alt"].startswith("shows ") for image in tree.iter("img"))


def test_page_tells_the_measured_numbers_the_rule_the_test_the_lineage_and_the_commands(
    store, swept, tmp_path, library
):
    (results, *_) = wp.write_report(store, tmp_path / "r.html", data=swept[1])
    frame = read(store.results)[0]
    text = words(parsed(tmp_path / "r.html"))
    chosen = frame[frame["chosen"].fillna(value=False).astype(bool) & (frame["split"] == "test")]
    assert len(chosen) == 2
    for row in chosen.to_dict("records"):
        assert f"{100 * row['value']:.1f} ({100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f})" in text
        record = next(each for each in results.records if each["task"] == row["task"])
        assert (record["after"], record["fixed"], record["broken"]) == (row["value"], row["fixed"], row["broken"])
    assert f"Alpha {chosen['alpha'].iloc[0]:g} was chosen by the rule alpha=0.5" in text
    assert "Nothing was certified" in text
    patched = store.find("patched")
    for parent in store.parents(patched):
        assert all(digest in text for digest in parent.files.values())
    assert "wisepatch patch --model demo --task shapes --supported Colors --steps 4" in text
    assert "loss" in text
    assert "first run" in text


def test_charts_hold_the_rows_as_data_under_fixed_names(store, swept, tmp_path, library):
    wp.write_report(store, tmp_path / "r.html", data=swept[1])
    charts = {
        script.attrib["data-chart"]: json.loads(script.text)
        for script in parsed(tmp_path / "r.html").iter("script")
        if "data-chart" in script.attrib
    }
    assert {
        "frontier-1-test",
        "alphas-1-test",
        "frontier-1-val",
        "alphas-1-val",
        "training-1-loss",
        "training-1-lr",
    } == set(charts)
    frame = read(store.results)[0]
    rows = frame[(frame["split"] == "test") & (frame["task"] == "shapes")].sort_values("alpha")
    points = charts["frontier-1-test"]["data"]["values"]
    assert [point["y"] for point in points] == pytest.approx((100 * rows["value"]).tolist())
    assert [point["mark"].split(" and ")[-1] for point in points if point["alpha"] in (0, 1)] == [
        "zero-shot",
        "fine-tuned",
    ]
    assert sum("chosen" in point["mark"] for point in points) == 1


def test_images_are_shown_where_the_data_is_there_and_missed_in_words_elsewhere(store, swept, tmp_path, library):
    wp.write_report(store, tmp_path / "with.html", data=swept[1])
    whole = parsed(tmp_path / "with.html")
    images = list(whole.iter("img"))
    assert images
    moved = tmp_path / "elsewhere"
    shutil.move(swept[1] / "shapes", moved)
    try:
        wp.write_report(store, tmp_path / "without.html", data=tmp_path)
    finally:
        shutil.move(moved, swept[1] / "shapes")
    tree = parsed(tmp_path / "without.html")
    assert "The images are not shown: " in words(tree)
    assert len(list(tree.iter("img"))) < len(images)


def test_page_is_written_without_answers_logs_and_checkpoints_and_says_so(store, swept, tmp_path, library):
    for folder in ("predictions", "runs", "checkpoints"):
        shutil.rmtree(store.root / folder)
    wp.write_report(store, tmp_path / "r.html", data=swept[1])
    text = words(parsed(tmp_path / "r.html"))
    for said in (
        "its checkpoint was removed", "There are no training curves: ", "the checkpoint that names the rule is not in the store",
        "how they were made is not known any more",
    ):  # fmt: skip
        assert said in text


def test_answers_of_one_checkpoint_alone_leave_out_classes_and_images_and_say_why(store, swept, tmp_path, library):
    shutil.rmtree(store.root / "predictions" / store.find("zeroshot").id)
    wp.write_report(store, tmp_path / "r.html", data=swept[1])
    assert "the store holds no predictions of demo/zeroshot" in words(parsed(tmp_path / "r.html"))


def test_two_runs_share_a_frontier_and_a_table(store, swept, tmp_path, library):
    wp.sweep(store, swept[1], alphas="0,0.25,1", run="second", run_name="a second one")
    tables = wp.write_report(store, tmp_path / "r.html", runs="all", data=swept[1], title="Both <runs>")
    assert [row[0] for row in tables[0].rows] == ["first run", "a second one"]
    tree = parsed(tmp_path / "r.html")
    assert words(tree.find(".//h1")) == "Both <runs>"
    assert [words(heading) for heading in tree.iter("h2")] == ["All runs", "first run", "a second one"]
    together = next(script for script in tree.iter("script") if script.attrib.get("data-chart") == "together-1")
    assert {point["run"] for point in json.loads(together.text)["data"]["values"]} == {"first run", "a second one"}
    assert "No alpha was chosen" in words(tree)


def test_runs_that_are_not_there_or_swept_nothing_are_refused_by_name(store, swept, tmp_path):
    with pytest.raises(ResultsError, match="there is no run 'third'"):
        wp.write_report(store, tmp_path / "r.html", runs="third")
    wp.evaluate(["zeroshot"], ["Colors"], store, swept[1], run="an eval")
    with pytest.raises(ResultsError, match="the run 'an eval' swept no alpha"):
        wp.write_report(store, tmp_path / "r.html", runs="an eval")
    with pytest.raises(ResultsError, match="there are no results at"):
        wp.write_report(tmp_path / "empty", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_page_that_cannot_be_written_is_said_before_anything_is_read(tmp_path):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    for path, reason in (
        (tmp_path / "r.pdf", "a report cannot be written as '.pdf'"),
        (tmp_path / "folder.html", "Is a directory"),
        (tmp_path / "file" / "r.html", "Not a directory"),
    ):
        with pytest.raises(UsageError, match=reason) as caught:
            wp.write_report(tmp_path / "no store", path)
        assert caught.value.hint


def test_interrupted_writing_leaves_the_older_page_whole(store, swept, tmp_path, library, monkeypatch):
    page = tmp_path / "r.html"
    page.write_text("the older page")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("wisepatch.files.os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        wp.write_report(store, page, data=swept[1])
    assert page.read_text() == "the older page"
    assert not list(tmp_path.glob(f"{PARTIAL}*"))


def test_library_cannot_end_the_script_that_it_stands_in(monkeypatch):
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda snippet: 'a = "</script><!-- </SCRIPT>";')
    assert writing._library() == 'a = "<\\/script><\\!-- <\\/SCRIPT>";'


def test_many_tasks_are_told_apart_and_their_names_reorder_nothing_in_charts(tmp_path, library):
    tasks = ["\u202egnitset", *(f"task {number}" for number in range(11))]
    store = wp.Store(tmp_path / "store")
    store.root.mkdir()
    measured(tasks=tasks).to_json(store.results, orient="records", lines=True)
    wp.write_report(store, tmp_path / "r.html", data=tmp_path)
    (chart,) = (
        json.loads(each.text)
        for each in parsed(tmp_path / "r.html").iter("script")
        if each.get("data-chart") == "alphas-1-test"
    )
    (line,) = (layer["encoding"] for layer in chart["layer"] if "strokeWidth" in layer.get("encoding", {}))
    looks = list(zip(line["color"]["scale"]["range"], map(str, line["strokeDash"]["scale"]["range"]), strict=True))
    assert len(set(looks)) == len(looks) == len(tasks)
    assert line["color"]["scale"]["domain"] == line["strokeDash"]["scale"]["domain"] == ["\\u202egnitset", *tasks[1:]]
