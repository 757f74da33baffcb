"""Typographic attacks as folders and figures: make, measure, training against them, and the command line."""

import csv
import fcntl
import io
import json
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from PIL import Image

from tests.samples import broken_png, draw_folder, fails
from wisepatch import (
    Dataset,
    ModelConfig,
    Store,
    TrainConfig,
    evaluate,
    find_task,
    finetune,
    load_weights,
    predict_many,
)
from wisepatch.analysis.metrics import measurements
from wisepatch.analysis.selection import Rule
from wisepatch.datasets import demo
from wisepatch.datasets.attacked_folder import COLUMNS, attacked_folder, parse_name
from wisepatch.datasets.contact_sheet import CELL, LINE, MARGIN
from wisepatch.datasets.samples import Annotations
from wisepatch.datasets.typography import Style
from wisepatch.errors import DataError, UsageError, WisepatchError
from wisepatch.locks import locked
from wisepatch.tasks import Task
from wisepatch.workflows import typographic_attacks as attacks_module
from wisepatch.workflows.patching import zeroshot
from wisepatch.workflows.sweep import sweep
from wisepatch.workflows.typographic_attacks import draw_worst, find_photos, make, measure

DEMO = ModelConfig("demo", "")
ODD = ("hot_dog", "a=b", "naïve/é=_%", 'q"u,o\nt\re', "Zürich", " two  words ", "a_text=b", "car\rt")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A store with the embedded model as it is."""
    root = tmp_path_factory.mktemp("measured")
    store = Store(root / "store")
    checkpoint, _ = zeroshot(DEMO, [], store, root)
    return store, checkpoint


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows_of(folder):
    return list(csv.DictReader(io.StringIO((folder / "index.csv").read_bytes().decode(), newline="")))


class Flat:
    """Grey images with the labels 0, 1, 2, ..."""

    def __init__(self, classes, size=160):
        self.classes, self.size = classes, size

    def __len__(self):
        return 3 * len(self.classes)

    def __getitem__(self, index):
        return Image.new("RGB", (self.size, self.size), "grey"), index % len(self.classes)


def odd_task(size=160):
    return Task("odd", Dataset("odd", ODD, lambda split, root, transform: Flat(ODD, size), splits=("test",)))


# Make.


def test_an_index_holds_nothing_that_a_spreadsheet_computes_and_reads_back(tmp_path):
    classes = ("=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "'quoted", "plain")
    task = Task("=odd", Dataset("=odd", classes, lambda *_: Flat(classes), splits=("test",)))
    make(task, "test", tmp_path, tmp_path / "out", Style(seed=5))
    for row in rows_of(tmp_path / "out"):
        assert not {row[name][0] for name in ("path", "label", "text", "task", "split")} & set("=+-@")
    assert set(attacked_folder(tmp_path / "out").classes) == set(classes)


def test_folder_is_named_by_the_convention_and_the_index_carries_the_truth(tmp_path):
    assert make(odd_task(), "test", tmp_path, tmp_path / "out", Style(seed=5)) == 3 * len(ODD)
    rows = rows_of(tmp_path / "out")
    assert tuple(rows[0]) == COLUMNS
    assert {(tmp_path / "out" / row["path"]).is_file() for row in rows} == {True}
    assert len({row["path"].casefold() for row in rows}) == len(rows) == len(contents(tmp_path / "out")) - 1
    for index, row in enumerate(rows):
        assert row["label"] == ODD[index % len(ODD)]
        assert row["text"] in set(ODD) - {row["label"]}
        assert parse_name(row["path"].removesuffix(".png")) == (row["label"], row["text"])
        assert (row["image"], row["task"], row["split"], row["seed"]) == (str(index), "odd", "test", "5")
    opened = attacked_folder(tmp_path / "out").split("test", tmp_path)
    assert set(opened.classes) == set(ODD)
    assert [(opened.classes[opened[i][1]], opened.classes[w]) for i, w in enumerate(opened.annotations.written)] == [
        (row["label"], row["text"]) for row in rows
    ]
    (tmp_path / "out" / "index.csv").unlink()  # the names alone say the same, but for an underscore
    names = attacked_folder(tmp_path / "out").split("test", tmp_path)
    assert set(names.classes) == {name.replace("_", " ") for name in ODD}
    assert len(names) == len(rows)


@pytest.mark.parametrize("split", ["test", "val"])
def test_images_of_a_folder_are_those_of_the_task_on_the_fly(tmp_path, shapes, split):
    task = find_task(str(shapes))
    make(task, split, tmp_path, tmp_path / "out", Style())
    opened = find_task(f"typo:{shapes}").dataset.split(split, tmp_path)
    for row in rows_of(tmp_path / "out"):
        image, label = opened[int(row["image"])]
        with Image.open(tmp_path / "out" / row["path"]) as made:
            assert made.tobytes() == image.tobytes()
        assert row["label"] == opened.classes[label]
    assert len(rows_of(tmp_path / "out")) == len(opened)


def test_same_seed_makes_the_same_bytes_with_any_number_of_workers(tmp_path):
    for name, style, workers in (("one", Style(), 0), ("two", Style(), 2), ("seed", Style(seed=1), 0)):
        make(find_task("Shapes"), "test", tmp_path, tmp_path / name, style,
             limit=24, workers=workers)  # fmt: skip
    one, two, seed = (contents(tmp_path / name) for name in ("one", "two", "seed"))
    assert one == two
    assert list(one) == list(two)
    assert len(one) == 25
    assert not set(one.values()) & set(seed.values())


def test_a_smaller_limit_makes_some_of_the_same_images(tmp_path):
    for name, limit in (("few", 3), ("more", 9)):
        assert make(find_task("Shapes"), "val", tmp_path, tmp_path / name, Style(), limit=limit) == limit
    few, more = (contents(tmp_path / name) for name in ("few", "more"))
    assert {name for name in few if name != "index.csv"} < set(more)
    assert all(few[name] == more[name] for name in few if name != "index.csv")


def test_preview_is_a_contact_sheet_that_begins_with_an_image_of_each_class(tmp_path):
    make(find_task("Shapes"), "test", tmp_path, tmp_path / "out", Style(), limit=7, preview=tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.size == (5 * (CELL + MARGIN) + MARGIN, 3 * LINE + 2 * (CELL + 2 * LINE + 2 * MARGIN) + MARGIN)
        cell = np.asarray(
            sheet.convert("RGB").crop((MARGIN, 2 * LINE + MARGIN, MARGIN + CELL, 2 * LINE + MARGIN + CELL))
        )
    first = rows_of(tmp_path / "out")[0]["path"]
    with Image.open(tmp_path / "out" / first) as image:
        assert np.array_equal(cell, np.asarray(image.resize((CELL, CELL), Image.Resampling.NEAREST)))


def test_output_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("")
    for name, message in (("full", "the folder {} is not empty"), ("file", "{} is a file, not a folder")):
        with pytest.raises(UsageError) as caught:
            make(find_task("Shapes"), "test", tmp_path, tmp_path / name, Style(), limit=2)
        assert caught.value.message == message.format(tmp_path / name)
        assert "--output" in caught.value.hint
    assert contents(tmp_path / "full") == {"thesis.txt": b"all of it"}
    (tmp_path / "empty").mkdir()
    assert make(find_task("Shapes"), "test", tmp_path, tmp_path / "empty", Style(), limit=2) == 2


def test_disk_that_fills_up_is_said_in_one_line_and_the_next_run_begins_again(tmp_path):
    task, output = find_task("Shapes"), tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(WisepatchError) as caught:
            make(task, "test", tmp_path, output, Style(), limit=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.message == f"{output} cannot be written: File too large"
    assert caught.value.hint == "free space there, or name another with --output"
    assert make(task, "test", tmp_path, output, Style(), limit=2) == 2


def test_contact_sheet_that_cannot_be_written_is_said_when_the_images_are_there(tmp_path):
    (tmp_path / "sheet.png").mkdir()
    with pytest.raises(UsageError, match=r"the picture .*sheet.png cannot be written: Is a directory"):
        make(find_task("Shapes"), "test", tmp_path, tmp_path / "out", Style(), limit=2, preview=tmp_path / "sheet.png")
    assert len(rows_of(tmp_path / "out")) == 2


def test_what_an_interrupted_run_leaves_is_refused_by_eval_and_replaced_by_the_next_run(tmp_path, monkeypatch):
    task, output = find_task("Shapes"), tmp_path / "out"
    original, seen = attacks_module._render_one, []

    def interrupted(opened, index):
        seen.append(index)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return original(opened, index)

    monkeypatch.setattr(attacks_module, "_render_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(task, "test", tmp_path, output, Style(seed=8), workers=0, preview=tmp_path / "p.png")
    monkeypatch.undo()
    assert len(list(output.glob("*.png"))) == 3
    assert not (tmp_path / "p.png").exists()
    with pytest.raises(DataError, match="was not written to its end") as caught:
        attacked_folder(output)
    assert "make again" in caught.value.hint
    make(task, "test", tmp_path, output, Style(), limit=2)
    make(task, "test", tmp_path, tmp_path / "other", Style(), limit=2)
    assert contents(output) == contents(tmp_path / "other")
    with pytest.raises(UsageError, match="not empty"):
        make(task, "test", tmp_path, output, Style(), limit=2)


def test_a_folder_that_another_run_writes_into_is_left_alone(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / ".unfinished").write_text("label=a_text=b.png\n")
    (output / "label=a_text=b.png").write_bytes(b"half")
    before = contents(output)
    with locked(output / ".unfinished", keep=True):
        with pytest.raises(UsageError, match="another run is writing into") as caught:
            make(find_task("Shapes"), "test", tmp_path, output, Style(), limit=2)
        assert "--output" in caught.value.hint
        assert contents(output) == before


@pytest.mark.parametrize("owner", [os.getppid(), 1, 999_999_999])
def test_a_process_number_says_nothing_about_a_folder(tmp_path, owner):
    """It may live again in another container; what a marker of 0.1.0 names is removed."""
    output = tmp_path / "out"
    output.mkdir()
    (output / ".unfinished").write_text(f"{owner}\nlabel=a_text=b.png\n")
    (output / "label=a_text=b.png").write_bytes(b"half")
    (output / ".wisepatch-partial-0123abcd").write_bytes(b"half an index")
    assert make(find_task("Shapes"), "test", tmp_path, output, Style(), limit=2) == 2
    assert sorted(path.name for path in output.iterdir()) == sorted(
        ["index.csv", *(r["path"] for r in rows_of(output))]
    )


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "an interrupted run", "a marker without a line"])
def test_of_runs_that_start_together_one_writes_and_the_others_are_refused(tmp_path, left):
    output = tmp_path / "out"
    if left != "nothing":
        output.mkdir()
    if left == "an interrupted run":
        (output / ".unfinished").write_text("999999999\nlabel=a_text=b.png\n")
        (output / "label=a_text=b.png").write_bytes(b"half")
    if left == "a marker without a line":
        (output / ".unfinished").touch()
    together = Barrier(4)

    def start(seed):
        together.wait()
        try:
            return make(find_task("Shapes"), "test", tmp_path, output, Style(seed=seed), limit=12, workers=0)
        except UsageError as error:
            return error.message

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(start, range(4)))
    assert results.count(12) == 1
    refusals = {f"another run is writing into {output}", f"the folder {output} is not empty"}
    assert set(results) - {12} <= refusals
    make(find_task("Shapes"), "test", tmp_path, tmp_path / "alone", Style(seed=results.index(12)), limit=12, workers=0)
    assert contents(output) == contents(tmp_path / "alone")


def test_a_process_that_is_killed_leaves_its_folder_to_the_next(tmp_path):
    hold = "from pathlib import Path; from wisepatch.workflows import typographic_attacks as t; c = t._claimed(Path('out'));"
    fork = "import os, time; c.__enter__(); child = os.fork() or time.sleep(600);"  # as a worker process would live on
    command = [sys.executable, "-c", f"{hold} {fork} print(child, flush=True); input()"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        child = int(other.stdout.readline())
        try:
            with pytest.raises(UsageError, match="another run is writing into"):
                make(find_task("Shapes"), "test", tmp_path, tmp_path / "out", Style(), limit=2)
            other.kill()
            other.wait()
            assert make(find_task("Shapes"), "test", tmp_path, tmp_path / "out", Style(), limit=2) == 2
        finally:
            os.kill(child, signal.SIGKILL)


def test_locks_that_do_not_work_are_an_error_before_any_image(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with pytest.raises(WisepatchError, match="cannot be locked"):
        make(find_task("Shapes"), "test", tmp_path, tmp_path / "out", Style(), limit=2)
    assert list((tmp_path / "out").glob("*.png")) == []


def test_folder_that_cannot_be_written_is_said_from_the_first_write_on(tmp_path):
    for name in ("x" * 300, "file/out"):
        (tmp_path / "file").touch()
        with pytest.raises(WisepatchError, match="cannot be written: ") as caught:
            make(find_task("Shapes"), "test", tmp_path, tmp_path / name, Style(), limit=2)
        assert "--output" in caught.value.hint
    with pytest.raises(DataError, match="there is no folder"):
        find_photos(tmp_path / ("x" * 300))
    with pytest.raises(DataError, match="there is no folder"):
        find_photos(Path("~nouser"))


def test_only_what_an_interrupted_run_wrote_is_removed(tmp_path):
    """Here a photo of one's own lies beside it, in the published convention; a marker can name no file elsewhere."""
    output = tmp_path / "out"
    output.mkdir()
    (tmp_path / "mine.png").write_bytes(b"mine")
    (output / "label=dog_text=cat.png").write_bytes(b"my photo")
    (output / "label=a_text=b.png").write_bytes(b"half")
    (output / ".unfinished").write_text("999999999\nlabel=a_text=b.png\n../mine.png\n")
    with pytest.raises(UsageError, match="is not empty"):
        make(find_task("Shapes"), "test", tmp_path, output, Style(), limit=2)
    assert contents(output) == {"label=dog_text=cat.png": b"my photo"}
    assert (tmp_path / "mine.png").read_bytes() == b"mine"
    with pytest.raises(UsageError, match="is not empty"):
        make(find_task("Shapes"), "test", tmp_path, output, Style(), limit=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_word_that_fits_nowhere_is_named_with_its_image(tmp_path, workers):
    task = find_task(str(draw_folder(tmp_path / "s", classes=("circle", "square"))))
    with pytest.raises(DataError) as caught:
        make(task, "test", tmp_path, tmp_path / "out", Style("Donaudampfschifffahrtsgesellschaft"), workers=workers)
    image = task.dataset.split("test", tmp_path).image_ids()[0]
    assert caught.value.message == (
        f"image {image}: 'Donaudampfschifffahrtsgesellschaft' fits into 64 x 64 pixels at no size from 5 pixels up"
    )
    assert caught.value.hint == "take larger images, or a shorter text"
    assert list(contents(tmp_path / "out")) == [".unfinished"]
    make(task, "test", tmp_path, tmp_path / "out", Style("cat"), workers=workers)


def test_broken_image_is_named(tmp_path, shapes):
    for path in shapes.rglob("*.png"):
        broken_png(path)
    with pytest.raises(DataError, match=r"image .*shapes/.*\.png cannot be read"):
        make(find_task(str(shapes)), "test", tmp_path, tmp_path / "out", Style())

    class Broken(Flat):
        def __getitem__(self, index):
            raise SyntaxError("broken PNG file")

    task = Task("b", Dataset("b", ODD, lambda *_: Broken(ODD), splits=("test",)))
    with pytest.raises(DataError, match=r"b \(test\): image 0 cannot be read: broken PNG file"):
        make(task, "test", tmp_path, tmp_path / "out", Style())


# Measure.


def test_metrics_of_an_attack_by_hand_and_their_sum():
    labels, predicted = np.array([0, 0, 1, 2, 2, 1]), np.array([0, 1, 0, 0, 1, 1])
    annotations = Annotations(written=[1, 1, 2, -1, 1, 1])  # of the last, the writing is right
    found = {
        metric: value
        for name in ("top1", "attack_success", "neither")
        for metric, value in measurements(name, labels, predicted, 3, annotations)
    }
    assert {name: round(6 * value.value) for name, value in found.items()} == {
        "top1": 2, "attack_success": 2, "neither": 2,
    }  # fmt: skip
    assert sum(value.value for value in found.values()) == pytest.approx(1)
    assert {value.n for value in found.values()} == {6}
    assert all(value.low < value.value < value.high for value in found.values())


@pytest.mark.parametrize("name", ["attack_success", "neither"])
def test_metrics_of_an_attack_need_writing(name):
    with pytest.raises(UsageError) as caught:
        list(measurements(name, np.array([0]), np.array([0]), 2))
    assert caught.value.message == f"{name} needs images that are written on, and this task has none"
    assert "typo:NAME" in caught.value.hint


def test_embedded_model_reads_and_is_misled(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 20, "val": 20, "test": 100})
    store, checkpoint = measured
    picture = tmp_path / "worst.png"
    rows = measure([checkpoint], store, tmp_path, task=find_task("Shapes"), style=Style(), picture=picture, run="r")
    found = {(row["task"], row["metric"]): row for row in rows}
    assert list(found) == [
        ("Shapes", "top1"), ("typo:Shapes", "top1"), ("typo:Shapes", "attack_success"), ("typo:Shapes", "neither"),
    ]  # fmt: skip
    assert found["Shapes", "top1"]["value"] > 0.9
    assert found["typo:Shapes", "top1"]["value"] < 0.2
    assert found["typo:Shapes", "attack_success"]["value"] > 0.8
    assert sum(found["typo:Shapes", m]["value"] for m in ("top1", "attack_success", "neither")) == pytest.approx(1)
    assert {row["n"] for row in rows} == {100}
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] and row["run"] == "r" for row in rows)
    kept = [json.loads(line) for line in store.results.read_text().splitlines()]
    assert [(row["task"], row["metric"]) for row in kept[-4:]] == list(found)
    # The same through `evaluate`, which knows typo: as any task.
    again = evaluate([checkpoint], [find_task("typo:Shapes")], store, tmp_path, record=False)
    assert [row["value"] for row in again] == [row["value"] for row in rows[1:]]
    # Ten of the images that mislead most surely, in two rows; what does not fit on a line is wrapped.
    with Image.open(picture) as sheet:
        assert sheet.width == 5 * (CELL + MARGIN) + MARGIN
        assert 0 <= sheet.height - (3 * LINE + 2 * (CELL + 2 * LINE + 2 * MARGIN) + MARGIN) <= 2 * 2 * LINE


