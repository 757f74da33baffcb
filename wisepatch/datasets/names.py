"""Class names, class folders and class indices of published tasks, as their publishers and CLIP's authors have them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any


@cache
def names(task: str) -> Any:
    """What ``names.json`` says of ``task``: a tuple of names or indices, or a dict."""
    found = _all()[task]
    return tuple(found) if isinstance(found, list) else found


def spaced(folders: Sequence[str]) -> tuple[str, ...]:
    """Folder names as class names: spaces for underscores and slashes."""
    return tuple(name.replace("_", " ").replace("/", " ") for name in folders)


def zeroshot_accuracies(task: str) -> dict[str, float]:
    """Zero-shot top-1 accuracies by model, as open_clip publishes them (its docs/openclip_results.csv); empty if unknown."""
    found: dict[str, float] = _all()["zero-shot, as open_clip publishes it"].get(task, {})
    return found


@cache
def _all() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "names.json").read_text(encoding="utf-8"))
    return found
