"""Tests of the installed plugin, on sets that the datasets library itself has written."""

import io
import json
import os
import pickle
import time
from importlib.metadata import entry_points

import datasets
import numpy as np
import pytest
import wisepatch_huggingface as plugin
from PIL import Image

import wisepatch as wp
from wisepatch.testing import check_plugin, refused_network

UNREACHABLE = plugin.unreachable  # the fixture below puts another in its place
NAMES = ["red_square", "blue_square"]


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    """An empty cache of the datasets library, and a Hub that cannot be reached."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(plugin, "unreachable", lambda source: "ConnectError: Name or service not known")


def encoded(label, index, mode="RGB"):
    image = Image.new("RGB", (16, 16), ((200, index, 0), (0, index, 200))[label]).convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(size=20, images=("image",), labels=("label",), mode="RGB", **columns):
    """A table of the datasets library; image i has the label i % 2."""
    which = [index % 2 for index in range(size)]
    values = {name: [encoded(label, i, mode) for i, label in enumerate(which)] for name in images}
    values |= dict.fromkeys(labels, which) | columns
    features = dict.fromkeys(images, datasets.Image()) | dict.fromkeys(labels, datasets.ClassLabel(names=NAMES))
    features |= {name: datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(values, datasets.Features(features))


def save(path, **splits):
    datasets.DatasetDict(splits).save_to_disk(path)
    return f"hf:{path}"


def sizes(name, root):
    dataset = wp.find_task(name).dataset
    return {split: len(dataset.split(split, root)) for split in dataset.available_splits}


def fails(function, *arguments, message, hint):
    with pytest.raises(wp.WisepatchError, match=message) as caught:
        function(*arguments)
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_entry_point_is_installed():
    assert "huggingface" in entry_points(group="wisepatch").names


def test_saved_set_is_a_task(tmp_path):
    name = save(tmp_path / "set", train=table(40), test=table(10, mode="L"))
    dataset = wp.find_task(f"{name}@test").dataset
    assert (dataset.name, dataset.classes, dataset.available_splits) == (
        name, ("red square", "blue square"), ("train", "val", "test"),
    )  # fmt: skip
    assert dataset.counts == {"train": 40, "test": 10}
    assert sizes(name, tmp_path) == {"train": 36, "val": 4, "test": 10}
    opened = dataset.split("test", tmp_path)
    assert [opened[index][1] for index in range(10)] == opened.samples.labels == [0, 1] * 5
    assert (opened[0][0].mode, opened[0][0].size) == ("RGB", (16, 16))
    assert dataset.split("train", tmp_path)[0][0].getpixel((0, 0)) != (0, 0, 0)
    assert opened.fingerprint() == dataset.split("test", tmp_path).fingerprint()
    assert opened.fingerprint() != dataset.split("train", tmp_path).fingerprint()


def test_contract_is_kept(tmp_path):
    name = save(tmp_path / "set", train=table(30), validation=table(6), test=table(10))
    assert [dataset.name for dataset in check_plugin("wisepatch-huggingface", tmp_path, [name])] == [name]


@pytest.mark.parametrize(
    ("splits", "query", "expected"),
    [
        ({"train": 20, "validation": 6, "test": 8}, "", {"train": 20, "val": 6, "test": 8}),
        ({"train": 20, "dev": 6, "test": 8}, "", {"train": 20, "val": 6, "test": 8}),
        ({"train": 20, "valid": 6}, "", {"train": 18, "val": 2, "test": 6}),
        ({"train": 20}, "", {"train": 15, "val": 1, "test": 4}),
        ({"corrupted": 20}, "", {"train": 15, "val": 1, "test": 4}),
        ({"test": 8}, "", {"test": 8}),
        ({"train": 20, "validation": 6, "test": 8}, "?test=validation", {"train": 18, "val": 2, "test": 6}),
        ({"train": 20, "hard": 6, "test": 8}, "?test=hard", {"train": 18, "val": 2, "test": 6}),
        ({"train": 20, "hard": 6, "test": 8}, "", {"train": 18, "val": 2, "test": 8, "hard": 6}),
        ({"train": 20, "hard": 6}, "", {"train": 15, "val": 1, "test": 4, "hard": 6}),
        ({"clean": 20, "hard": 6}, "?train=clean&test=hard", {"train": 18, "val": 2, "test": 6}),
    ],
)
def test_splits_are_mapped_and_missing_ones_are_cut(tmp_path, splits, query, expected):
    name = save(tmp_path / "set", **{split: table(size) for split, size in splits.items()})
    assert sizes(name + query, tmp_path) == expected


def test_held_out_images_are_in_no_other_split_and_always_the_same(tmp_path):
    dataset = wp.find_task(save(tmp_path / "set", train=table(40))).dataset
    seen = {
        split: [dataset.split(split, tmp_path)[i][0].tobytes() for i in range(len(dataset.split(split, tmp_path)))]
        for split in dataset.available_splits
    }
    assert len({image for images in seen.values() for image in images}) == 40
    assert seen["test"] == [dataset.split("test", tmp_path)[i][0].tobytes() for i in range(8)]
    samples = pickle.loads(pickle.dumps(dataset.split("test", tmp_path).samples))
    assert samples.labels == [samples[index][1] for index in range(8)]


@pytest.mark.parametrize(("split", "offered"), [(None, ("train", "val", "test")), ("test", ("test",))])
def test_table_saved_alone(tmp_path, split, offered):
    alone = table()
    datasets.Dataset(alone.data, split=split and datasets.NamedSplit(split)).save_to_disk(tmp_path / "set")
    assert wp.find_task(f"hf:{tmp_path / 'set'}").dataset.available_splits == offered


@pytest.mark.parametrize("where", ["hf:./set", "hf:~/set"])
def test_paths_from_here_and_from_home(tmp_path, monkeypatch, where):
    save(tmp_path / "set", train=table(), test=table())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wp.find_task(where).dataset.name == where


def test_columns_are_chosen_where_there_are_several(tmp_path):
    several = table(images=("photo", "mask"), labels=("coarse", "fine"))
    name = save(tmp_path / "set", train=several, test=several)
    fails(wp.find_task, name, message=r"2 columns of type Image; its columns are photo \(Image\), mask", hint="?image=")
    fails(
        wp.find_task, f"{name}?image=photo",
        message=r"2 columns of type ClassLabel; its columns are .* fine \(ClassLabel\)", hint="?label=coarse or fine",
    )  # fmt: skip
    fails(wp.find_task, f"{name}?image=fine", message="'fine' is no column of type Image", hint="photo or mask")
    dataset = wp.find_task(f"{name}?image=photo&label=fine").dataset
    assert dataset.split("test", tmp_path)[1][1] == 1


def test_set_that_is_no_image_classification_lists_its_columns(tmp_path):
    name = save(tmp_path / "set", train=table(labels=(), text=["a"] * 20))
    fails(wp.find_task, name, message=r"no columns of type ClassLabel; .* text \(Value\)", hint="needs a ClassLabel")


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("hf:/no/such/folder", "there is no folder /no/such/folder", "save_to_disk"),
        ("hf:", "names no dataset", "hf:owner/name"),
        ("hf:a/b/c", "names no dataset", "hf:./path"),
        ("hf:owner/name?columns=3", "'columns' is nothing to choose", "image, label, train, val, test"),
        ("hf:owner/name?fine", "'fine' is nothing to choose", "image, label"),
        ("hf:owner/name", "hf:owner/name cannot be looked up: ConnectError: Name or service", "datasets/owner/name"),
    ],
)
def test_names_that_lead_nowhere(spec, message, hint):
    fails(wp.find_task, spec, message=message, hint=hint)


def test_hub_that_does_not_answer_is_named_within_seconds(monkeypatch):
    monkeypatch.setattr(plugin, "unreachable", UNREACHABLE)
    begun = time.monotonic()
    with refused_network():
        fails(wp.find_task, "hf:owner/name", message="cannot be looked up: [A-Z][A-Za-z]+: ", hint="check the name")
    assert time.monotonic() - begun < 60  # on a busy machine; not the minutes of all that the library would try again


def test_unknown_splits_are_listed(tmp_path):
    name = save(tmp_path / "set", clean=table(), hard=table())
    fails(wp.find_task, name, message=r"none of its splits \(clean, hard\)", hint="?train=NAME&test=NAME")
    fails(wp.find_task, f"{name}?test=soft", message="no split 'soft' for test", hint="clean, hard")


def test_withheld_labels_are_an_error(tmp_path):
    hidden = table(6).remove_columns("label").add_column("label", [-1] * 6, feature=datasets.ClassLabel(names=NAMES))
    dataset = wp.find_task(save(tmp_path / "set", train=table(), test=hidden)).dataset
    fails(dataset.split, "test", tmp_path, message="6 of the 6 images of test have no label", hint="?test=validation")


@pytest.mark.parametrize("broken", [b"no image", encoded(0, 0)["bytes"][:40], None])
def test_image_that_cannot_be_decoded_is_named(tmp_path, broken):
    values = {"image": [encoded(0, 0), broken and {"bytes": broken, "path": None}], "label": [0, 1]}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    name = save(tmp_path / "set", test=datasets.Dataset.from_dict(values, features))
    opened = wp.find_task(name).dataset.split("test", tmp_path)
    assert opened[0][1] == 0
    fails(lambda: opened[1], message=r"\(test\): image 1 cannot be read", hint="Dataset.filter")


def test_deep_images_are_scaled_or_refused():
    deep = Image.fromarray(np.full((2, 2), 51400, np.uint16))
    assert plugin.rgb(deep).getpixel((0, 0)) == (200, 200, 200)
    with pytest.raises(ValueError, match="mode 'F', whose range is unknown"):
        plugin.rgb(Image.new("F", (2, 2)))


def test_undecoded_column_is_decoded(tmp_path):
    raw = table().cast_column("image", datasets.Image(decode=False))
    opened = wp.find_task(save(tmp_path / "set", train=raw)).dataset.split("test", tmp_path)
    assert opened[0][0].mode == "RGB"


def test_damaged_folder_is_named(tmp_path):
    name = save(tmp_path / "set", train=table())
    (tmp_path / "set" / "dataset_dict.json").write_text("{")
    fails(wp.find_task, name, message="cannot be read: JSONDecodeError", hint="save it again")


def clone(path, **configs):
    """A folder as a clone from the Hub: parquet files, and a README that names configurations."""
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, size in splits.items():
            (path / config).mkdir(parents=True, exist_ok=True)
            table(size).to_parquet(path / config / f"{split}.parquet")
            lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (path / "README.md").write_text("\n".join([*lines, "---", ""]))
    return path


def test_clone_from_the_hub_with_configurations(tmp_path):
    path = clone(tmp_path / "clone", small={"train": 10, "test": 4}, large={"train": 20, "test": 6})
    assert sizes(f"hf:{path}:large", tmp_path) == {"train": 18, "val": 2, "test": 6}
    assert (tmp_path / "huggingface").is_dir()
    fails(wp.find_task, f"hf:{path}", message="it has several configurations", hint="small, large")
    fails(wp.find_task, f"hf:{path}:medium", message="no such configuration", hint="small, large")


def test_folder_that_holds_no_dataset(tmp_path):
    (tmp_path / "empty").mkdir()
    fails(wp.find_task, f"hf:{tmp_path / 'empty'}", message="cannot be looked up: ", hint="save_to_disk")


def test_set_of_the_hub_is_remembered_for_the_time_without_a_network(tmp_path, monkeypatch):
    path = str(clone(tmp_path / "clone", default={"train": 10, "test": 4}))
    build, load = datasets.load_dataset_builder, datasets.load_dataset
    monkeypatch.setattr(plugin, "unreachable", lambda source: "")
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name, config: build(path, config))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, **rest: load(path, config, **rest))
    assert sizes("hf:owner/name", tmp_path) == {"train": 9, "val": 1, "test": 4}
    dataset = wp.find_task("hf:owner/name").dataset

    asked = []

    def offline(name, config, **rest):
        asked.append(datasets.config.HF_HUB_OFFLINE)
        return load(path, config, **rest)

    before = datasets.config.HF_HUB_OFFLINE
    monkeypatch.setattr(plugin, "unreachable", lambda source: "ConnectError: no route to host")
    monkeypatch.setattr(datasets, "load_dataset", offline)
    again = wp.find_task("hf:owner/name").dataset
    assert (again.classes, again.source) == (dataset.classes, "https://huggingface.co/datasets/owner/name")
    assert len(again.split("test", tmp_path)) == 4
    assert (asked, datasets.config.HF_HUB_OFFLINE) == ([True], before)


def test_what_was_never_downloaded_says_so(tmp_path, monkeypatch):
    source = plugin.parse("hf:owner/name")
    known = plugin.Description({}, ["image"], {"label": NAMES}, {"test": None})
    monkeypatch.setattr(plugin, "describe", lambda asked: known if asked == source else None)
    dataset = wp.find_task("hf:owner/name").dataset
    fails(
        dataset.split, "test", tmp_path, message="is not below .*huggingface and could not be loaded", hint="hf:./path"
    )


def test_zeroshot_from_the_command_line(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from wisepatch.cli.app import app

    name = save(tmp_path / "set", train=table(), test=table(10))
    monkeypatch.chdir(tmp_path)
    words = ["zeroshot", "--model", "demo", "--task", name, "--data", str(tmp_path), "--workers", "1", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (row["task"], row["n"], row["split"], row["metric"]) == (name, 10, "test", "top1")
    assert os.listdir(tmp_path / "wisepatch-store" / "checkpoints")  # noqa: PTH208
