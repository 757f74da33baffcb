"""``wisepatch zeroshot``: heads from text, and data that is broken."""

import json

import pytest

from tests.samples import broken_png, draw_folder, fails
from wisepatch import find_task


def test_empty_class_folder_is_named(cli, shapes):
    (shapes / "square" / "x").mkdir()
    for image in (shapes / "square").glob("*.png"):
        image.unlink()
    fails(cli("zeroshot", "--model", "demo", "--task", shapes), 1, f"class folder {shapes / 'square'} holds no images")


@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_cannot_be_decoded_is_named_and_the_error_stays_one_line(cli, shapes, workers):
    broken_png(shapes / "circle" / "0.png")
    for image in (shapes / "circle").glob("[1-9].png"):
        broken_png(image)
    result = cli("zeroshot", "--model", "demo", "--task", shapes, "--workers", workers)
    assert result.exit_code == 1
    assert "circle/" in result.stderr
    assert "cannot be read" in result.stderr
    assert "--on-bad-image skip" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_a_set_is_measured_on_another_split_or_whole(cli, shapes, split):
    rows = cli("zeroshot", "--model", "demo", "--task", shapes, "--split", split, "--json").stdout.splitlines()
    images = len(find_task(str(shapes)).dataset.split(split, shapes))
    assert [(row["split"], row["n"]) for row in map(json.loads, rows)] == [(split, images)]


def test_store_that_cannot_be_written(cli, shapes, tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("zeroshot", "--model", "demo", "--task", shapes, "--store", tmp_path / "file" / "store")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert "--store" in result.stderr


def test_folder_with_classnames_and_templates(cli, shapes, tmp_path):
    (tmp_path / "names.txt").write_text("round thing\nsquare thing\nthree-cornered thing\n")
    common = ("zeroshot", "--model", "demo", "--task", shapes, "--classnames", tmp_path / "names.txt")
    assert cli(*common, "--template", "a photo of a {}.", "--template", "{}").exit_code == 0
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    fails(cli(*common), 2, "2 class names for 3 classes of 'shapes'", "circle, square, triangle")


def test_two_tasks_of_one_name_are_refused(cli, shapes, tmp_path):
    draw_folder(tmp_path / "other" / "shapes")
    fails(
        cli("zeroshot", "--model", "demo", "--task", f"{shapes},{tmp_path}/other/shapes"),
        2,
        "two tasks are called 'shapes'",
    )
