"""Remove checkpoints and garbage; never what wisepatch cannot have written, nor what a recipe or a running process needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wisepatch.counting import count
from wisepatch.errors import StoreError
from wisepatch.files import (
    OLDER_PARTIAL_NAME,
    PARTIAL_NAME,
    refused,
    remove,
    remove_at_once,
    remove_leftovers,
)
from wisepatch.locks import LOCK, locked
from wisepatch.store.cache import KINDS
from wisepatch.store.manifests import ID, MANIFEST, WEIGHTS, Checkpoint
from wisepatch.store.runs import remove_run_leftovers, remove_states, unfinished_runs
from wisepatch.store.sharing import NewerStoreError, is_marked, store_lock, used_by_others

if TYPE_CHECKING:
    from wisepatch.store.checkpoints import Store

HARMLESS = (PermissionError, IsADirectoryError)  # of manifests that others have spoilt
PREDICTIONS = re.compile(r".*-[0-9a-f]{8}\.parquet")  # the files of one checkpoint


def remove_checkpoints(
    store: Store, checkpoints: Sequence[Checkpoint], *, with_recipes: bool = False
) -> list[Checkpoint]:
    """Remove checkpoints, all or none; see :meth:`~wisepatch.store.checkpoints.Store.remove`."""
    named = {checkpoint.id: checkpoint for checkpoint in checkpoints}
    for checkpoint in named.values():
        store.check_own(checkpoint)
    with _removing(store) as (everything, used):
        plan = _plan(store, everything, named, with_recipes=with_recipes)
        _check_no_training_needs(store, plan)
        for checkpoint in plan:
            if not checkpoint.home.exists():
                reason = f"checkpoint {checkpoint.id} is not in the store {store.root}"
                raise StoreError(reason, "another process has removed it meanwhile")
            if checkpoint.id in used:
                reason = f"{checkpoint.id} ({checkpoint.name}) is used by {used[checkpoint.id]}"
                raise StoreError(reason, "wait until that has ended, or end it")
            _check_own_files(checkpoint.home)
        for checkpoint in plan:
            remove_at_once(checkpoint.home)
    return plan


def _plan(
    store: Store, everything: Sequence[Checkpoint], named: Mapping[str, Checkpoint], *, with_recipes: bool
) -> list[Checkpoint]:
    """Return all that goes, dependents first. Raises :class:`StoreError` where one that stays needs one that is to go.

    A damaged one that others were trained from may go: they have weights of their own.
    """
    dependents = children(everything, named.values())
    if dependents and not with_recipes:
        parent = next(named[each] for each in dependents[0].parents if each in named)
        needing = count(len(dependents), "recipe is", "recipes are")
        reason = f"{needing} mixed from {parent.id} ({parent.name}), such as {dependents[0].name}"
        raise StoreError(reason, "give --recipes to remove them with it")
    plan = {child.id: child for child in dependents} | dict(named)
    for other in everything:
        starts = [plan[each] for each in other.trained_from if each in plan]
        if starts and other.id not in plan and not store.problem(starts[0]):
            reason = f"{other.id} ({other.name}) was trained from {starts[0].id} ({starts[0].name})"
            raise StoreError(reason, f"remove {other.name} first, or name both")
    return _dependents_first(plan.values())


def _check_no_training_needs(store: Store, plan: Sequence[Checkpoint]) -> None:
    """Raise :class:`StoreError` where a training that stopped begins with one of the checkpoints."""
    starts = {run.identity.get("parent"): run for run in unfinished_runs(store.root)}
    for checkpoint in plan:
        if run := starts.get(checkpoint.id):
            reason = f"{checkpoint.id} ({checkpoint.name}) is the start of a training that stopped, in {run.folder}"
            raise StoreError(reason, "let it go on, or remove what it has with `wisepatch store gc --runs`")


def children(everything: Iterable[Checkpoint], checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Return the recipes that are merged from any of the checkpoints, also through other recipes."""
    needed = {checkpoint.id for checkpoint in checkpoints}
    found: list[Checkpoint] = []
    recipes = [other for other in everything if other.is_recipe]
    while more := [r for r in recipes if r.id not in needed and needed & set(r.parents)]:
        found += more
        needed |= {r.id for r in more}
    return found


def collect_garbage(store: Store, *, caches: bool = False, runs: bool = False) -> list[Path]:
    """Remove what nothing needs any more; return the paths.

    That is what interrupted writes left, recipes whose parents or Fisher information are gone, Fisher information that no recipe
    names, and predictions of checkpoints that were removed. ``caches`` removes cached pixels and features too, which are made again
    when they are needed, and ``runs`` the states of trainings that stopped. What a running process uses stays, and so does
    all that wisepatch cannot have written: a folder without a manifest may be another tool's. Raises :class:`StoreError` for a
    folder that is no store.
    """
    if not store.root.exists():
        return []
    with _removing(store) as (everything, used):
        gone = _remove_orphans(store, everything, used)
        checkpoints, unreadable = store.scan()
        named = {digest for each in checkpoints if each.recipe for digest, _ in each.recipe.fisher_files}
        entries = store.cache.removable() if caches else []
        entries += [] if unreadable else store.cache.unnamed_fisher(named)
        for path in (entry for entry in entries if store.cache.lease_name(entry) not in used):
            remove_at_once(path)
            gone.append(path)
        gone += _remove_predictions(store, used)
        gone += remove_run_leftovers(store.root)
        gone += [path for run in unfinished_runs(store.root) for path in remove_states(run)] if runs else []
        kinds = [store.cache.root / kind for kind in KINDS]
        kept = [folder for folder in _folders(store.checkpoints) if ID.fullmatch(folder.name)]
        for folder in [
            store.root, store.checkpoints, *kept, store.predictions, *_folders(store.predictions),
            store.cache.root, *kinds, *(folder for kind in kinds for folder in _folders(kind)),
        ]:  # fmt: skip
            gone += remove_leftovers(folder, older=True)
        return gone + store.cache.remove_stale_locks() + _remove_older_locks(store)


