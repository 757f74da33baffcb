"""The store: checkpoints and recipes; written whole, hashed, verified.

A checkpoint is a folder ``checkpoints/<id>`` with ``manifest.json`` and, unless it is a recipe (merged from its parents when it is
loaded), ``model.safetensors``. It is written into a partial folder, its manifest last, and published by one rename: what has a
manifest is whole. Nothing is removed but what wisepatch can have written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError, UnknownNameError
from wisepatch.files import (
    PARTIAL,
    expanded,
    hash_tensors,
    is_leftover,
    locked,
    partial_folder,
    partial_path,
    publish,
    remove,
    remove_stale_lock,
    sha256,
    sync_folder,
    write_durably,
    write_tensors,
)
from wisepatch.store.cache import Cache, NewerStoreError, is_marked, versions, writing
from wisepatch.store.manifests import ID, MANIFEST, WEIGHTS, Checkpoint, Recipe, describe, identify, read_manifest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

    Tensors = Mapping[str, torch.Tensor]

__all__ = ["MANIFEST", "WEIGHTS", "Checkpoint", "Recipe", "Store", "describe"]

# What find() knows beside names and ids: the kinds of checkpoints, how they are called, and the command that makes one.
REFERENCES = {
    "zeroshot": (("zeroshot",), "zero-shot", "zeroshot --task TASK"),
    "finetuned": (("finetuned",), "fine-tuned", "finetune --task TASK"),
    "interpolated": (("interpolated",), "interpolated", "interpolate"),
    "patched": (("patched",), "patched", "patch --task TASK --supported TASKS"),
    "latest": (("finetuned", "patched"), "fine-tuned", "finetune --task TASK"),
}
MAX_ALPHA = 1e6
DAMAGED_HINT = "remove it with `wisepatch store rm` and make it again"


class Store:
    """A folder of checkpoints, results, predictions and cached things."""

    def __init__(self, root: Path | str) -> None:
        """Name the folder; nothing is read or made yet."""
        self.root = expanded(root)
        self.checkpoints = self.root / "checkpoints"
        self.predictions = self.root / "predictions"
        self.results = self.root / "results.jsonl"
        self.cache = Cache(self.root)

    def writing(self) -> AbstractContextManager[None]:
        """Make and mark the store; turn a refusal to write into a :class:`StoreError` that names it."""
        return writing(self.root)

    def save(
        self,
        weights: Tensors | Callable[[Path], str] | None,
        *,
        kind: str,
        name: str,
        model: Mapping[str, str],
        training: str = "",
        recipe: Recipe | None = None,
        trained_from: Iterable[str] = (),
        config: Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Write a checkpoint, or a recipe where ``weights`` is ``None``; the id follows from the content.

        ``weights`` may also be a function that writes them to a path, as safetensors, and returns the sha256 of the file.
        Saving the same content again keeps the id and makes it the newest. Raises :class:`StoreError` if it cannot be written.
        """
        content = Checkpoint(
            "", name, kind, dict(model), training, recipe, tuple(trained_from), dict(config or {}), dict(head) if head else None
        )  # fmt: skip
        with self.writing():
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            with partial_folder(self.checkpoints) as partial:
                path = partial / WEIGHTS
                if callable(weights):
                    content = replace(content, files={WEIGHTS: weights(path)}, parts=_hash_parts(path))
                elif weights is not None:
                    write_tensors(path, weights)
                    content = replace(content, files={WEIGHTS: sha256(path)}, parts=_hash_parts(path))
                return self._publish(partial, content)

    def _publish(self, partial: Path, content: Checkpoint) -> Checkpoint:
        """Give a partial folder its id and its manifest, and rename it into place."""
        identity = identify(content)
        folder, created = self.checkpoints / identity, datetime.now(UTC).isoformat()
        made_by = versions("torch", "open_clip_torch")
        checkpoint = replace(content, id=identity, versions=made_by, created=created, home=folder)
        manifest = json.dumps(describe(checkpoint), indent=2).encode()
        with self._lock(identity):
            write_durably(partial / MANIFEST, manifest)
            if not publish(partial, folder, lambda: _is_whole(checkpoint)):
                write_durably(folder / MANIFEST, manifest)
        return read_manifest(folder)

    def _lock(self, identity: str) -> AbstractContextManager[None]:
        return locked(self.checkpoints / f".{identity}.lock")

    def everything(self) -> list[Checkpoint]:
        """Return all checkpoints, oldest first; those whose manifest cannot be read are left out (see :meth:`unreadable`)."""
        return self._scan()[0]

    def unreadable(self) -> list[StoreError]:
        """Return why some manifests cannot be read."""
        return self._scan()[1]

    def _scan(self) -> tuple[list[Checkpoint], list[StoreError]]:
        checkpoints, problems = [], []
        for path in self.checkpoints.glob(f"[!.]*/{MANIFEST}"):
            try:
                checkpoints.append(read_manifest(path.parent))
            except StoreError as error:
                if not isinstance(error.__cause__, FileNotFoundError):  # removed by another process meanwhile
                    problems.append(error)
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.created), problems

    def check_own(self, checkpoint: Checkpoint) -> None:
        """Raise :class:`StoreError` for a checkpoint of another store: recipes need their parents beside them."""
        if checkpoint.home.parent.resolve() != self.checkpoints.resolve():
            hint = f"name that with --store {checkpoint.home.parent.parent}"
            raise StoreError(f"{checkpoint.name} ({checkpoint.id}) lies in another store", hint)

    def find(self, reference: str) -> Checkpoint:
        """Return the checkpoint that ``reference`` names.

        That is ``zeroshot``, ``finetuned``, ``interpolated``, ``patched`` (the newest of the kind), ``latest`` (the newest
        fine-tuned or patched one), a name (the newest of that name), the beginning of an id, or the path of a checkpoint's folder.

        Raises :class:`StoreError` where the store holds none of the kind, :class:`UnknownNameError` for any other word.
        """
        checkpoints, unreadable = self._scan()
        if reference in REFERENCES:
            kinds, described, command = REFERENCES[reference]
            of_kind = [checkpoint for checkpoint in checkpoints if checkpoint.kind in kinds]
            none = f"no {described} checkpoint in the store {self.root}"
            if not of_kind and unreadable:
                raise StoreError(f"{none} can be read: {unreadable[0].message}", unreadable[0].hint)
            if not of_kind:
                raise StoreError(f"{none} yet", f"run `wisepatch {command}` first, or name a store with --store")
            return of_kind[-1]
        named = {checkpoint.name: checkpoint for checkpoint in checkpoints}
        if reference in named:
            return named[reference]
        begun = [c for c in checkpoints if len(reference) >= 3 and c.id.startswith(reference)]
        if len(begun) > 1:
            ids = ", ".join(checkpoint.id for checkpoint in begun)
            raise StoreError(f"{reference!r} begins {len(begun)} ids: {ids}", "give more of the id")
        if begun:
            return begun[0]
        folder = Path(reference)
        folder = folder.parent if folder.name == MANIFEST else folder
        if _is_file(folder / MANIFEST):
            return read_manifest(folder.resolve())
        hint = "`wisepatch store list` lists the names and ids there are"
        raise UnknownNameError("checkpoint", reference, named, hint)

    def get(self, identity: str) -> Checkpoint:
        """Return the checkpoint with exactly this id. Raises :class:`StoreError` if it is gone."""
        folder = self.checkpoints / identity
        if not ID.fullmatch(identity) or not (folder / MANIFEST).is_file():
            raise StoreError(f"checkpoint {identity} is not in the store {self.root}", "it was removed; make it again")
        return read_manifest(folder)

    def read(self, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """Return the tensors of a checkpoint that has weights; raises :class:`StoreError` where they differ by one bit."""
        from safetensors.torch import load_file

        return load_file(self.weights_path(checkpoint))

    def read_part(self, checkpoint: Checkpoint, part: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a part that the manifest has a hash of, verified by it; nothing else is read.

        Raises :class:`StoreError` where the file is missing or the part differs by one bit.
        """
        from safetensors import SafetensorError, safe_open

        label = f"checkpoint {checkpoint.id} ({checkpoint.name})"
        try:
            with safe_open(checkpoint.home / WEIGHTS, "pt") as file:
                names = part_of(file.keys(), part)
                # Copied out of the memory map: where a tensor begins in memory decides about the last bit of a product.
                tensors = {short: file.get_tensor(name).clone() for short, name in names.items()}
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{label} has lost {WEIGHTS}, or it is damaged: {error}", DAMAGED_HINT) from error
        if hash_tensors(tensors) != checkpoint.parts[part]:
            reason = f"its {part} tensors do not have the hash that its manifest names"
            raise StoreError(f"{label} is damaged: {reason}", DAMAGED_HINT)
        return tensors

    def weights_path(self, checkpoint: Checkpoint) -> Path:
        """Return the file of a checkpoint that has weights, verified. Raises :class:`StoreError` as :meth:`read` does."""
        problem = self.problem(checkpoint)
        if problem:
            raise StoreError(problem, DAMAGED_HINT)
        return checkpoint.home / WEIGHTS

    def problem(self, checkpoint: Checkpoint) -> str:
        """Return what is wrong with the manifest, the files or the parents of a checkpoint; empty if nothing is."""
        problem = _file_problem(checkpoint) or _home(checkpoint)._recipe_problem(checkpoint)
        if not problem and checkpoint.schema > 1 and identify(checkpoint) != checkpoint.id:
            problem = f"is damaged: {checkpoint.home / MANIFEST} does not have the content that its id names"
        return f"checkpoint {checkpoint.id} ({checkpoint.name}) {problem}" if problem else ""

    def _recipe_problem(self, checkpoint: Checkpoint) -> str:
        """Return what is wrong with a recipe: alpha, method, parents (also those of its parents), Fisher information."""
        recipe = checkpoint.recipe
        if checkpoint.files:
            return ""
        if recipe is None:
            return "has neither weights nor a recipe"
        if not recipe.method or not recipe.parents:
            return f"is a recipe without {'parents' if recipe.method else 'a method'}"
        if problem := _params_problem(recipe):
            return problem
        try:
            self._check_ancestors(checkpoint)
            self.cache.fisher_paths(recipe.fisher_files)
        except StoreError as error:
            return f"is a recipe, and {error.message}"
        return ""

    def _check_ancestors(self, checkpoint: Checkpoint) -> None:
        """Raise :class:`StoreError` where a parent of a recipe, or of a recipe among its parents, is gone or is itself."""
        graph: dict[str, tuple[str, ...]] = {}
        waiting = [checkpoint]
        while waiting:
            recipe = waiting.pop()
            graph[recipe.id] = recipe.parents
            parents = [self.get(identity) for identity in recipe.parents if identity not in graph]
            waiting += [parent for parent in parents if parent.is_recipe]
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            raise StoreError(f"it is merged from itself: {' from '.join(error.args[1])}", "") from error

    def parents(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Return what a checkpoint was merged or trained from; StoreError where that is gone or is the checkpoint itself."""
        store = _home(checkpoint)
        if checkpoint.is_recipe and checkpoint.recipe:
            if problem := _params_problem(checkpoint.recipe):
                raise StoreError(f"checkpoint {checkpoint.id} ({checkpoint.name}) {problem}", DAMAGED_HINT)
            store._check_ancestors(checkpoint)
        return [store.get(parent) for parent in checkpoint.parents]

    def read_fishers(self, checkpoint: Checkpoint) -> tuple[dict[str, torch.Tensor], ...]:
        """Return the Fisher information of each parent that a recipe is merged with; raises as :meth:`fisher_paths` does."""
        from safetensors.torch import load_file

        return tuple(load_file(path) for path in self.fisher_paths(checkpoint))

    def fisher_paths(self, checkpoint: Checkpoint) -> tuple[Path, ...]:
        """Return the files of the Fisher information that a recipe is merged with, verified; none where it needs none.

        Raises :class:`StoreError` where one was removed or differs by one bit.
        """
        files = checkpoint.recipe.fisher_files if checkpoint.recipe else ()
        return _home(checkpoint).cache.fisher_paths(files)

    def size(self, checkpoint: Checkpoint) -> int:
        """Count the bytes of a checkpoint's own files."""
        return sum(path.stat().st_size for file in checkpoint.files if (path := checkpoint.home / file).is_file())

    def children(self, *checkpoints: Checkpoint) -> list[Checkpoint]:
        """Return the recipes that are merged from any of these, also through other recipes."""
        needed = {checkpoint.id for checkpoint in checkpoints}
        children: list[Checkpoint] = []
        recipes = [other for other in self.everything() if other.is_recipe]
        while more := [r for r in recipes if r.id not in needed and needed & set(r.parents)]:
            children += more
            needed |= {r.id for r in more}
        return children

    def remove(self, checkpoints: Sequence[Checkpoint], *, with_recipes: bool = False) -> list[Checkpoint]:
        """Remove checkpoints, all or none, and return what went; recipes that need them go too, or are the reason to refuse.

        Raises :class:`StoreError` for a checkpoint of another store, and where one that stays needs one that is to go.
        """
        named = {checkpoint.id: checkpoint for checkpoint in checkpoints}
        for checkpoint in named.values():
            self.check_own(checkpoint)
        self._check_removable()
        children = self.children(*named.values())
        if children and not with_recipes:
            parent = next(named[each] for each in children[0].parents if each in named)
            reason = f"{len(children)} recipes are mixed from {parent.id} ({parent.name}), such as {children[0].name}"
            raise StoreError(reason, "give --recipes to remove them with it")
        plan = {child.id: child for child in children} | named
        for other in self.everything():
            starts = [plan[each] for each in other.trained_from if each in plan]
            if starts and other.id not in plan:
                reason = f"{other.id} ({other.name}) was trained from {starts[0].id} ({starts[0].name})"
                raise StoreError(reason, f"remove {other.name} first, or name both")
        ordered = _dependents_first(plan.values())
        for checkpoint in ordered:
            with self.writing(), self._lock(checkpoint.id):
                aside = partial_path(self.checkpoints)
                checkpoint.home.rename(aside)
                sync_folder(self.checkpoints)
                remove(aside)
        return ordered

    def collect_garbage(self, *, caches: bool = False) -> list[Path]:
        """Remove what interrupted writes left, and recipes whose parents or Fisher information are gone; return the paths.

        ``caches`` removes cached pixels and features too, which are made again when they are needed. Nothing else is touched:
        a folder without a manifest may be another tool's. Raises :class:`StoreError` for a folder that is no store.
        """
        if not self.root.exists():
            return []
        self._check_removable()
        orphans = [checkpoint for checkpoint in self.everything() if self._is_orphan(checkpoint)]
        gone = [checkpoint.home for checkpoint in _dependents_first([*orphans, *self.children(*orphans)])]
        gone += self.cache.removable() if caches else []
        ours = (path.parent for path in self.checkpoints.glob(f"*/{MANIFEST}") if ID.fullmatch(path.parent.name))
        folders = [
            self.root, self.checkpoints, *ours, self.predictions, *self.predictions.glob("*"), *self.cache.root.glob("*"),
        ]  # fmt: skip
        gone += sorted(path for folder in folders for path in folder.glob(f"{PARTIAL}*") if is_leftover(path))
        locks = [*self.checkpoints.glob(".????????????.lock"), *self.cache.root.glob("*/.?*.lock")]
        with self.writing():
            for path in gone:
                remove(path)
            return gone + [path for path in locks if remove_stale_lock(path)]

    def _is_orphan(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.recipe is None or checkpoint.files:
            return False
        lost = any(not (self.checkpoints / parent / MANIFEST).is_file() for parent in checkpoint.parents)
        return lost or not all(self.cache.fisher_candidates(digest) for digest, _ in checkpoint.recipe.fisher_files)

    def _check_removable(self) -> None:
        """Raise :class:`StoreError` for a folder that is not a store, and for one in which a newer wisepatch has written."""
        checkpoints, unreadable = self._scan()
        if newer := [error for error in unreadable if isinstance(error, NewerStoreError)]:
            raise newer[0]
        if not is_marked(self.root) and not checkpoints:
            raise StoreError(f"the folder {self.root} is not a store of wisepatch", "name one with --store")


def _home(checkpoint: Checkpoint) -> Store:
    """Return the store in which a checkpoint lies."""
    return Store(checkpoint.home.parent.parent)


def part_of(names: Iterable[str], part: str) -> dict[str, str]:
    """Return the names of a part's tensors in a checkpoint, by their names in the part.

    ``visual`` (named as in the image tower), ``classifier`` (the trained head), and ``text``, all the rest.
    """
    if part == "text":
        return {name: name for name in names if name.partition(".")[0] not in ("visual", "classifier")}
    return {name.removeprefix("visual."): name for name in names if name.startswith(f"{part}.")}


def _hash_parts(path: Path) -> dict[str, str]:
    """Hash the tensors of a file of weights by part."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    return {
        part: hash_tensors({short: tensors[name] for short, name in names.items()})
        for part in ("visual", "text", "classifier")
        if (names := part_of(tensors, part))
    }


def _params_problem(recipe: Recipe) -> str:
    """Return what is wrong with alpha and the number of parents, of which linear and fisher need two; empty if nothing is."""
    linear = recipe.method in ("linear", "fisher")
    if linear and len(recipe.parents) != 2:
        return f"is a {recipe.method} recipe of {len(recipe.parents)} parents, not of two"
    alpha = recipe.params.get("alpha", None if linear else 0)
    if isinstance(alpha, int | float) and abs(alpha) <= MAX_ALPHA:  # NaN is not
        return ""
    return "is a recipe without alpha" if alpha is None else f"is a recipe with alpha {str(alpha)[:40]}"


def _file_problem(checkpoint: Checkpoint) -> str:
    for file, digest in checkpoint.files.items():
        path = checkpoint.home / file
        if not path.is_file():
            return f"has lost {file}"
        if sha256(path) != digest:
            return f"is damaged: {file} does not have the sha256 that its manifest names"
    return ""


def _is_whole(checkpoint: Checkpoint) -> bool:
    """Tell whether this very content is in the store already, undamaged."""
    try:
        return identify(read_manifest(checkpoint.home)) == checkpoint.id and not _file_problem(checkpoint)
    except NewerStoreError:
        raise
    except StoreError:
        return False


def _dependents_first(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Sort checkpoints, each once, so that a removal that is interrupted leaves none without its parents."""
    left = {checkpoint.id: checkpoint for checkpoint in checkpoints}
    ordered: list[Checkpoint] = []
    while left:
        needed = {parent for checkpoint in left.values() for parent in checkpoint.parents}
        free = [identity for identity in left if identity not in needed] or list(left)
        ordered += [left.pop(identity) for identity in free]
    return ordered


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
