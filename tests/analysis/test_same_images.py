"""Tasks that show the same images, told by their names and by their files."""

import pytest

from wisepatch.analysis.same_images import images_of, shown_by, shown_together


@pytest.mark.parametrize(
    ("task", "images"),
    [
        ("Shapes", "Shapes"),
        ("typo:corrupt:Shapes:fog", "Shapes"),
        ("ImageNetAValClasses", "ImageNet"),
        ("ImageNet16", "ImageNet"),
        ("CLEVR45689", "CLEVR"),
        ("ImageNetV2", "ImageNetV2"),
    ],
)
def test_names_tell_whose_images_a_task_shows(task, images):
    assert images_of(task) == images


def test_tasks_are_together_by_name_by_files_and_by_what_lies_between():
    def share(one, other):
        return bool({*one} & {*other})

    images = {"a": "12", "b": "34", "corrupt:a": "12", "both": "23", "alone": "5"}
    assert shown_together(images, share) == {"a": "a", "b": "a", "corrupt:a": "a", "both": "a", "alone": "alone"}
    assert shown_together({"copies": "1", "typo:a": "1", "a": ""}, share) == dict.fromkeys(
        ("copies", "typo:a", "a"), "copies"
    )


def test_a_row_names_the_task_whose_images_it_was_measured_on():
    assert shown_by({"task": "b", "images": "a"}) == "a"
    assert shown_by({"task": "b", "images": float("nan")}) == shown_by({"task": "b"}) == "b"