def test_worst_cases_are_the_surest_of_each_class_of_those_that_are_misled(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 20, "val": 20, "test": 40})
    store, checkpoint = measured
    found = next(predict_many([checkpoint], [find_task("typo:Shapes")], store, tmp_path))
    shown = []
    monkeypatch.setattr(attacks_module, "contact_sheet", lambda groups: shown.extend(groups))
    draw_worst(found, tmp_path)
    ((title, images),) = shown
    misled = [i for i in range(40) if found.predicted[0, i] == found.annotations.written[i] != found.labels[i]]
    assert title == f"{checkpoint.name}: says what is written on {len(misled)} of 40 images"
    misled.sort(key=lambda i: -found.confidence[0, i])
    labels = found.labels.tolist()
    surest = list(misled)
    misled.sort(key=lambda i: sum(labels[j] == labels[i] for j in surest[: surest.index(i)]))
    assert {labels[i] for i in misled[:10]} == {labels[i] for i in misled}  # one of each class comes first
    opened = found.task.dataset.split("test", tmp_path)
    assert [image.tobytes() for image, _ in images] == [opened[i][0].tobytes() for i in misled[:10]]
    for (_, lines), index in zip(images, misled, strict=False):
        said = opened.classes[found.predicted[0, index]]
        assert lines == (
            f"shows {opened.classes[found.labels[index]]}",
            f"taken for {said}, {100 * found.confidence[0, index]:.0f} % sure",
        )
        assert said == opened.samples.written(index)[2]


