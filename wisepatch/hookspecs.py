"""What a plugin may provide. A plugin is a module named in the entry-point group ``wisepatch``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wisepatch.datasets.base import Dataset

GROUP = "wisepatch"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_datasets() -> Iterable[Dataset]:  # type: ignore[empty-body]
    """Return the datasets that the plugin offers. Called on look-up, never at start: no torch, no disk, no network."""


@hookspec
def find_dataset(name: str) -> Dataset | None:
    """Return the dataset that a name with a scheme stands for, such as ``hf:owner/name``, or ``None`` where it is not yours."""
