"""Verify checkpoints: their files, the id that follows from the manifest, and what a recipe is merged from."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, TypeGuard

from wisepatch.errors import StoreError
from wisepatch.files import sha256
from wisepatch.plugins import registry
from wisepatch.store.manifests import MANIFEST, Checkpoint, Recipe, identify
from wisepatch.weights import parameters

if TYPE_CHECKING:
    from wisepatch.store.checkpoints import Store

MAX_ALPHA = 1e6
DAMAGED_HINT = "remove it with `wisepatch store rm` and make it again"


def problem(store: Store, checkpoint: Checkpoint) -> str:
    """Return what is wrong with the manifest, the files or the parents of a checkpoint; empty if nothing is."""
    found = file_problem(checkpoint) or _merge_problem(store, checkpoint) or _id_problem(checkpoint)
    found = found or _training_problem(store, checkpoint)
    return f"checkpoint {checkpoint.id} ({checkpoint.name}) {found}" if found else ""


def file_problem(checkpoint: Checkpoint) -> str:
    """Return which file of a checkpoint is gone or damaged; empty if none is."""
    for file, digest in checkpoint.files.items():
        path = checkpoint.home / file
        if not path.is_file():
            return f"has lost {file}"
        if sha256(path) != digest:
            return f"is damaged: {file} does not have the sha256 that its manifest names"
    return ""


def _id_problem(checkpoint: Checkpoint) -> str:
    if checkpoint.schema == 1 or identify(checkpoint) == checkpoint.id:  # an id of schema 1 followed from other fields
        return ""
    return f"is damaged: {checkpoint.home / MANIFEST} does not have the content that its id names"


def _training_problem(store: Store, checkpoint: Checkpoint) -> str:
    for parent in checkpoint.trained_from:
        if parent == checkpoint.id:
            return "says that it was trained from itself"
        if not (store.checkpoints / parent / MANIFEST).exists():
            return f"was trained from {parent}, which is not in the store {store.root}"
    return ""


def _merge_problem(store: Store, checkpoint: Checkpoint) -> str:
    """Return what is wrong with a recipe: alpha, method, parents (also those of its parents), Fisher information."""
    recipe = checkpoint.recipe
    if recipe is None:
        return "" if checkpoint.files else "has neither weights nor a recipe"
    if found := params_problem(recipe):
        return f"is a recipe {found}"
    if checkpoint.files:  # its parents may be gone
        return ""
    try:
        check_ancestors(store, checkpoint)
        store.fisher_paths(checkpoint)
    except StoreError as error:
        return f"is a recipe, and {error.message}"
    return ""


def params_problem(recipe: Recipe) -> str:
    """Return what is wrong with the method, the parents and the parameters of a recipe; empty if nothing is.

    Of a method that is not installed, or names no parameters, alpha alone is looked at.
    """
    if not recipe.method or not recipe.parents:
        return f"without {'parents' if recipe.method else 'a method'}"
    method = registry().all("register_merge_methods").get(recipe.method)
    if method is not None and method.parameters:
        return parameters.params_problem(method, len(recipe.parents), recipe.params)
    alpha = recipe.params.get("alpha", 0)
    return "" if _is_scale(alpha) else f"with alpha {str(alpha)[:40]}"


def _is_scale(value: object) -> TypeGuard[float]:
    """Tell whether a value of a manifest is a number of a sensible size; NaN is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_ALPHA


def check_ancestors(store: Store, checkpoint: Checkpoint) -> None:
    """Raise :class:`StoreError` where a parent of a recipe, or of a recipe among its parents, is gone or is itself."""
    graph: dict[str, tuple[str, ...]] = {}
    waiting = [checkpoint]
    while waiting:
        recipe = waiting.pop()
        graph[recipe.id] = recipe.parents
        parents = [store.get(identity) for identity in recipe.parents if identity not in graph]
        waiting += [parent for parent in parents if parent.is_recipe]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise StoreError(f"it is merged from itself: {' from '.join(error.args[1])}", "") from error