def _remove_orphans(store: Store, everything: Sequence[Checkpoint], used: Mapping[str, str]) -> list[Path]:
    """Remove recipes whose parents or Fisher information are gone, but for those that a running process uses."""
    orphans = [checkpoint for checkpoint in everything if _is_orphan(store, checkpoint)]
    gone = []
    for checkpoint in _dependents_first([*orphans, *children(everything, orphans)]):
        if checkpoint.id not in used and not any(child.id in used for child in children(everything, [checkpoint])):
            try:
                _check_own_files(checkpoint.home)
            except StoreError:
                continue
            remove_at_once(checkpoint.home)
            gone.append(checkpoint.home)
    return gone


def _is_orphan(store: Store, checkpoint: Checkpoint) -> bool:
    if checkpoint.recipe is None or checkpoint.files:
        return False
    lost = any(not (store.checkpoints / parent / MANIFEST).exists() for parent in checkpoint.parents)
    return lost or not all(store.cache.fisher_candidates(digest) for digest, _ in checkpoint.recipe.fisher_files)


def _remove_predictions(store: Store, used: Mapping[str, str]) -> list[Path]:
    """Remove the predictions of checkpoints that are gone; those of another store's checkpoints stay as long as these do."""
    from wisepatch.store.predictions import home_of_predictions

    gone = []
    for folder in _folders(store.predictions):
        if ID.fullmatch(folder.name) and folder.name not in used and not (store.checkpoints / folder.name).exists():
            for path in (path for path in sorted(folder.iterdir()) if PREDICTIONS.fullmatch(path.name)):
                home = home_of_predictions(path)
                if home is None or not (home / MANIFEST).exists():
                    remove(path)
                    gone.append(path)
            remove_leftovers(folder, older=True)
            if not any(folder.iterdir()):
                folder.rmdir()
    return gone


def _remove_older_locks(store: Store) -> list[Path]:
    """Remove the locks of single checkpoints, which wisepatch 0.1.0 left behind."""
    gone = []
    for path in store.checkpoints.glob(f".????????????{LOCK}"):
        with locked(path, wait=False) as taken:
            if taken and ID.fullmatch(path.name[1 : -len(LOCK)]):
                gone.append(path)
    return gone


@contextmanager
def _removing(store: Store) -> Iterator[tuple[list[Checkpoint], dict[str, str]]]:
    """Hold the lock of the store, and yield all checkpoints, and what other processes use.

    Raises :class:`StoreError` for a folder that is not a store, and for one in which a newer wisepatch has written. Nothing is
    written but the lock: a full disk can be emptied.
    """
    if not is_marked(store.root) and not store.everything():
        raise StoreError(f"the folder {store.root} is not a store of wisepatch", "name one with --store")
    with refused(f"the store {store.root}", StoreError, "look at its permissions"), store_lock(store.root):
        checkpoints, unreadable = store.scan()
        for error in unreadable:
            # A damaged manifest blocks nothing; one that a failing disk or network does not give may be a recipe.
            failed = isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, HARMLESS)
            if failed or isinstance(error, NewerStoreError):
                raise error
        yield checkpoints, used_by_others(store.root)


def _check_own_files(folder: Path) -> None:
    """Raise :class:`StoreError` where a checkpoint's folder holds what wisepatch has not written."""
    with suppress(PermissionError):  # then it cannot be removed either
        for path in folder.iterdir():
            name, is_folder = path.name.removesuffix(LOCK), path.is_dir() and not path.is_symlink()
            ours = (
                path.name in (MANIFEST, WEIGHTS) or PARTIAL_NAME.fullmatch(name) or OLDER_PARTIAL_NAME.fullmatch(name)
            )
            if not ours or (is_folder and any(path.iterdir())):
                raise StoreError(f"{path} was not written by wisepatch", f"move it elsewhere, or remove {folder}")


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("[!.]*") if path.is_dir() and not path.is_symlink())


def _dependents_first(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Sort checkpoints, each once, so that a removal that is interrupted leaves none without its parents."""
    left = {checkpoint.id: checkpoint for checkpoint in checkpoints}
    ordered: list[Checkpoint] = []
    while left:
        needed = {parent for checkpoint in left.values() for parent in checkpoint.parents}
        free = [identity for identity in left if identity not in needed] or list(left)
        ordered += [left.pop(identity) for identity in free]
    return ordered
