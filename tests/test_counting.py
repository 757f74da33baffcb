"""Numbers with their nouns."""

import pytest

from wisepatch.counting import count


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (12_000, "12,000 images")]
)
def test_one_thing_is_no_plural(number, words):
    assert count(number, "image") == words
    assert count(1, "class", "classes") == "1 class"
    assert count(3, "class", "classes") == "3 classes"
