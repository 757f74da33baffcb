"""Tests of the installed plugin, on small files with the columns and the folders of WILDS' archives."""

import csv
import json
import random
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

import wisepatch as wp
from wisepatch.analysis.metrics import measurements
from wisepatch.errors import DataError

DEMO = wp.ModelConfig("demo", "")
BENCHMARKS = Path(__file__).parents[3] / "tests" / "data" / "benchmarks.json"
FMOW_COLUMNS = (
    "split", "img_filename", "img_path", "spatial_reference", "epsg", "category", "visible", "img_width", "img_height",
    "country_code", "cloud_cover", "timestamp", "lat", "lon",
)  # fmt: skip
COUNTRIES = (
    ("Kenya", "KEN", "Africa"), ("Brazil", "BRA", "Americas"), ("Japan", "JPN", "Asia"), ("Åland Islands", "ALA", "Europe"),
    ("Fiji", "FJI", "Oceania"), ("Antarctica", "ATA", ""),
)  # fmt: skip
EDGES = ("2002-06-01T00:00:00Z", "2012-12-31T23:59:59Z", "2013-01-01T00:00:00Z", "2015-12-31T23:59:59.999Z",
         "2016-01-01T00:00:00Z", "2017-08-09T10:11:12Z")  # fmt: skip
IWILDCAM_SIZES = {"train": 12, "id_val": 3, "id_test": 4, "val": 5, "test": 6}


