"""Complete values in the shell: names of tasks, checkpoints, models, rules, metrics, merge methods, runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from wisepatch.store.checkpoints import Store

Names = Callable[[typer.Context], Iterable[str]]
Completer = Callable[[typer.Context, str], list[str]]


def _completer(names: Names) -> Completer:
    """Return what Typer asks for the values that begin with some letters, in any case; of a list by comma it is the last one."""

    @wraps(names)
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        try:
            return [f"{before}{comma}{name}" for name in names(ctx) if name.lower().startswith(begun.lower())]
        except Exception:  # noqa: BLE001 -- a shell that waits for names must not see a traceback
            return []

    del complete.__wrapped__  # Typer looks at the signature
    return complete


@_completer
def _tasks(_: typer.Context) -> Iterable[str]:
    from wisepatch.datasets.corruption_parameters import KINDS
    from wisepatch.plugins import registry
    from wisepatch.task_specs import CORRUPT, WRAPPERS

    names = sorted(registry().datasets)
    yield from [*names, *WRAPPERS, *(f"{scheme}{name}" for scheme in WRAPPERS for name in names)]
    yield from (f"{CORRUPT}{name}:{kind}" for name in names for kind in KINDS)


def tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the tasks known by name; after ``typo:`` and ``corrupt:`` too, and after ``corrupt:NAME:`` the kinds of corruption."""
    parts = incomplete.count(":")
    return [name for name in _tasks(ctx, incomplete) if name.removesuffix(":").count(":") == parts]


def _store(ctx: typer.Context) -> Store:
    from wisepatch.store.checkpoints import Store

    return Store(ctx.params.get("store") or "wisepatch-store")


@_completer
def checkpoints(ctx: typer.Context) -> Iterable[str]:
    """Return the words for the newest checkpoints, and all names and ids."""
    from wisepatch.store.references import REFERENCES

    known = _store(ctx).everything()
    return [*REFERENCES, *dict.fromkeys(each.name for each in known), *(each.id for each in known)]


@_completer
def runs(ctx: typer.Context) -> Iterable[str]:
    """Return the names that were given to runs."""
    from wisepatch.store.results import names_of_checkpoints
    from wisepatch.store.runs import names_of_trainings

    store = _store(ctx)
    names = [*names_of_trainings(store.root).values(), *names_of_checkpoints(store.results).values()]
    return ["newest", "all", *dict.fromkeys(names)]


@_completer
def models(_: typer.Context) -> Iterable[str]:
    """Return the names that open_clip knows, without loading it."""
    spec = find_spec("open_clip")
    folders = spec.submodule_search_locations if spec else None
    configs = sorted(Path(folders[0]).glob("model_configs/*.json")) if folders else []
    return ["demo", *(path.stem for path in configs)]


@_completer
def rules(_: typer.Context) -> Iterable[str]:
    """Return the rules that choose alpha; one that takes a value ends in ``=``."""
    from wisepatch.plugins import registry

    return [f"{name}=" if rule.takes else name for name, rule in registry().all("register_rules").items()]


@_completer
def metrics(_: typer.Context) -> Iterable[str]:
    """Return the metrics known by name."""
    from wisepatch.plugins import registry

    return sorted(registry().all("register_metrics"))


@_completer
def objectives(_: typer.Context) -> Iterable[str]:
    """Return the objectives known by name."""
    from wisepatch.plugins import registry

    return sorted(registry().all("register_objectives"))


@_completer
def methods(_: typer.Context) -> Iterable[str]:
    """Return what ``merge --method`` takes."""
    return merge_methods()


def merge_methods() -> list[str]:
    """Return the merge methods known by name, and the greedy soup, which is a workflow."""
    from wisepatch.plugins import registry

    return sorted([*registry().all("register_merge_methods"), "greedy-soup"])