def test_made_folder_and_the_task_on_the_fly_measure_the_same(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 20, "val": 20, "test": 60})
    store, checkpoint = measured
    task = find_task("Shapes")
    make(task, "test", tmp_path, tmp_path / "out", Style())
    photos = find_photos(tmp_path / "out", task.dataset.classes, task.dataset.templates)
    made = measure([checkpoint], store, tmp_path, images=photos)
    flying = measure([checkpoint], store, tmp_path, task=task, style=Style())[1:]
    assert [(row["metric"], row["value"], row["n"]) for row in made] == [
        (row["metric"], row["value"], row["n"]) for row in flying
    ]
    assert {row["task"] for row in made} == {"out"}


def test_folder_whose_writing_is_sometimes_right_still_sums_to_one(measured, tmp_path):
    store, checkpoint = measured
    for label in ("circle", "star"):
        for text in ("circle", "star", "heart"):
            Image.new("RGB", (64, 64), "teal").save(tmp_path / f"label={label}_text={text}.png")
    rows = measure([checkpoint], store, tmp_path, images=find_photos(tmp_path))
    assert sum(row["value"] for row in rows) == pytest.approx(1)
    assert {row["n"] for row in rows} == {6}


def test_attacked_images_that_cannot_be_read_are_skipped_where_it_is_asked_for(cli, measured, tmp_path):
    store, checkpoint = measured
    for text in ("circle", "star", "heart"):
        Image.new("RGB", (64, 64), "teal").save(tmp_path / f"label=circle_text={text}.png")
    (tmp_path / "label=star_text=heart.png").write_bytes(b"")
    words = ("typo-attack", "eval", checkpoint.id, "--images", tmp_path, "--store", store.root, "--json")
    assert "it is empty" in cli(*words).stderr
    result = cli(*words, "--on-bad-image", "skip")
    assert {json.loads(line)["n"] for line in result.stdout.splitlines()} == {3}


