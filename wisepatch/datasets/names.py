"""Look up class names, class folders and class indices of published tasks, as their publishers and CLIP's authors have them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _entries() -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((Path(__file__).parent / "names.json").read_text(encoding="utf-8"))
    return {key: tuple(entry) if isinstance(entry, list) else entry for key, entry in entries.items()}


def names(task: str) -> Any:
    """Return the entry of ``task`` in ``names.json``: a tuple of names or indices, or a dict."""
    return _entries()[task]


def spaced(folders: Sequence[str]) -> tuple[str, ...]:
    """Make class names of folder names: spaces for underscores and slashes."""
    return tuple(name.replace("_", " ").replace("/", " ") for name in folders)
