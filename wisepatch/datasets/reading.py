"""Say how a user's own folder or CSV is read: the options that travel with the word for it, ``photos?group=video_[0-9]+``."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import partial
from urllib.parse import parse_qsl, quote

from wisepatch.datasets.base import Dataset
from wisepatch.errors import UsageError

WHERE = re.compile(r"[?](?=[a-z_]+=)")


@dataclass(frozen=True)
class Reading:
    """Hold how files are read; empty texts are what nobody asked for.

    ``group`` is a regular expression: images in whose path it finds the same text stay in one split. The columns are those of a
    CSV. ``colours`` is ``managed`` where colour profiles are converted to sRGB, ``bad`` is ``skip`` where images that cannot be
    read are left out.
    """

    group: str = ""
    path_column: str = ""
    label_column: str = ""
    split_column: str = ""
    colours: str = ""
    bad: str = ""

    def __post_init__(self) -> None:
        """Check the values. Raises :class:`UsageError`."""
        try:
            re.compile(self.group)
        except re.error as error:
            raise UsageError(
                f"the group {self.group!r} is no regular expression: {error}", "such as video_[0-9]+"
            ) from error
        for name, known in (("colours", "managed"), ("bad", "skip")):
            if getattr(self, name) not in ("", known):
                raise UsageError(f"{name}={getattr(self, name)} is not known", f"{name}={known} is")

    @classmethod
    def parse(cls, query: str) -> Reading:
        """Read ``name=value&name=value``. Raises :class:`UsageError` for a name that is none."""
        given = dict(parse_qsl(query, keep_blank_values=True))
        known = [field.name for field in fields(cls)]
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            raise UsageError(f"a folder or CSV has no option {unknown!r}", f"options are {', '.join(known)}")
        return cls(**given)

    def query(self) -> str:
        """Return what follows the path in the word for a task: ``?name=value``, or nothing."""
        given = [(field.name, getattr(self, field.name)) for field in fields(self)]
        pairs = [f"{name}={quote(value, safe='/()[]|.*')}" for name, value in given if value]
        return f"?{'&'.join(pairs)}" if pairs else ""

    @property
    def columns(self) -> dict[str, str]:
        """Return the columns that were named, by what they hold."""
        named = {"path": self.path_column, "label": self.label_column, "split": self.split_column}
        return {what: column for what, column in named.items() if column}

    def group_of(self, name: str) -> str:
        """Return the group of an image by its path: what the parentheses of the expression hold, or all that it finds."""
        found = re.search(self.group, name) if self.group else None
        if found is None:
            return ""
        return next((part for part in found.groups() if part is not None), found[0])


AS_IT_IS = Reading()


def reading_of(dataset: Dataset) -> Reading:
    """Return how the files of a folder or CSV are read."""
    return dataset.open.keywords.get("reading", AS_IT_IS) if isinstance(dataset.open, partial) else AS_IT_IS


def split_word(word: str) -> tuple[str, str]:
    """Return the path and the options of a word such as ``photos?group=...``."""
    place = WHERE.search(word)
    return (word[: place.start()], word[place.end() :]) if place else (word, "")
