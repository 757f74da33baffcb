"""The store: checkpoints and recipes; written whole, hashed, verified.

A checkpoint is a folder ``checkpoints/<id>`` with ``manifest.json`` and, unless it is a recipe (merged from its parents when it is
loaded), ``model.safetensors``. It is written into a partial folder, its manifest last, and published by one rename: what has a
manifest is whole. Nothing is removed but what wisepatch can have written.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError, UnknownNameError
from wisepatch.files import (
    PARTIAL,
    hash_tensors,
    is_leftover,
    locked,
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
    import torch

    Tensors = Mapping[str, torch.Tensor]

__all__ = ["KINDS", "MANIFEST", "WEIGHTS", "Checkpoint", "Recipe", "Store", "describe"]

KINDS = ("zeroshot", "finetuned", "interpolated", "patched")
COMMANDS = {
    "zeroshot": "run `wisepatch zeroshot --task TASK`",
    "interpolated": "run `wisepatch interpolate`",
    "patched": "run `wisepatch patch --task TASK --supported TASKS`",
}


class Store:
    """A folder of checkpoints, results, predictions and cached things."""

    def __init__(self, root: Path | str) -> None:
        """Name the folder; nothing is read or made yet."""
        self.root = Path(root).expanduser()
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
            partial = partial_path(self.checkpoints)
            partial.mkdir()
            try:
                if callable(weights):
                    content = replace(content, files={WEIGHTS: weights(partial / WEIGHTS)})
                elif weights is not None:
                    write_tensors(partial / WEIGHTS, weights)
                    content = replace(content, files={WEIGHTS: sha256(partial / WEIGHTS)})
                if content.files:
                    content = replace(content, parts=_hash_parts(partial / WEIGHTS))
                return self._publish(partial, content)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def _publish(self, partial: Path, content: Checkpoint) -> Checkpoint:
        """Give a partial folder its id and its manifest, and rename it into place."""
        identity = identify(content)
        folder, made_by = self.checkpoints / identity, versions("torch", "open_clip_torch")
        with self._lock(identity):
            created = datetime.now(UTC).isoformat()
            checkpoint = replace(content, id=identity, versions=made_by, created=created, home=folder)
            manifest = json.dumps(describe(checkpoint), indent=2).encode()
            write_durably(partial / MANIFEST, manifest)
            if not publish(partial, folder, lambda: self._is_whole(checkpoint)):
                write_durably(folder / MANIFEST, manifest)
        return read_manifest(folder)

    def _is_whole(self, checkpoint: Checkpoint) -> bool:
        """Tell whether this very content is in the store already, undamaged."""
        try:
            return identify(read_manifest(checkpoint.home)) == checkpoint.id and not _file_problem(checkpoint)
        except NewerStoreError:
            raise
        except StoreError:
            return False

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
            raise StoreError(
                f"{checkpoint.name} ({checkpoint.id}) lies in another store",
                f"name that with --store {checkpoint.home.parent.parent}",
            )

    def find(self, reference: str) -> Checkpoint:
        """Return the checkpoint that ``reference`` names.

        That is ``zeroshot``, ``finetuned``, ``patched`` (the newest of the kind), ``latest`` (the newest fine-tuned or
        patched one), a name (the newest of that name), the beginning of an id, or the path of a checkpoint's folder.

        Raises :class:`StoreError` where the store holds none of the kind, :class:`UnknownNameError` for any other word.
        """
        checkpoints, unreadable = self._scan()
        if reference in KINDS or reference == "latest":
            return self._newest(reference, checkpoints, unreadable)
        named = [checkpoint for checkpoint in checkpoints if checkpoint.name == reference]
        if named:
            return named[-1]
        begun = [
            checkpoint for checkpoint in checkpoints if len(reference) >= 3 and checkpoint.id.startswith(reference)
        ]
        if len(begun) == 1:
            return begun[0]
        if begun:
            raise StoreError(
                f"{reference!r} begins {len(begun)} ids: {', '.join(c.id for c in begun)}", "give more of the id"
            )
        folder = Path(reference)
        folder = folder.parent if folder.name == MANIFEST else folder
        if _is_file(folder / MANIFEST):
            return read_manifest(folder.resolve())
        known = {checkpoint.name for checkpoint in checkpoints}
        raise UnknownNameError(
            "checkpoint", reference, known, "`wisepatch store list` lists the names and ids there are"
        )

    def _newest(self, kind: str, checkpoints: Sequence[Checkpoint], unreadable: Sequence[StoreError]) -> Checkpoint:
        wanted = ("finetuned", "patched") if kind == "latest" else (kind,)
        of_kind = [checkpoint for checkpoint in checkpoints if checkpoint.kind in wanted]
        if of_kind:
            return of_kind[-1]
        described = "fine-tuned" if kind in ("finetuned", "latest") else kind.replace("zeros", "zero-s")
        if unreadable:
            raise StoreError(
                f"no {described} checkpoint in the store {self.root} can be read: {unreadable[0].message}", unreadable[0].hint
            )  # fmt: skip
        step = COMMANDS.get(kind, "run `wisepatch finetune --task TASK`")
        raise StoreError(
            f"no {described} checkpoint in the store {self.root} yet", f"{step} first, or name a store with --store"
        )

    def get(self, identity: str) -> Checkpoint:
        """Return the checkpoint with exactly this id. Raises :class:`StoreError` if it is gone."""
        folder = self.checkpoints / identity
        if not ID.fullmatch(identity) or not _is_file(folder / MANIFEST):
            raise StoreError(f"checkpoint {identity} is not in the store {self.root}", "it was removed; make it again")
        return read_manifest(folder)

    def read(self, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """Return the tensors of a checkpoint that has weights, verified against its manifest.

        Raises :class:`StoreError` where a file is missing or differs by one bit.
        """
        from safetensors.torch import load_file

        return load_file(self.weights_path(checkpoint))

    def read_part(self, checkpoint: Checkpoint, part: str) -> dict[str, torch.Tensor]:
        """Return the tensors of a part that the manifest has a hash of, verified by it; nothing else is read.

        Raises :class:`StoreError` where the file is missing or the part differs by one bit.
        """
        from safetensors import SafetensorError, safe_open

        label, hint = (
            f"checkpoint {checkpoint.id} ({checkpoint.name})",
            "remove it with `wisepatch store rm` and make it again",
        )
        try:
            with safe_open(checkpoint.home / WEIGHTS, "pt") as file:
                names = part_of(file.keys(), part)
                # Copied out of the memory map: where a tensor begins in memory decides about the last bit of a product.
                tensors = {short: file.get_tensor(name).clone() for short, name in names.items()}
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{label} has lost {WEIGHTS}, or it is damaged: {error}", hint) from error
        if hash_tensors(tensors) != checkpoint.parts[part]:
            raise StoreError(
                f"{label} is damaged: its {part} tensors do not have the hash that its manifest names", hint
            )
        return tensors

    def weights_path(self, checkpoint: Checkpoint) -> Path:
        """Return the file of a checkpoint that has weights, verified. Raises :class:`StoreError` as :meth:`read` does."""
        problem = self.problem(checkpoint)
        if problem:
            raise StoreError(problem, "remove it with `wisepatch store rm` and make it again")
        return checkpoint.home / WEIGHTS

    def problem(self, checkpoint: Checkpoint) -> str:
        """Return what is wrong with the manifest, the files or the parents of a checkpoint; empty if nothing is."""
        problem = _file_problem(checkpoint) or _home(checkpoint)._recipe_problem(checkpoint)
        if not problem and checkpoint.schema > 1 and identify(checkpoint) != checkpoint.id:
            problem = (
                f"is damaged: its manifest {checkpoint.home / MANIFEST} does not have the content that its id names"
            )
        return f"checkpoint {checkpoint.id} ({checkpoint.name}) {problem}" if problem else ""

    def _recipe_problem(self, checkpoint: Checkpoint) -> str:
        """Return what is wrong with a recipe: alpha, method, parents (also those of its parents), Fisher information."""
        recipe = checkpoint.recipe
        if checkpoint.files:
            return ""
        if recipe is None:
            return "has neither weights nor a recipe"
        alpha = recipe.params.get("alpha", 0)
        if not isinstance(alpha, int | float) or not math.isfinite(alpha):
            return f"is a recipe with alpha {alpha}"
        if not recipe.method or not recipe.parents:
            return f"is a recipe without {'parents' if recipe.method else 'a method'}"
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
            for parent in (self.get(identity) for identity in recipe.parents if identity not in graph):
                if parent.is_recipe:
                    waiting.append(parent)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            raise StoreError(f"it is merged from itself: {' from '.join(error.args[1])}", "") from error

    def parents(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Return the checkpoints that one was merged or trained from, in the store in which it lies itself.

        Raises :class:`StoreError` where one is gone, and for a recipe that is merged from itself.
        """
        store = _home(checkpoint)
        if checkpoint.is_recipe:
            store._check_ancestors(checkpoint)
        return [store.get(parent) for parent in checkpoint.parents]

    def read_fishers(self, checkpoint: Checkpoint) -> tuple[dict[str, torch.Tensor], ...] | None:
        """Return the Fisher information of each parent that a recipe is merged with, ``None`` where it needs none.

        Raises as :meth:`fisher_paths` does.
        """
        from safetensors.torch import load_file

        paths = self.fisher_paths(checkpoint)
        return tuple(load_file(path) for path in paths) if paths else None

    def fisher_paths(self, checkpoint: Checkpoint) -> tuple[Path, ...] | None:
        """Return the files of the Fisher information that a recipe is merged with, verified; ``None`` where it needs none.

        Raises :class:`StoreError` where one was removed or differs by one bit.
        """
        files = checkpoint.recipe.fisher_files if checkpoint.is_recipe and checkpoint.recipe else ()
        return _home(checkpoint).cache.fisher_paths(files) if files else None

    def size(self, checkpoint: Checkpoint) -> int:
        """Count the bytes of a checkpoint's own files."""
        return sum(path.stat().st_size for file in checkpoint.files if (path := checkpoint.home / file).is_file())

    def children(self, *checkpoints: Checkpoint) -> list[Checkpoint]:
        """Return the recipes that are merged from any of these, also through other recipes; those that need others come first."""
        needed = {checkpoint.id for checkpoint in checkpoints}
        children: list[Checkpoint] = []
        recipes = [other for other in self.everything() if other.is_recipe]
        while more := [r for r in recipes if r.id not in needed and needed & set(r.parents)]:
            children = more + children
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
        children = [child for child in self.children(*named.values()) if child.id not in named]
        if children and not with_recipes:
            parent = next(
                (named[p] for child in reversed(children) for p in child.parents if p in named), checkpoints[0]
            )
            raise StoreError(
                f"{len(children)} recipes are mixed from {parent.id} ({parent.name}), such as {children[0].name}",
                "give --recipes to remove them with it",
            )
        plan = {child.id: child for child in children} | named
        for other in self.everything():
            start = next((plan[each] for each in other.trained_from if each in plan), None)
            if start and other.id not in plan:
                raise StoreError(
                    f"{other.id} ({other.name}) was trained from {start.id} ({start.name})",
                    f"remove {other.name} first, or name both",
                )
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
        gone += sorted(
            path for pattern in self._leftover_patterns() for path in self.root.glob(pattern) if is_leftover(path)
        )
        locks = [*self.checkpoints.glob(".????????????.lock"), *self.cache.root.glob("*/.?*.lock")]
        with self.writing():
            for path in gone:
                remove(path)
            gone += [path for path in locks if remove_stale_lock(path)]
        return gone

    def _leftover_patterns(self) -> list[str]:
        checkpoints = (
            path.parent.name for path in self.checkpoints.glob(f"*/{MANIFEST}") if ID.fullmatch(path.parent.name)
        )
        folders = (
            "",
            "checkpoints/",
            "predictions/",
            "predictions/*/",
            "cache/*/",
            *(f"checkpoints/{c}/" for c in checkpoints),
        )
        return [f"{folder}{PARTIAL}*" for folder in folders]

    def _is_orphan(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.recipe is None or checkpoint.files:
            return False
        lost = [p for p in checkpoint.parents if not _is_file(self.checkpoints / p / MANIFEST)]
        return bool(lost) or not all(self.cache.has_fisher(digest) for digest, _ in checkpoint.recipe.fisher_files)

    def _check_removable(self) -> None:
        """Raise :class:`StoreError` for a folder that is not a store, and for one in which a newer wisepatch has written."""
        checkpoints, unreadable = self._scan()
        for error in unreadable:
            if isinstance(error, NewerStoreError):
                raise error
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
    parts = {part: part_of(tensors, part) for part in ("visual", "text", "classifier")}
    return {
        part: hash_tensors({short: tensors[name] for short, name in names.items()})
        for part, names in parts.items()
        if names
    }


def _file_problem(checkpoint: Checkpoint) -> str:
    for file, digest in checkpoint.files.items():
        path = checkpoint.home / file
        if not path.is_file():
            return f"has lost {file}"
        if sha256(path) != digest:
            return f"is damaged: {file} does not have the sha256 that its manifest names"
    return ""


def _dependents_first(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Sort checkpoints, each once, so that a removal that is interrupted leaves none without its parents."""
    left = {checkpoint.id: checkpoint for checkpoint in checkpoints}
    ordered: list[Checkpoint] = []
    while left:
        needed = {parent for checkpoint in left.values() for parent in checkpoint.parents}
        free = [checkpoint for checkpoint in left.values() if checkpoint.id not in needed] or list(left.values())
        ordered += free
        left = {identity: checkpoint for identity, checkpoint in left.items() if checkpoint not in free}
    return ordered


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
