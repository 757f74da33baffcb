"""Text for terminals and shells: names keep their letters, and no power."""

import os
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wisepatch.terminal import CONTROLS, harmless, pasted

file_names = st.binary(min_size=1, max_size=12).map(os.fsdecode) | st.text(min_size=1, max_size=12)


@given(st.lists(file_names.filter(lambda name: "\0" not in name), min_size=1, max_size=4))
@example(["a\nb", "it's", "", "\\n", "$HOME", "\x1b[31m5", os.fsdecode(b"caf\xe9"), "a\u202eb", "猫\t", "$'x'"])
@settings(max_examples=40, deadline=None)
def test_a_command_that_is_pasted_has_the_words_that_it_was_made_of(words):
    command = pasted(words)
    assert not CONTROLS.search(command)
    assert harmless(command) == command
    taken = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    assert [os.fsdecode(word) for word in taken.split(b"\0")[:-1]] == words


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("photos", "photos"),
        ("my photos", "'my photos'"),
        ("a\nb", r"$'a\nb'"),
        (os.fsdecode(b"caf\xe9"), r"$'caf\xe9'"),
    ],
)
def test_words_are_quoted_only_where_they_have_to_be(word, written):
    assert pasted(["wisepatch", word]) == f"wisepatch {written}"


def test_half_a_character_is_written_somehow():
    assert pasted(["\ud800"]) == r"$'\xed\xa0\x80'"
