"""Text that a terminal shows, and a shell takes, as it is meant: names of files may hold whatever they like."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

# What a terminal would obey (new lines, escape sequences, text that runs backwards), and halves of characters.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """Return one line of text, in which what a terminal would obey is written out, as in Python's strings."""
    return CONTROLS.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def pasted(words: Iterable[str]) -> str:
    r"""Return a command on one line that bash, zsh and other shells take apart into ``words`` when it is pasted.

    A word with what a terminal would obey, or with bytes that are no UTF-8, is written as ``$'new\nline'``.
    """
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if not CONTROLS.search(word):
        return shlex.quote(word)
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{CONTROLS.sub(_in_bytes, plain)}'"


def _in_bytes(sign: re.Match[str]) -> str:
    if sign[0].isascii():
        return harmless(sign[0])
    errors = "surrogateescape" if "\udc80" <= sign[0] <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in sign[0].encode(errors=errors))