def write_csv(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_fmow(data, rows=None):
    """Every split, edge of the time ranges and kind of country, twice each and shuffled; the colour of image i says i."""
    if rows is None:
        codes = [code for _, code, _ in COUNTRIES if code != "ATA"] + ["XKX"]  # Kosovo has no ISO code
        rows = [(s, t, c) for s in ("train", "val", "test", "seq") for t in EDGES for c in codes] * 2
        random.Random(0).shuffle(rows)
    categories = wp.find_task("FMoW").dataset.classes
    names = [categories[i * 7 % 62].replace(" ", "_") for i in range(len(rows))]
    lines = [
        (split, f"{name}_1_1_rgb.jpg", "x", "[]", 32637, name, True, 500, 400, code, 3, time, 1.5, 2.5)
        for (split, time, code), name in zip(rows, names, strict=True)
    ]
    write_csv(data / "fmow_v1.1/rgb_metadata.csv", FMOW_COLUMNS, lines)
    mapping = [(name, code[:2], code, region, "a sub-region") for name, code, region in COUNTRIES]
    columns = ("name", "alpha-2", "alpha-3", "region", "sub-region")
    write_csv(data / "fmow_v1.1/country_code_mapping.csv", columns, mapping)
    (data / "fmow_v1.1/images").mkdir()
    for i in range(len(rows)):
        Image.new("RGB", (4, 4), (i % 256, i // 256, 9)).save(data / f"fmow_v1.1/images/rgb_img_{i}.png")
    return rows, names


def write_iwildcam(data):
    lines, number = [], 0
    for split, size in IWILDCAM_SIZES.items():
        for _ in range(size):
            lines.append((split, f"2013-06-05 05:{number:02d}:00.000", f"8b31d3be-{number}.jpg", number * 37 % 182))
            number += 1
    random.Random(0).shuffle(lines)
    columns = ("", "split", "datetime", "filename", "image_id", "y", "location_remapped", "sequence_remapped")
    rows = [(i, s, when, name, name[:-4], y, i % 4, i) for i, (s, when, name, y) in enumerate(lines)]
    write_csv(data / "iwildcam_v2.0/metadata.csv", columns, rows)
    (data / "iwildcam_v2.0/train").mkdir()
    for i, (_, _, name, _) in enumerate(lines):
        Image.new("RGB", (8, 6), (8 * i, 0, 0)).save(data / "iwildcam_v2.0/train" / name, quality=100)
    return lines


@pytest.fixture(scope="module")
def fmow(tmp_path_factory):
    data = tmp_path_factory.mktemp("fmow")
    return data, *write_fmow(data)


@pytest.fixture(scope="module")
def iwildcam(tmp_path_factory):
    data = tmp_path_factory.mktemp("iwildcam")
    return data, write_iwildcam(data)


def wilds_split(split, timestamp):
    """The masks of FMoWDataset's official scheme, one row at a time."""
    time = datetime.fromisoformat(timestamp)
    test_ood = time >= datetime(2016, 1, 1, tzinfo=UTC)
    val_ood = time >= datetime(2013, 1, 1, tzinfo=UTC) and not test_ood
    if split in ("test", "val") and (test_ood if split == "test" else val_ood):
        return split
    if split in ("train", "val", "test") and not (test_ood or val_ood):
        return "train" if split == "train" else f"id_{split}"
    return None


def test_entry_point_is_installed():
    assert "wilds" in entry_points(group="wisepatch").names


def test_listing_loads_no_heavy_library():
    code = """
        import sys, wisepatch_wilds
        assert len(wisepatch_wilds.register_datasets()) == 4
        print([m for m in ("torch", "pandas", "numpy", "PIL") if m in sys.modules])
    """
    code = "\n".join(line.strip() for line in code.strip().splitlines())
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(("name", "size"), [("FMoW", 62), ("iWildCam", 182)])
def test_classes_and_prompts_are_the_benchmarks(name, size):
    benchmarks = json.loads(BENCHMARKS.read_text(encoding="utf-8"))
    for task in (name, f"{name}OOD", f"{name}ID"):
        dataset = wp.find_task(task).dataset
        assert list(dataset.classes) == benchmarks["classes"][name]
        assert sorted(dataset.templates) == sorted(benchmarks["templates"][name])
        assert len(dataset.classes) == size
        assert set(dataset.counts) == set(dataset.splits)
    assert wp.find_task(f"{name}ID").dataset.name == name


@pytest.mark.parametrize(
    ("task", "split", "wilds"),
    [("FMoW", "train", "train"), ("FMoW", "val", "id_val"), ("FMoW", "test", "id_test"),
     ("FMoWOOD", "val", "val"), ("FMoWOOD", "test", "test")],
)  # fmt: skip
def test_fmow_splits_are_those_of_wilds(fmow, task, split, wilds):
    data, rows, names = fmow
    wanted = [i for i, (word, time, _) in enumerate(rows) if wilds_split(word, time) == wilds]
    opened = wp.find_task(task).dataset.split(split, data)
    assert len(opened) == len(wanted) == 24
    categories = sorted(name.replace(" ", "_") for name in opened.classes)
    regions = {code: region for _, code, region in COUNTRIES}
    for position, row in enumerate(wanted):
        image, label = opened[position]
        assert image.getpixel((0, 0)) == (row % 256, row // 256, 9)  # the file of that row, sequestered rows counted
        assert label == opened.samples.labels[position] == categories.index(names[row])
        group = opened.annotations.groups[position]
        assert regions.get(rows[row][2]) == (opened.annotations.group_names[group] if group >= 0 else None)


def test_out_of_distribution_tasks_have_no_training_images():
    for name in ("FMoWOOD", "iWildCamOOD"):
        with pytest.raises(DataError, match="no 'train' split"):
            wp.find_task(name).dataset.split("train", Path("nowhere"))


def test_worst_region_leaves_other_and_absent_regions_out(tmp_path):
    """Asia 2 of 3 right, Europe 1 of 2, Kosovo and the Antarctic (WILDS: "Other") 0 of 2; no image of another region."""
    time = "2016-05-05T00:00:00Z"
    write_fmow(tmp_path, [("test", time, code) for code in ("JPN", "JPN", "JPN", "ALA", "ALA", "XKX", "ATA")])
    opened = wp.find_task("FMoWOOD").dataset.split("test", tmp_path)
    assert opened.annotations.groups[-2:] == [-1, -1]
    labels = np.array(opened.samples.labels)
    predicted = np.where([True, True, False, True, False, False, False], labels, (labels + 1) % 62)
    found = dict(measurements("worst_group", labels, predicted, 62, opened.annotations))
    assert {name: (m.value, m.n) for name, m in found.items()} == {
        "worst_group": (0.5, 2),
        "top1[Asia]": (pytest.approx(2 / 3), 3),
        "top1[Europe]": (0.5, 2),
    }


@pytest.mark.parametrize(
    ("task", "split", "wilds"),
    [("iWildCam", "train", "train"), ("iWildCam", "val", "id_val"), ("iWildCam", "test", "id_test"),
     ("iWildCamOOD", "val", "val"), ("iWildCamOOD", "test", "test")],
)  # fmt: skip
def test_iwildcam_splits_are_those_of_the_metadata(iwildcam, task, split, wilds):
    data, lines = iwildcam
    wanted = [(i, y) for i, (word, _, _, y) in enumerate(lines) if word == wilds]
    opened = wp.find_task(task).dataset.split(split, data)
    assert len(opened) == len(wanted) == IWILDCAM_SIZES[wilds]
    assert opened.samples.labels == [y for _, y in wanted]
    reds = [opened[position][0].getpixel((0, 0))[0] for position in range(len(opened))]
    assert reds == pytest.approx([8 * i for i, _ in wanted], abs=3)  # JPEG rounds


def test_f1_is_scikit_learns_over_the_labels_that_occur():
    metric = wp.find_task("iWildCamOOD").dataset.metric
    rng = np.random.default_rng(0)
    for classes, n in ((182, 300), (5, 4), (182, 1)):
        labels, predicted = rng.integers(0, classes, n), rng.integers(0, classes, n)
        predicted[::2] = labels[::2]
        ((name, found),) = measurements(metric, labels, predicted, classes)
        wanted = f1_score(labels, predicted, average="macro", labels=np.unique(labels), zero_division=0)
        assert (name, found.n) == ("macro_f1_present", n)
        assert found.value == pytest.approx(wanted)


def test_fine_tuned_on_one_and_evaluated_on_the_shift(fmow, tmp_path):
    """The head travels too: end-to-end fine-tuning on FMoW, then both tasks are measured with its classifier."""
    data, *_ = fmow
    store = wp.Store(tmp_path / "store")
    config = wp.TrainConfig.with_defaults("FMoW", head="trained", steps=2, batch_size=8, warmup=0)
    wp.finetune(config, DEMO, store, data)
    rows = wp.evaluate([store.find("finetuned")], wp.find_tasks(["FMoW", "FMoWOOD"]), store, data)
    assert [row["metric"] for row in rows] == 2 * [
        "top1", "worst_group", "top1[Africa]", "top1[Americas]", "top1[Asia]", "top1[Europe]", "top1[Oceania]",
    ]  # fmt: skip
    assert [row["task"] for row in rows] == 7 * ["FMoW"] + 7 * ["FMoWOOD"]
    assert [row["n"] for row in rows] == 2 * [24, *6 * [4]]  # 20 images have a region
    for part in (rows[:7], rows[7:]):
        assert part[1]["value"] == min(row["value"] for row in part[2:])


def test_iwildcam_is_evaluated_with_f1_first(iwildcam, tmp_path):
    data, _ = iwildcam
    store = wp.Store(tmp_path / "store")
    tasks = wp.find_tasks(["iWildCam", "iWildCamOOD"])
    _, rows = wp.zeroshot(DEMO, tasks, store, data)
    assert [(row["task"], row["metric"], row["n"]) for row in rows] == [
        ("iWildCam", "macro_f1_present", 4), ("iWildCam", "top1", 4),
        ("iWildCamOOD", "macro_f1_present", 6), ("iWildCamOOD", "top1", 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "gone"),
    [("FMoW", "fmow_v1.1/rgb_metadata.csv"), ("FMoWOOD", "fmow_v1.1/country_code_mapping.csv"),
     ("iWildCam", "iwildcam_v2.0/metadata.csv")],
)  # fmt: skip
def test_missing_files_say_where_to_get_them(tmp_path, task, gone):
    (write_fmow if "FMoW" in task else write_iwildcam)(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(DataError, match=rf"{task} is not below .*there is no .*{gone}") as caught:
        wp.find_task(task).dataset.split("test", tmp_path)
    assert "https://wilds.stanford.edu/downloads" in caught.value.hint
    assert "worksheets.codalab.org/rest/bundles/0x" in caught.value.hint
    assert gone.split("/")[0] in caught.value.hint


def test_layouts_find_what_is_whole(fmow, iwildcam, tmp_path):
    for name, data in (
        ("FMoW", fmow[0]),
        ("FMoWOOD", fmow[0]),
        ("iWildCam", iwildcam[0]),
        ("iWildCamOOD", iwildcam[0]),
    ):
        dataset = wp.find_task(name).dataset
        assert dataset.find(data) == dataset.layouts[0]
        assert dataset.find(tmp_path) is None


@pytest.mark.parametrize(
    ("task", "path", "old", "new", "message"),
    [
        ("FMoW", "fmow_v1.1/rgb_metadata.csv", ",timestamp,", ",time,", "has no column timestamp"),
        ("FMoW", "fmow_v1.1/country_code_mapping.csv", "alpha-3,region", "a3,r", "no column alpha-3 and no column region"),
        ("FMoW", "fmow_v1.1/rgb_metadata.csv", ",zoo,", ",zoos,", "category 'zoos' is none"),
        ("FMoW", "fmow_v1.1/rgb_metadata.csv", "\r\nseq,", "\r\nsequel,", r"row \d+: split 'sequel' is none"),
        ("FMoW", "fmow_v1.1/rgb_metadata.csv", "2002-06-01T00:00:00Z", "soon", "timestamp 'soon' is no date"),
        ("FMoW", "fmow_v1.1/rgb_metadata.csv", "2002-06-01T00:00:00Z", "", "timestamp '' is no date"),
        ("FMoW", "fmow_v1.1/country_code_mapping.csv", ",Asia,", ",Azia,", "row 3: region 'Azia' is none"),
        ("iWildCam", "iwildcam_v2.0/metadata.csv", "filename,", "file_name,", "has no column filename"),
        ("iWildCam", "iwildcam_v2.0/metadata.csv", ",y,", ",label,", "has no column y"),
        ("iWildCam", "iwildcam_v2.0/metadata.csv", ",id_test,", ",cis_test,", "split 'cis_test' is none"),
        ("iWildCam", "iwildcam_v2.0/metadata.csv", ",37,", ",182,", "y '182' is none"),
        ("iWildCam", "iwildcam_v2.0/metadata.csv", ",37,", ",x,", "y 'x' is none"),
    ],
)  # fmt: skip
def test_broken_metadata_is_named(tmp_path, task, path, old, new, message):
    (write_fmow if task == "FMoW" else write_iwildcam)(tmp_path)
    text = (tmp_path / path).read_bytes().decode()
    assert old in text
    (tmp_path / path).write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(DataError, match=message) as caught:
        wp.find_task(task).dataset.split("test", tmp_path)
    assert str(tmp_path / path) in caught.value.message
    assert "worksheets.codalab.org" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"split,y\n\xff\xfe,1\n", b'split,y\n"open,1\n'])
def test_file_that_is_no_table_is_named(tmp_path, content):
    write_iwildcam(tmp_path)
    (tmp_path / "iwildcam_v2.0/metadata.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"iwildcam_v2\.0/metadata\.csv"):
        wp.find_task("iWildCam").dataset.split("test", tmp_path)


def test_missing_images_are_counted(tmp_path):
    lines = write_iwildcam(tmp_path)
    lost = [name for split, _, name, _ in lines if split == "id_test"][1:3]
    for name in lost:
        (tmp_path / "iwildcam_v2.0/train" / name).unlink()
    with pytest.raises(DataError, match=rf"iWildCam \(test\): 2 of 4 images are not in .*, the first {lost[0]}"):
        wp.find_task("iWildCam").dataset.split("test", tmp_path)
    assert len(wp.find_task("iWildCam").dataset.split("val", tmp_path)) == 3