def test_accuracy_is_measured_whatever_the_metric_of_the_task(measured, tmp_path, shapes):
    from dataclasses import replace

    store, checkpoint = measured
    task = find_task(str(shapes))
    other = replace(task, dataset=replace(task.dataset, metric="macro_f1", extra_metrics=("mean_per_class",)))
    rows = measure([checkpoint], store, tmp_path, task=other)
    assert [row["metric"] for row in rows] == ["top1", "top1", "attack_success", "neither"]
    own = evaluate([checkpoint], [find_task(f"typo:{shapes}")], store, tmp_path, metrics=["macro_f1"], record=False)
    assert [row["metric"] for row in own] == ["macro_f1"]


def test_images_that_are_written_on_are_not_attacked_again(measured, tmp_path):
    store, checkpoint = measured
    Image.new("RGB", (64, 64)).save(tmp_path / "label=circle_text=star.png")
    for spec in (str(tmp_path), "typo:Shapes"):
        with pytest.raises(UsageError, match="are written on already"):
            measure([checkpoint], store, tmp_path, task=find_task(spec))
    with pytest.raises(UsageError, match="are written on already"):
        make(find_task("typo:Shapes"), "test", tmp_path, tmp_path / "out", Style())
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="nothing to attack"):
        measure([checkpoint], store, tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        find_photos(tmp_path / "nowhere")


# Training.


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "SIZES", {"train": 12, "val": 6, "test": 6})


