"""The page in a real browser: hovering, the theme, a phone, print, and names that would be markup or script."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest

import wisepatch as wp
from tests.browser import opened, programs
from tests.samples import draw_folder
from tests.synthetic_sweeps import DATA, WISE_FT

pytestmark = pytest.mark.slow

EVIL = (  # names of classes
    "</script><script>window.broken=1</script>",
    "<img src=x onerror=window.broken=2>",
    "\u2028'\"`${x=3}{{ 7*7 }}<!-- $x 猫",
)
EVIL_RUN = '</title><script>window.broken=4</script>&amp;"><svg onload=window.broken=5>'


@pytest.fixture
def page(store, swept, tmp_path):
    programs()
    wp.write_report(store, tmp_path / "report.html", data=swept[1])
    return tmp_path / "report.html"


def test_charts_are_drawn_without_a_word_on_the_console_and_nothing_is_loaded(page):
    with opened(page) as shown:
        assert shown.messages() == []
        charts = shown.run("return document.querySelectorAll('.drawing').length")
        assert shown.run("return document.querySelectorAll('.drawing svg').length") == charts >= 5
        loaded = shown.run("return performance.getEntriesByType('resource').map(e => e.name)")
        assert [name for name in loaded if not name.startswith("data:")] == []
        assert shown.run("return document.querySelectorAll('details[open]').length") == 0


def test_hovering_tells_alpha_accuracy_and_interval_of_the_nearest_point(page):
    with opened(page) as shown:
        spec = json.loads(shown.run("return document.querySelector('script[data-chart=frontier-1-test]').textContent"))
        box = shown.run(
            "const e = document.querySelector('#frontier-1-test'); e.scrollIntoView({block: 'center'});"
            "const mark = [...e.querySelectorAll('.mark-symbol.role-mark path')].at(-2).getBoundingClientRect();"
            "return [mark.x + mark.width / 2, mark.y + mark.height / 2]"
        )
        assert shown.run("return document.querySelector('#tip').hidden")
        shown.hover(*box)
        said = shown.run("return document.querySelector('#tip').innerText")
        shown.hover(box[0], 2)
        assert shown.run("return document.querySelector('#tip').hidden")
    (point,) = (each for each in spec["data"]["values"] if each["alpha"] == 0.5)
    lines = ["mix: alpha 0.5", f"patched, %: {point['y']:.1f}", f"its 95 % interval: {point['y_interval']}"]
    assert said.splitlines()[:3] == lines
    assert said.splitlines()[-1] == "mark: chosen"


def test_axes_of_shifts_are_labelled_in_per_cent_and_lines_are_straight(tmp_path):
    programs()
    (tmp_path / "store").mkdir()
    shutil.copy(DATA / f"{WISE_FT}.jsonl", tmp_path / "store" / "results.jsonl")
    wp.write_report(wp.Store(tmp_path / "store"), tmp_path / "r.html", data=tmp_path)
    labels = "[...document.querySelectorAll('#shifts-1 .role-axis-label text')].filter(e => e.style.opacity !== '0')"
    with opened(tmp_path / "r.html", width=390, height=844) as shown:
        assert shown.messages() == []
        words = shown.run(f"return {labels}.map(e => e.textContent)")
        paths = shown.run(
            "return [...document.querySelectorAll('#shifts-1 .mark-line path')].map(e => e.getAttribute('d'))"
        )
    assert {"70 %", "82 %", "1 %", "50 %"} <= set(words)
    assert all(word.removesuffix(" %").isdecimal() for word in words)
    assert sum(path.count("L") == 1 for path in paths) == 6  # y = x, and a line for each of five shifts


def test_theme_follows_the_system_and_the_button_and_charts_follow_the_theme(page):
    paper = "return getComputedStyle(document.body).backgroundColor"
    ink = "return getComputedStyle(document.querySelector('.drawing .role-axis-label text')).fill"
    with opened(page) as shown:
        light = shown.run(paper), shown.run(ink)
        shown.click("#theme")
        dark = shown.run(paper), shown.run(ink)
        assert light[0] == "rgb(255, 255, 255)"
        assert dark[0] != light[0]
        assert dark[1] != light[1]
        assert shown.run("return document.querySelector('#theme').textContent") == "Light colours"
    with opened(page, dark=True) as shown:
        assert (shown.run(paper), shown.run(ink)) == dark
        shown.click("#theme")
        assert (shown.run(paper), shown.run(ink)) == light


def test_phone_scrolls_tables_and_never_the_page(page):
    with opened(page, width=390, height=844) as shown:
        assert shown.run("return document.documentElement.scrollWidth") == 390
        parts = "[...document.querySelectorAll('.drawing svg, .drawing svg text')]"
        assert shown.run(f"return Math.max(...{parts}.map(e => e.getBoundingClientRect().right))") <= 390


def test_print_has_every_chart_and_light_paper_whatever_the_theme(page, tmp_path):
    with opened(page, dark=True) as shown:
        shown.pdf(tmp_path / "report.pdf")
        shown.devtools("Emulation.setEmulatedMedia", media="print")
        assert shown.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert shown.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_names_from_everywhere_are_text_and_neither_markup_nor_script(tmp_path):
    """Class names, the task, the run and the title go the whole way: CSV, training, sweep, report, browser."""
    programs()
    folder = draw_folder(tmp_path / "images", per_class=12)
    table = tmp_path / "<b>task & 'x'.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label"))
        names = dict(zip(sorted({path.parent for path in folder.rglob("*.png")}), EVIL, strict=True))
        rows.writerows((path, names[path.parent]) for path in sorted(folder.rglob("*.png")))

    def run(*words):
        environment = os.environ | {"WISEPATCH_PLUGINS": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "wisepatch", *map(str, words), "--store", tmp_path / "store", "--data", tmp_path],
            capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    training = ("--steps", 6, "--batch-size", 8, "--lr", 1e-3, "--template", "{}")
    run("patch", "--model", "demo", "--task", table, *training, "--alpha", "0,0.5,1", "--name", EVIL_RUN)
    run("report", "--output", "r.html", "--title", f"Title {EVIL_RUN}")
    with opened(tmp_path / "r.html") as shown:
        assert shown.messages() == []
        assert shown.run("return window.broken") is None
        assert shown.run("return document.querySelector('h2').textContent") == EVIL_RUN
        assert shown.run("return document.title") == f"Title {EVIL_RUN}"
        text = shown.run("return document.body.textContent")
        for name in EVIL:
            assert " ".join(name.replace("\u2028", " ").split()) in " ".join(text.replace("\u2028", " ").split())
        assert "49" not in shown.run("return document.querySelector('h1').textContent")
        inside = "script:not([type]), main svg[onload], b, main img:not([src^='data:'])"
        assert shown.run(f'return document.querySelectorAll("{inside}").length') == 0
