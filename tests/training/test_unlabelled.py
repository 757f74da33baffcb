"""Unlabelled images: a folder as it is, the training images of a task, and what cannot be read."""

from pathlib import Path

from tests.samples import broken_png, draw_folder
from wisepatch.training.unlabelled import open_unlabelled, shows_test_images, unlabelled_problems


def test_all_images_below_a_folder_are_taken_whatever_their_folders_are_called(tmp_path):
    draw_folder(tmp_path / "photos", per_class=2)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    opened = open_unlabelled(str(tmp_path / "photos"), tmp_path)
    assert len(opened) == 6
    assert opened[0][0].size
    before = opened.fingerprint()
    (tmp_path / "photos" / "circle" / "0.png").unlink()
    assert open_unlabelled(str(tmp_path / "photos"), tmp_path).fingerprint() != before


def test_a_task_lends_its_training_images_or_those_of_the_split_that_is_named(tmp_path):
    assert open_unlabelled("Colors", tmp_path).name == "train"
    assert open_unlabelled("Colors@val", tmp_path).name == "val"
    assert [shows_test_images(word) for word in ("Colors", "Colors@val", "Colors@test", str(tmp_path))] == [
        False, False, True, False,
    ]  # fmt: skip


def test_what_cannot_be_read_is_said_before_anything_is_trained(tmp_path):
    assert unlabelled_problems(None, tmp_path) == []
    draw_folder(tmp_path / "photos", per_class=1)
    assert unlabelled_problems(str(tmp_path / "photos"), tmp_path) == []
    broken_png(tmp_path / "photos" / "circle" / "1.png")
    (broken,) = unlabelled_problems(str(tmp_path / "photos"), tmp_path)
    assert broken.message.startswith(f"1 of the images of {tmp_path / 'photos'} cannot be read, such as ")
    (tmp_path / "empty").mkdir()
    (empty,) = unlabelled_problems(str(tmp_path / "empty"), tmp_path)
    assert empty.message == f"{tmp_path / 'empty'} holds no images"
    (unknown,) = unlabelled_problems("Colour", Path(tmp_path))
    assert "'Colour'" in unknown.message
    assert "--distill-on takes a folder, a CSV or a task" in unknown.hint