def train(root, spec="typo:Shapes", **settings):
    given = {"steps": 3, "batch_size": 8, "lr": 1e-3, "warmup": 0} | settings
    store = Store(root)
    done = finetune(TrainConfig.with_defaults(spec, **given), DEMO, store, root)
    return load_weights(store, done.finetuned), done


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_training_under_attack_is_reproducible_and_draws_anew_each_epoch(small, tmp_path, monkeypatch):
    first, done = train(tmp_path / "first")
    assert done.finetuned.name == "demo/typo:Shapes/finetuned"
    assert same(first, train(tmp_path / "again")[0])
    monkeypatch.setattr("wisepatch.datasets.training_batches.set_epoch", lambda samples, epoch: None)
    assert not same(first, train(tmp_path / "still")[0])


def test_frozen_encoder_has_one_writing_for_all_epochs(small, tmp_path, monkeypatch):
    from wisepatch.datasets.typography import AttackedSamples

    looked = []
    original = AttackedSamples.written
    monkeypatch.setattr(AttackedSamples, "written", lambda self, i: looked.append((self.epoch, i)) or original(self, i))
    train(tmp_path / "store", freeze_encoder=True, steps=None, epochs=4)
    assert sorted(looked, key=str) == sorted(((None, i) for i in range(12)), key=str)  # features, computed once


