"""Words of the command line: lists, alphas, metrics and checkpoints as they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wisepatch.alphas import AUTO, parse_alphas
from wisepatch.errors import UnknownNameError
from wisepatch.files import in_utf8

if TYPE_CHECKING:
    from wisepatch.store.checkpoints import Checkpoint, Store


def alphas(words: Sequence[str]) -> tuple[float, ...] | str:
    """Return the alphas that were asked for, or ``auto``. Raises :class:`UsageError`."""
    return AUTO if list(words) == [AUTO] else parse_alphas(words)


def split_list(words: Sequence[str] | None) -> list[str]:
    """Take apart what was given by comma; an existing path with a comma in it stays whole."""
    from wisepatch.task_specs import listed_by_comma

    return [part for word in words or () for part in listed_by_comma(word)]


def run_names(words: Sequence[str] | None) -> list[str]:
    """Return the runs that were named, as text."""
    return [in_utf8(name) for name in split_list(words)]


def metric_names(words: Sequence[str]) -> list[str]:
    """Return the metrics that were named. Raises :class:`UnknownNameError`."""
    from wisepatch.plugins import find_metric

    return [find_metric(name).name for name in split_list(words)]


def find_checkpoints(
    store: Store, words: list[str], find: Callable[[str], Checkpoint] | None = None
) -> list[Checkpoint]:
    """Look checkpoints up, with ``store.find`` or ``find``, each once; a name with a comma in it is tried whole first."""
    find = find or store.find
    checkpoints: dict[str, Checkpoint] = {}
    for word in words:
        try:
            named = [find(word)]
        except UnknownNameError:
            if "," not in word:
                raise
            named = [find(part) for part in split_list([word])]
        checkpoints |= {checkpoint.id: checkpoint for checkpoint in named}
    return list(checkpoints.values())
