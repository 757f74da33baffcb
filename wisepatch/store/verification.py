"""Verify checkpoints: their files, the id that follows from the manifest, and what a recipe is merged from."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, TypeGuard

from wisepatch.errors import StoreError
from wisepatch.files import sha256
from wisepatch.store.manifests import MANIFEST, Checkpoint, Recipe, identify

if TYPE_CHECKING:
    from wisepatch.store.checkpoints import Store

MAX_ALPHA = 1e6
BETWEEN_TWO = ("linear", "fisher")  # methods that mix two parents, with alpha from 0 to 1
FROM_A_START = ("task-arithmetic",)  # methods that add to the first parent what the others have learned


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
        store.cache.fisher_paths(recipe.fisher_files)
    except StoreError as error:
        return f"is a recipe, and {error.message}"
    return ""


def params_problem(recipe: Recipe) -> str:
    """Return what is wrong with the method, the parents and alpha of a recipe; empty if nothing is."""
    if not recipe.method or not recipe.parents:
        return f"without {'parents' if recipe.method else 'a method'}"
    between_two = recipe.method in BETWEEN_TWO
    if between_two and len(recipe.parents) != 2:
        return f"of {len(recipe.parents)} parents, and {recipe.method} mixes two"
    if recipe.method in FROM_A_START:
        return _scales_problem(recipe)
    alpha = recipe.params.get("alpha", None if between_two else 0)
    if not _is_scale(alpha):
        return f"with alpha {str(alpha)[:40]}"
    if between_two and not 0 <= alpha <= 1:
        return f"with alpha {alpha}, which is not from 0 to 1"
    return ""


def _scales_problem(recipe: Recipe) -> str:
    """Return what is wrong with the scales of task vectors: one ``alpha`` for all, or ``alphas``, one for each end."""
    ends, alphas = len(recipe.parents) - 1, recipe.params.get("alphas")
    if ends < 1:
        return f"of a start alone, and {recipe.method} adds ends to it"
    if "alphas" not in recipe.params:
        alpha = recipe.params.get("alpha")
        return "" if _is_scale(alpha) else f"with alpha {str(alpha)[:40]}"
    if "alpha" in recipe.params:
        return "with both alpha and alphas"
    if not isinstance(alphas, list) or not all(_is_scale(alpha) for alpha in alphas):
        return f"with alphas {str(alphas)[:40]}"
    return "" if len(alphas) == ends else f"with {len(alphas)} alphas for {ends} ends"


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