def test_alpha_is_chosen_where_the_attack_succeeds_least(small, tmp_path):
    train(tmp_path, steps=30, batch_size=12)
    swept = sweep(Store(tmp_path), tmp_path, alphas=(0, 1), tasks=[], metrics=["attack_success"], rule=Rule())
    misled = {point.alpha: point.patching for point in swept.points["val"]}
    assert misled[1.0] < misled[0.0]
    assert swept.choice.alpha == 1.0


# The command line.


def test_make_and_eval_from_the_command_line(cli, tmp_path, run_store, shapes):
    made = cli("typo-attack", "make", "--task", shapes, "--split", "train", "--output", "out", "--preview", "--seed", 3)
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines()[0] == "wrote 12 attacked images and index.csv to out"
    with Image.open(tmp_path / "out-preview.png") as sheet:
        assert sheet.size == (5 * (CELL + MARGIN) + MARGIN, 3 * LINE + 3 * (CELL + 2 * LINE + 2 * MARGIN) + MARGIN)
    assert {row["seed"] for row in rows_of(tmp_path / "out")} == {"3"}
    found = cli("typo-attack", "eval", "zeroshot", "finetuned", "--images", "out", "--output", "worst.png")
    assert found.exit_code == 0, found.output
    assert "says what is written" in found.stdout
    lines = [line for line in found.stdout.splitlines() if "demo" in line]
    assert len(lines) == 2
    assert all(" - " in line and " 12 " in line for line in lines)  # no clean accuracy
    assert "per cent, with 95 % intervals" in found.stdout
    with Image.open(tmp_path / "worst.png") as sheet:
        assert sheet.width == 5 * (CELL + MARGIN) + MARGIN
    table = cli("typo-attack", "eval", "zeroshot", "--task", shapes, "--quiet")
    assert table.exit_code == 0
    assert table.stderr == ""
    assert " - " not in table.stdout
    assert table.stdout.count(" to ") == 4  # an interval for each of clean, attacked, written and neither


