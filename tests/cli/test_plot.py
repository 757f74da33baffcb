"""``wisepatch plot``."""

import json
import shutil
from pathlib import Path

import pytest

from tests.reports.plots.pictures import DATA, both, measured
from tests.samples import fails

WISE_FT, PAINT = DATA / "wiseft-vitb16-imagenet.jsonl", DATA / "paint-vitb32-mnist.jsonl"


def write_results(path, frame):
    path.write_text("".join(json.dumps(row) + "\n" for row in json.loads(frame.to_json(orient="records"))))
    return path


@pytest.fixture(scope="module")
def swept(finished, tmp_path_factory):
    """A store in which the mixes of a run have answered two tasks, on test and validation data."""
    from wisepatch import Store, sweep

    root = tmp_path_factory.mktemp("swept")
    shutil.copytree(finished[0] / "store", root / "wisepatch-store")
    store = Store(root / "wisepatch-store")
    sweep(store, finished[0], alphas=(0, 0.5, 1), tasks=["Colors"], rule="best-mean", limit=40)
    return store


@pytest.fixture
def store(swept, tmp_path):
    shutil.copytree(swept.root, tmp_path / "wisepatch-store")


def points(result):
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["type"] for line in lines} == {"point"}
    return lines


def test_broken_line_of_results_is_reported_by_number_and_the_rest_drawn(cli, run_store):
    cli("interpolate", "--alpha", "0,0.5,1", "--eval", "Colors")
    lines = run_store.results.read_text().splitlines()
    run_store.results.write_text("\n".join([lines[0], '{"run": "x", "val', *lines[1:]]) + "\n")
    result = cli("plot", "--output", "plot.png")
    assert result.exit_code == 0, result.output
    assert "line 2 is not a result" in result.stderr
    assert "drew 3 points" in result.stdout


def test_effective_robustness_is_printed_in_points_and_every_point_is_json(cli):
    result = cli("plot", WISE_FT, "--kind", "robustness", "--output", "r.svg")
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    assert [row[1:3] for row in rows] == [["0", "+6.7"], ["0.5", "+2.1"], ["1", "+0.7"]]
    assert "drew 5 shifts of 1 run to r.svg" in result.stdout
    found = points(cli("plot", WISE_FT, "--kind", "robustness", "--shift", "ImageNetV2,ImageNetA", "--json"))
    assert len(found) == 3 * 21
    rho = {(row["shift"], row["alpha"]): row["rho"] for row in found}
    assert round(rho["ImageNetV2", 0], 1) == 6.7
    assert rho["mean of 2 shifts", 0] is None


def test_measures_of_paint_are_printed_and_every_point_is_json(cli):
    result = cli("plot", PAINT)
    assert "to optimal" in result.stdout
    row = next(row for row in points(cli("plot", PAINT, "--json")) if row["alpha"] == 0.33)
    assert row["to_zeroshot"] == pytest.approx(0.8984 - 0.8809)
    assert row["on_frontier"] is True


def test_each_kind_is_drawn_from_the_store(cli, store, tmp_path):
    for kind, said in (
        ("frontier", "drew 3 points of 1 run"),
        ("sweep", "drew 3 points of 1 run"),
        ("alpha", "drew 2 tasks at 3 alphas"),
        ("per-task", "drew 2 tasks of 1 run"),
        ("layers", "blocks to"),
        ("training", "drew 1 training"),
        ("confusion", "answers of demo/shapes/patched to shapes (test)"),
        ("calibration", "drew 1 checkpoint on shapes (test)"),
    ):
        result = cli("plot", "--kind", kind, "--output", f"{kind}.png")
        assert result.exit_code == 0, result.output
        assert said in result.stdout, kind
        assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    found = points(
        cli("plot", "--kind", "calibration", "--checkpoint", "zeroshot,patched", "--task", "Colors", "--json")
    )
    assert {row["checkpoint"] for row in found} == {"demo/zeroshot", "demo/shapes/patched"}
    assert sum(row["images"] for row in points(cli("plot", "--kind", "confusion", "--split", "val", "--json"))) > 0
    assert cli("plot", "--kind", "robustness", "--reference-task", "shapes", "--shift", "Colors").exit_code == 0


def test_the_look_follows_its_options(cli, tmp_path):
    from PIL import Image

    words = ("--size", "720x576px", "--title", "", "--label", "MNIST=digits", "--dark")
    result = cli("plot", PAINT, *words)
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size == (720, 576)
        assert sum(image.convert("RGB").getpixel((2, 300))) < 150
    assert "to plot.pdf" in cli("plot", PAINT, "--paper").stdout
    assert b"/FontFile2" in (tmp_path / "plot.pdf").read_bytes()  # whole TrueType fonts


