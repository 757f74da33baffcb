"""Entry points of what is installed, as ``importlib.metadata`` finds them, which loads as slowly as all built-in datasets do."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class EntryPoint(NamedTuple):
    """An entry point, like that of importlib.metadata."""

    name: str
    value: str

    def load(self) -> Any:
        """Import the module; ``module:name`` is what it calls so."""
        module, _, names = self.value.partition("[")[0].partition(":")
        found: Any = import_module(module.strip())
        for name in filter(None, names.strip().split(".")):
            found = getattr(found, name)
        return found


def entry_points(group: str) -> list[tuple[EntryPoint, str]]:
    """The entry points of ``group`` and whose they are, by name; of one that is there twice, the one that would be imported."""
    found: dict[tuple[str, str], tuple[EntryPoint, str]] = {}
    for folder in _installed():
        text = _read(f"{folder}/entry_points.txt")
        if f"[{group}]" not in text:
            continue
        inner = re.search(rf"^\[{group}\]$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
        if inner:
            about = _read(f"{folder}/METADATA") or _read(f"{folder}/PKG-INFO")
            owner = " ".join(re.findall(r"^(?:Name|Version): *(\S+)", about.partition("\n\n")[0], re.MULTILINE)[:2])
            for line in inner[1].splitlines():
                name, equals, value = (part.strip() for part in line.partition("="))
                if equals and not name.startswith("#"):
                    found.setdefault((name, value), (EntryPoint(name, value), owner))
    return [found[key] for key in sorted(found)]


def _installed() -> Iterator[str]:
    """The folders of metadata of what is installed, in the order of ``sys.path``."""
    for place in dict.fromkeys(sys.path):
        try:
            with os.scandir(place or ".") as entries:
                yield from (e.path for e in entries if e.name.endswith((".dist-info", ".egg-info")))
        except OSError:  # not there, or an archive
            continue


def _read(path: str) -> str:
    """The text of a small file, "" where it is not there; a hundred are read, so without pathlib and a reader of text."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 -- see above
            return file.read().decode("utf-8", errors="replace").replace("\r\n", "\n")
    except OSError:
        return ""