def test_json_of_make_and_eval(cli, tmp_path, run_store, shapes):
    made = cli("typo-attack", "make", "-t", shapes, "-o", "out", "--limit", 2, "--text", "random-word", "--json")
    (record,) = map(json.loads, made.stdout.splitlines())
    assert record == {
        "type": "attack",
        "task": "shapes", "split": "test", "images": 2, "folder": "out", "text": "random-word", "seed": 0, "preview": None,
    }  # fmt: skip
    found = cli("typo-attack", "eval", "zeroshot", "--task", f"{shapes}@train", "--json")
    rows = list(map(json.loads, found.stdout.splitlines()))
    assert [(row["task"], row["split"], row["metric"], row["n"]) for row in rows] == [
        ("shapes", "train", "top1", 12), ("typo:shapes", "train", "top1", 12),
        ("typo:shapes", "train", "attack_success", 12), ("typo:shapes", "train", "neither", 12),
    ]  # fmt: skip
    assert len({row["run"] for row in rows}) == 1
    assert rows[0]["run"].startswith("typo-attack-")


def test_options_of_make_change_what_is_written(cli, tmp_path, shapes):
    from wisepatch.datasets.fonts import font

    names = tmp_path / "names.txt"
    names.write_text("disc\nbox\nwedge\n")
    common = ("typo-attack", "make", "--task", shapes, "--quiet")
    own = ("--font", font("DejaVuSans", 12).path, "--size", "0.3")
    for name, words in (("a", ()), ("b", own), ("c", ("--text", "Hello, you")), ("d", ("--classnames", names))):
        result = cli(*common, "--output", name, *words)
        assert result.exit_code == 0, result.output
    made = {name: rows_of(tmp_path / name) for name in "abcd"}
    assert [row["text"] for row in made["a"]] == [row["text"] for row in made["b"]]
    assert {row["text"] for row in made["c"]} == {"Hello, you"}
    assert {row["text"] for row in made["d"]} | {row["label"] for row in made["d"]} == {"disc", "box", "wedge"}
    assert contents(tmp_path / "a") != contents(tmp_path / "b")