def test_runs_are_compared_by_name_in_order_of_time(cli, tmp_path):
    results = both()
    results["run"] = results["run"].map(
        {"first": "interpolate-20260102T000000-aaaa", "second": "patch-20260101T000000-bbbb"}
    )
    path = write_results(tmp_path / "both.jsonl", results)
    found = points(cli("plot", path, "--compare", "second,first", "--json"))
    assert list(dict.fromkeys(row["run_name"] for row in found)) == ["first", "second"]
    assert "0000-" not in cli("plot", path, "--compare", "first", "--compare", "second").stdout
    fails(cli("plot", path, "--compare", "first"), 2, "--compare first names one run", "two or more")
    fails(cli("plot", path, "--compare", "first,second", "--run", "first"), 2, "--run and --compare both", "one of")
    fails(cli("plot", path, "--compare", "first,third"), 1, "there is no run 'third'", "first")
    fails(cli("plot", path, "--compare", "first,second", "--kind", "alpha"), 2, "the tasks of one run", "per-task")


def test_runs_that_cannot_be_compared_say_why(cli, tmp_path):
    result = cli("plot", PAINT, WISE_FT)
    fails(result, 1, "patch different things (MNIST; ImageNet): they have no axes in common", "one by one")
    import pandas as pd

    alone = measured("alone", 0.2, ("Digits",))
    path = write_results(tmp_path / "alone.jsonl", pd.concat([measured(), alone]))
    result = cli("plot", path, "--compare", "first,alone")
    fails(result, 2, "the run 'alone' has no supported tasks", "per-task")
    path = write_results(tmp_path / "val.jsonl", pd.concat([measured(), measured("on val", 0.2, split="val")]))
    for kind in ("frontier", "per-task", "robustness"):
        result = cli("plot", path, "--compare", "first,on val", "--kind", kind)
        fails(result, 1, "the run 'on val' was not measured on the 'test' split", "--split val")


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (
            ("--kind", "robustness", "--reference-task", "CIFAR10"),
            1,
            "the reference task 'CIFAR10' was not",
            "ImageNetV2",
        ),
        (("--kind", "robustness", "--shift", "ImageNetV3"), 1, "the shift 'ImageNetV3' was not measured", "ImageNetV2"),
        (("--kind", "robustness", "--reference", "nowhere.csv"), 1, "nowhere.csv cannot be read", "a row a model"),
        (("--split", "val"), 1, "no sweep over alpha on the 'val' split", "interpolate"),
        (("--kind", "per-task", "--task", "SVHN"), 1, "'SVHN' was not measured", "ImageNetV2"),
        (("--output", "/proc/nowhere/a.png"), 2, "cannot be written", "--output"),
        (("--output", "a.gif"), 2, "cannot draw '.gif'", ".pdf"),
        (("--size", "7"), 2, "'7' is no size", "7x5"),
        (("--size", "1.6x1.6", "--kind", "robustness"), 2, "has no room for its labels", "--size"),
        (("--label", "x"), 2, "--label 'x' does not say what", "NAME=TEXT"),
        (("--label", "SVHN=x"), 2, "nothing in the picture is called 'SVHN'", "ImageNet"),
        (("--shift", "ImageNetV2"), 2, "--kind frontier does not take --shift", "--supported"),
        (("--kind", "layers"), 2, "--kind layers does not take RESULTS", "--checkpoint"),
        (("--kind", "confusion", "--metric", "top1"), 2, "does not take --metric, RESULTS", "--task"),
        (("--over-alpha", "--kind", "per-task"), 2, "--over-alpha each task over alpha", "one of the two"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(cli, tmp_path, words, code, message, hint):
    Path("kept.png").write_bytes(b"kept")
    output = () if "--output" in words else ("--output", "kept.png")
    fails(cli("plot", WISE_FT, *output, *words), code, message, hint)
    assert Path("kept.png").read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["kept.png"]


def test_answers_that_are_not_there_say_how_to_make_them(cli, store):
    for kind in ("confusion", "calibration"):
        result = cli("plot", "--kind", kind, "--task", "Textures")
        fails(result, 1, "holds no predictions of demo/shapes/patched", "wisepatch eval")
        assert "to Textures on the 'test' split" in result.stderr
        result = cli("plot", "--kind", kind, "--split", "train", "--task", "Colors")
        fails(result, 1, "to Colors on the 'train' split", "--split train")
        assert "it has answered its test, val split" in result.stderr
        fails(cli("plot", "--kind", kind, "--task", "nonesuch"), 2, "unknown task 'nonesuch'", "")
        fails(cli("plot", "--kind", kind, "--task", "Colors,shapes"), 2, "answers to one task are drawn", "--task")
        fails(cli("plot", "--kind", kind, "--store", "empty"), 1, "checkpoint", "")
    fails(cli("plot", "--kind", "confusion", "--checkpoint", "zeroshot,patched"), 2, "answers of one checkpoint", "one")


def test_layers_of_a_mix_name_the_checkpoint_to_draw(cli, store):
    fails(cli("plot", "--kind", "layers", "--checkpoint", "patched"), 2, "is a mix", "--checkpoint")
    fails(cli("plot", "--kind", "layers", "--store", "empty"), 1, "no fine-tuned checkpoint", "finetune")
