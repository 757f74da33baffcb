"""Preflight: all that is wrong with a command is said at once, before anything is trained or measured."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.samples import Notes, draw_folder, fails
from wisepatch import DataError, ModelConfig, Rule, Store, TrainConfig, find_task, patch, preflight
from wisepatch.datasets.base import Dataset
from wisepatch.errors import UsageError
from wisepatch.workflows.patching import finetune_watched
from wisepatch.workflows.preflight import PreflightError

DEMO = ModelConfig("demo", "")
FEW_STEPS = ("--steps", "2", "--batch-size", "8")


@pytest.fixture
def untold(tmp_path):
    """A task with test images and no others, as the shifts of ImageNet are."""
    return draw_folder(tmp_path / "untold" / "test", classes=("circle", "star")).parent


@pytest.fixture
def no_work(monkeypatch):
    """Nothing is loaded, trained or measured."""
    for name in ("patching.load_clip", "patching.evaluate", "patch_job.finetune", "patch_job.run_sweep"):
        monkeypatch.setattr(f"wisepatch.workflows.{name}", lambda *_, **__: pytest.fail("work was done"))
    monkeypatch.setattr("wisepatch.workflows.run.evaluate", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr("wisepatch.evaluation.measurement.evaluate", lambda *_, **__: pytest.fail("measured"))


def test_one_problem_is_raised_as_it_is(data):
    with pytest.raises(DataError, match="ImageNetA is not below") as caught:
        preflight([(find_task("ImageNetA"), ["test"])], data)
    assert not isinstance(caught.value, PreflightError)


def test_several_problems_are_raised_together_with_their_next_steps(data):
    tasks = [(find_task("ImageNetA"), ["test", "val"]), (find_task("Colors"), ["test"])]
    with pytest.raises(PreflightError) as caught:
        preflight(tasks, data, ["worst_group"], [UsageError("first", "mend it")])
    assert [problem.message.partition(" below")[0] for problem in caught.value.problems] == [
        "first",
        "ImageNetA is not",
        "task 'ImageNetA' has no 'val' split",
        "Colors (test): worst_group needs groups of images, and this task has none",
    ]
    assert caught.value.message.startswith("4 things are wrong:\n  first (mend it)\n  ImageNetA is not below")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("whole", [True, False])
def test_a_broken_image_that_is_measured_after_a_training_is_said_before_it(
    whole, cli, shapes, tmp_path, no_work, monkeypatch
):
    monkeypatch.setattr("wisepatch.datasets.image_files.MOST_DECODED_BYTES", 1 << 20 if whole else 1)
    images = find_task(str(shapes)).dataset.split("test", tmp_path).image_ids()
    Image.effect_noise((64, 64), 50).save(images[0])
    Path(images[0]).write_bytes(Path(images[0]).read_bytes()[:1000])
    Path(images[1]).write_text("no image")
    failed = cli("patch", "--task", shapes, "--model", "demo", *FEW_STEPS)
    assert failed.exit_code == 1
    assert f"error: shapes (test): {'2 images' if whole else '1 image'} cannot be read: " in failed.stderr
    assert (images[0] in failed.stderr) is whole  # its header is whole
    assert f"{images[1]} (it is no image" in failed.stderr
    assert "--on-bad-image skip" in failed.stderr


@pytest.mark.parametrize("word", ["typo:{}", "corrupt:{}:fog:3", "corrupt:typo:{}:fog:3", "{}@all", "typo:{}@all"])
def test_a_broken_image_is_said_before_a_training_whatever_is_made_of_its_folder(word, cli, shapes, tmp_path, no_work):
    image = find_task(str(shapes)).dataset.split("test", tmp_path).image_ids()[0]
    Path(image).write_text("no image")
    failed = cli("patch", "--task", "Digits", "--also", word.format(shapes), "--model", "demo", *FEW_STEPS)
    fails(failed, 1, f"1 image cannot be read: {image} (it is no image")


def test_a_broken_image_among_those_of_a_limit_is_said_before_a_training(cli, shapes, tmp_path, no_work):
    for image in find_task(str(shapes)).dataset.split("train", tmp_path).image_ids():
        Path(image).write_text("no image")
    fails(cli("patch", "--task", shapes, "--limit", "4", "--model", "demo", *FEW_STEPS), 1, "4 images cannot be read: ")


def test_an_image_too_narrow_for_usual_models_is_said_before_a_training_and_can_be_skipped(
    cli, shapes, tmp_path, no_work
):
    image = find_task(str(shapes)).dataset.split("test", tmp_path).image_ids()[0]
    Image.new("RGB", (1, 20_000)).save(image)
    failed = cli("patch", "--task", shapes, "--model", "demo", *FEW_STEPS)
    fails(failed, 1, f"{image} (it is 1 x 20000 pixels, too narrow", "--on-bad-image skip")
    skipped = find_task(f"{shapes}?bad=skip").dataset.split("test", tmp_path)
    assert image not in skipped.image_ids()


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    "words",
    [
        ("eval", "zeroshot", "--task"), ("zeroshot", "--model", "demo", "--task"), ("interpolate", "--eval"),
        ("typo-attack", "eval", "zeroshot", "--task"), ("merge", "finetuned", "zeroshot", "--eval"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_said_before_anything_is_measured(cli, run_store, tmp_path, words):
    folders = [draw_folder(tmp_path / name) for name in ("first", "second")]
    first, last = (find_task(str(folder)).dataset.split("test", tmp_path).image_ids()[-1] for folder in folders)
    Path(first).write_text("no image")
    Path(last).write_bytes(b"")
    one_task = words[0] == "typo-attack"
    result = cli(*words, folders[0] if one_task else ",".join(map(str, folders)))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"first (test): 1 image cannot be read: {first} (it is no image" in result.stderr
    assert (f"second (test): 1 image cannot be read: {last} (it is empty)" in result.stderr) is not one_task


def test_a_split_is_opened_once_and_no_image_is_decoded(monkeypatch, tmp_path, shapes):
    broken = shapes / "circle" / "0.png"
    broken.write_bytes(broken.read_bytes()[:-60])  # its header is whole
    opened, original = [], Dataset.split
    monkeypatch.setattr(Dataset, "split", lambda self, name, *more: opened.append(name) or original(self, name, *more))
    task = find_task(str(shapes))
    preflight([(task, ["train", "val"]), (task, ["val", "test"])], tmp_path)
    assert opened == ["train", "val", "test"]


def test_metrics_are_checked_for_training_images_that_are_measured_and_for_no_others(cli, run_store, shapes, data):
    named, unnamed = find_task(f"{shapes}@train"), find_task(str(shapes))
    preflight([(unnamed, ["test"])], data, ["top1"], read=[(unnamed, ["train"])])
    preflight((), data, ["worst_group"], read=[(unnamed, ["train"])])
    for measured in ([(named, ["train"])], [(unnamed, ["train"])]):
        with pytest.raises(UsageError, match=r"shapes \(train\): worst_group needs groups of images"):
            preflight(measured, data, ["worst_group"], read=[(unnamed, ["train"])])
    for words in (("--task", f"{shapes}@train"), ("--task", shapes, "--split", "train")):
        fails(cli("eval", "zeroshot", *words, "--metric", "worst_group"), 2, "(train): worst_group needs groups")


@pytest.mark.usefixtures("no_work")
def test_all_that_is_wrong_with_a_patch_is_said_before_training(data, shapes, tmp_path):
    config = TrainConfig.with_defaults(str(shapes), supported=("ImageNetA", "ImageNetR", "Colors@val"), steps=1)
    store = Store(tmp_path / "store")
    with pytest.raises(PreflightError) as caught:
        patch(config, DEMO, store, data, metrics=["pm0"], rule=Rule("max-drop", 0.01), alphas=(0.5, 1))
    text = caught.value.message
    for part in (
        "Colors@val names a split, and alpha is to be chosen on val",
        "max-drop needs ",
        "shapes (val): pm0 needs sequences of video frames",
        "shapes (test): pm0 needs sequences of video frames",
        "ImageNetA is not below",
        "ImageNetR is not below",
        "Colors (val): pm0 needs sequences of video frames",
    ):
        assert part in text
    assert not store.root.exists()


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("zeroshot", "--task", "Shapes,ImageNetA,ImageNetR"), "2 things are wrong"),
        (("zeroshot", "--task", "Shapes", "--metric", "attack_success"), "attack_success needs images"),
        (("patch", "--task", "Shapes", "--supported", "ImageNetA"), "ImageNetA is not below"),
        (("patch", "--task", "ImageNetV2", "--supported", "ImageNetA"), "4 things are wrong"),
        (("patch", "--task", "Shapes", "--supported", "ImageNetA", "--select", "max-drop=0.01"), "2 things are wrong"),
        (("finetune", "--task", "ImageNet"), "ImageNet is not below"),
    ],
)
def test_commands_refuse_before_work(cli, data, words, message):
    result = cli(*words, "--model", "demo", "--data", data)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "hint: " in result.stderr
    assert result.stdout == ""


@pytest.mark.usefixtures("no_work")
def test_sweeps_and_evaluations_refuse_before_work(cli, run_store, data):
    fails(cli("interpolate", "--eval", "ImageNetA,ImageNetR", "--data", data), 1, "2 things are wrong")
    fails(cli("interpolate", "--eval", "Colors", "--metric", "pm0"), 2, "2 things are wrong")
    fails(cli("eval", "zeroshot", "--task", "ImageNetA,Colors", "--data", data), 1, "ImageNetA is not below")
    fails(cli("eval", "zeroshot", "--task", "Colors", "--metric", "pm0,worst_group"), 2, "2 things are wrong")


def test_supported_tasks_without_validation_data_go_the_whole_way(cli, shapes, untold):
    words = ("patch", "--model", "demo", "--task", shapes, "--supported", f"Colors,{untold}", *FEW_STEPS)
    result = cli(*words, "--alpha", "0,1", "--eval-every", "1", "--select", "max-drop=0.5", "--json")
    assert result.exit_code == 0, result.output
    assert "without a val split, and so not used to choose alpha: untold" in result.stderr
    *rows, choice = map(json.loads, result.stdout.splitlines())
    assert {row["split"] for row in rows if row["task"] == "untold"} == {"test"}
    assert choice["selected_on"] == "val"


def test_watching_leaves_out_tasks_without_validation_data(tmp_path, shapes, untold):
    config = TrainConfig.with_defaults(
        str(shapes), supported=(str(untold), "Colors"), steps=2, batch_size=8, eval_every=1
    )
    notes, store = Notes(), Store(tmp_path / "store")
    assert finetune_watched(config, DEMO, store, tmp_path, notes).finetuned == store.find("finetuned")
    assert [text.partition(" (val): ")[0] for text in notes.notes] == ["epoch 1.0"]
    assert "shapes" in notes.notes[0]
    assert "Colors" in notes.notes[0]
    assert "untold" not in notes.notes[0]


@pytest.mark.usefixtures("no_work")
def test_watching_needs_the_data_of_supported_tasks(tmp_path, shapes, data):
    config = TrainConfig.with_defaults(str(shapes), supported=("MTSD",), steps=2, eval_every=1)
    with pytest.raises(DataError, match="MTSD is not below"):
        finetune_watched(config, DEMO, Store(tmp_path / "store"), data)


@pytest.mark.usefixtures("no_work")
def test_max_drop_without_a_judge_is_refused_before_training(cli, shapes, untold):
    words = ("patch", "--model", "demo", "--task", shapes, "--supported", untold, "--select", "max-drop=0.01")
    fails(cli(*words), 2, "max-drop needs a supported task with a val split, and there is none: untold", "best-mean")


@pytest.mark.usefixtures("no_work")
def test_places_that_cannot_be_written_are_said_with_the_rest_before_work(cli, data, shapes, tmp_path):
    (tmp_path / "file").write_text("")
    words = ("--task", shapes, "--model", "demo", "--data", data, "--store", "file/store")
    result = cli("patch", *words, "--supported", "ImageNetA", "--output", "file/plot.png")
    fails(result, 2, "3 things are wrong", "the picture file/plot.png cannot be written: Not a directory")
    assert "the store file/store cannot be written: Not a directory" in result.stderr
    assert "ImageNetA is not below" in result.stderr
    for command in ("finetune", "zeroshot"):
        fails(cli(command, *words), 1, "the store file/store cannot be written: Not a directory", "--store")
    assert "the store" in cli("patch", *words, "--output", "plot.gif").stderr


@pytest.mark.usefixtures("no_work")
def test_a_disk_that_is_read_only_is_said_before_work(cli, data, run_store, shapes, monkeypatch):
    def refuse(dir):  # noqa: A002 -- as tempfile calls it
        raise OSError(30, "Read-only file system", str(dir))

    monkeypatch.setattr("wisepatch.files.tempfile.TemporaryFile", refuse)
    for words in (
        ("interpolate", "--eval", "Colors"),
        ("eval", "finetuned"),
        ("patch", "--task", shapes, "--output", "a.png"),
    ):
        result = cli(*words)
        assert "the store wisepatch-store cannot be written: Read-only file system" in result.stderr
        assert result.exit_code in (1, 2)
        assert result.stdout == ""
    assert "the picture a.png cannot be written: Read-only file system" in result.stderr


def test_nothing_is_made_where_a_command_is_refused(cli, data, shapes, tmp_path):
    words = ("--task", shapes, "--supported", "ImageNetA", "--output", "pictures/a.png", "--store", "new/store")
    fails(cli("patch", "--model", "demo", "--data", data, *words), 1, "ImageNetA is not below")
    assert not (tmp_path / "pictures").exists()
    assert not (tmp_path / "new").exists()


def test_an_unknown_metric_of_a_task_is_said_with_the_task_and_the_rest(data):
    from dataclasses import replace

    from wisepatch.tasks import Task

    odd = Task("Odd", replace(find_task("Colors").dataset, name="Odd", metric="nonesuch"))
    with pytest.raises(PreflightError, match="Odd: unknown metric 'nonesuch'"):
        preflight([(odd, ["test"]), (find_task("ImageNetA"), ["test"])], data)


@pytest.mark.parametrize(("folder", "reason"), [(False, "Is a directory"), (True, "Not a directory")])
def test_what_is_no_file_or_no_folder_cannot_be_written(tmp_path, folder, reason):
    from wisepatch.files import check_writable

    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match=reason):
        check_writable(tmp_path / "file" if folder else tmp_path, folder=folder)
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new" / "folder", folder=True)
    assert (tmp_path / "file").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