def test_output_may_be_the_empty_folder_one_is_in(cli, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = cli("typo-attack", "make", "--task", "Shapes", "--output", ".", "--limit", "2", "--preview")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here-preview.png").is_file()
    assert "index.csv" in contents(tmp_path / "here")


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (("make",), 2, "nothing to attack", "--task"),
        (("make", "--task", "Shpes"), 2, "unknown task 'Shpes'; did you mean Shapes", "wisepatch datasets"),
        (("make", "--task", "typo:Shapes"), 2, "typo:Shapes are written on already", "leave typo: out"),
        (("make", "--task", "Shapes", "--size", "big"), 2, "the size 'big' is not understood", "LOW:HIGH"),
        (("make", "--task", "Shapes", "--size", "0.5:0.1"), 2, "letters of 0.5 to 0.1", "0.1:0.3"),
        (("make", "--task", "Shapes", "--text", ""), 2, "there is no text to write", "random-word"),
        (("make", "--task", "Shapes", "--font", "no.ttf"), 2, "the font no.ttf cannot be used: it does not exist", ".ttf"),
        (("make", "--task", "Shapes", "--font", "full/note"), 2, "it is no font that FreeType draws", ".otf"),
        (("make", "--task", "Shapes", "--output", "full"), 2, "the folder full is not empty", "--output"),
        (("make", "--task", "Shapes", "--output", "full/note/out"), 1, "full/note/out cannot be written: Not a", "--output"),
        (("make", "--task", "Shapes", "--text", "🐈"), 1, "no font here has all characters of '🐈'", "--font FILE"),
        (("make", "--task", "Shapes", "--split", "dev"), 1, "task 'typo:Shapes' has no 'dev' split", "train, val, test"),
        (("make", "--task", "Shapes", "--text", "W" * 90), 1, "fits into 64 x 64 pixels at no size", "shorter"),
        (("eval", "zeroshot"), 2, "give either --task or --images", "on the fly"),
        (("eval", "zeroshot", "--task", "Shapes", "--images", "full"), 2, "give either --task or --images", ""),
        (("eval", "zeroshot", "--task", "Shapes", "--output", "x.pdf"), 2, "cannot draw '.pdf' (x.pdf)", ".png"),
        (("eval", "nothing", "--task", "Shapes"), 2, "nothing", "store list"),
        (("eval", "zeroshot", "--images", "nowhere"), 1, "there is no folder nowhere", "label=dog_text=cat.png"),
        (("eval", "zeroshot", "--images", "full"), 1, "full holds no images", "label=dog_text=cat.png"),
        (("eval", "zeroshot", "--images", "plain"), 1, "1 of 1 images in", "rename or remove"),
        (("eval", "zeroshot", "--images", "named", "--split", "val"), 1, "has no 'val' split", "test"),
        (("eval", "zeroshot", "--images", "named", "--classnames", "full/note"), 2, "1 labels of", "file of class names"),
    ],
)  # fmt: skip
def test_every_mistake_has_its_message(cli, tmp_path, run_store, words, code, message, hint):
    for name in ("full", "plain", "named"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "note").write_text("star\n")
    for path in ("plain/IMG_1.png", "named/label=heart_text=star.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / path)
    fails(cli("typo-attack", *words), code, message, hint)
    assert not (tmp_path / "attacked" / "index.csv").exists()
    assert not run_store.results.exists()  # no row is left by halves


def test_without_a_subcommand_there_is_help(cli):
    result = cli("typo-attack")
    assert "make" in result.output
    assert "eval" in result.output
    assert "Traceback" not in result.output
    for word in ("make", "eval"):
        text = cli("typo-attack", word, "--help")
        assert text.exit_code == 0
        assert f"wisepatch typo-attack {word}" in text.stdout.split("Example")[1]
