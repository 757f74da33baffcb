"""The store: checkpoints and recipes; written whole, hashed, verified.

A checkpoint is a folder ``checkpoints/<id>`` with ``manifest.json`` and, unless it is a recipe (merged from its parents when it is
loaded), ``model.safetensors``. It is written into a partial folder, its manifest last, and published by one rename: what has a
manifest is whole. Nothing is removed but what wisepatch can have written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError
from wisepatch.files import (
    check_room,
    check_writable,
    expanded,
    hash_tensors,
    in_utf8,
    is_utf8,
    partial_folder,
    publish,
    sha256,
    write_durably,
    write_tensors,
)
from wisepatch.store import references, removal, verification
from wisepatch.store.cache import FISHER_ENTRIES, GRAM_ENTRIES, Cache, versions
from wisepatch.store.manifests import (
    MANIFEST,
    WEIGHTS,
    Checkpoint,
    Recipe,
    describe,
    identify,
    manifest_bytes,
    manifests_below,
    parse_manifest,
    read_manifest,
)
from wisepatch.store.parts import hash_parts, part_of
from wisepatch.store.sharing import NewerStoreError, add_to_lease, next_moment, store_lock, writing

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

    Tensors = Mapping[str, torch.Tensor]

__all__ = ["MANIFEST", "WEIGHTS", "Checkpoint", "Recipe", "Store", "describe"]


class Store:
    """A folder of checkpoints, results, predictions and cached things."""

    def __init__(self, root: Path | str) -> None:
        """Name the folder; nothing is read or made yet. Raises :class:`StoreError` for a name that safetensors cannot open."""
        self.root = expanded(root)
        if not is_utf8(str(self.root)):
            problem = f"the store {in_utf8(str(self.root))}: its name is not in UTF-8, as safetensors needs it"
            raise StoreError(problem, "name another folder with --store or WISEPATCH_STORE")
        self.checkpoints = self.root / "checkpoints"
        self.predictions = self.root / "predictions"
        self.results = self.root / "results.jsonl"
        self.cache = Cache(self.root)

    def __repr__(self) -> str:
        """Return the folder."""
        return f"Store({str(self.root)!r})"

    def writing(self) -> AbstractContextManager[None]:
        """Make and mark the store; turn a refusal to write into a :class:`StoreError` that names it."""
        return writing(self.root)

    def can_be_written(self) -> bool:
        """Tell whether files can be made in the store, or the store itself; one that cannot be written can be read."""
        with suppress(OSError):
            check_writable(self.root, folder=True)
            return True
        return False

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
                    content = replace(content, files={WEIGHTS: weights(path)}, parts=hash_parts(path))
                elif weights is not None:
                    check_room(self.root, sum(tensor.nbytes for tensor in weights.values()))
                    write_tensors(path, weights)
                    content = replace(content, files={WEIGHTS: sha256(path)}, parts=hash_parts(path))
                return self._publish(partial, content)

    def _publish(self, partial: Path, content: Checkpoint) -> Checkpoint:
        """Give a partial folder its id and its manifest, and rename it into place."""
        identity = identify(content)
        folder, made_by = self.checkpoints / identity, versions("torch", "open_clip_torch")
        with store_lock(self.root):
            created = next_moment(self.root)
            checkpoint = replace(content, id=identity, versions=made_by, created=created, home=folder)
            manifest = manifest_bytes(checkpoint)
            write_durably(partial / MANIFEST, manifest)
            add_to_lease(self.root, identity)
            if not publish(partial, folder, lambda: _is_whole(checkpoint)):
                write_durably(folder / MANIFEST, manifest)
        return parse_manifest(manifest, folder)

    def everything(self) -> list[Checkpoint]:
        """Return all checkpoints, oldest first; those whose manifest cannot be read are left out (see :meth:`unreadable`)."""
        return self.scan()[0]

    def unreadable(self) -> list[StoreError]:
        """Return why some manifests cannot be read."""
        return self.scan()[1]

    def scan(self) -> tuple[list[Checkpoint], list[StoreError]]:
        """Return all checkpoints, oldest first, and why other manifests cannot be read."""
        checkpoints, problems = [], []
        for folder, content in manifests_below(self.checkpoints):
            try:
                if isinstance(content, StoreError):
                    raise content
                checkpoints.append(parse_manifest(content, folder))
            except StoreError as error:
                problems.append(error)
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.created), problems

    def owns(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a checkpoint lies in this store."""
        return checkpoint.home.parent.resolve() == self.checkpoints.resolve()

    def check_own(self, checkpoint: Checkpoint) -> None:
        """Raise :class:`StoreError` for a checkpoint of another store: recipes need their parents beside them."""
        if not self.owns(checkpoint):
            hint = f"name that with --store {checkpoint.home.parent.parent}"
            raise StoreError(f"{checkpoint.name} ({checkpoint.id}) lies in another store", hint)

    def find(self, reference: str) -> Checkpoint:
        """Return the checkpoint that a word names, which other processes cannot remove until this one ends.

        See :func:`~wisepatch.store.references.find`: ``zeroshot``, ``finetuned``, ``patched``, ``latest``, a name, the beginning of
        an id, or a path.
        """
        return references.find(self, reference)

    def look_up(self, reference: str) -> Checkpoint:
        """Return the checkpoint that a word names as :meth:`find` does, for one that may be removed at any time."""
        return references.look_up(self, reference)

    def look_up_damaged(self, reference: str) -> Checkpoint:
        """Return what :meth:`look_up` does, also for the id of one whose manifest cannot be read: to be removed, nothing else."""
        return references.look_up_damaged(self, reference)

    def get(self, identity: str) -> Checkpoint:
        """Return the checkpoint with exactly this id. Raises :class:`StoreError` if it is gone."""
        checkpoint = references.by_id(self, identity)
        if checkpoint is None:
            raise StoreError(f"checkpoint {identity} is not in the store {self.root}", "it was removed; make it again")
        return checkpoint

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
            raise StoreError(
                f"{label} has lost {WEIGHTS}, or it is damaged: {error}", verification.DAMAGED_HINT
            ) from error
        if hash_tensors(tensors) != checkpoint.parts[part]:
            reason = f"its {part} tensors do not have the hash that its manifest names"
            raise StoreError(f"{label} is damaged: {reason}", verification.DAMAGED_HINT)
        return tensors

    def weights_path(self, checkpoint: Checkpoint) -> Path:
        """Return the file of a checkpoint that has weights, verified. Raises :class:`StoreError` as :meth:`read` does."""
        problem = self.problem(checkpoint)
        if problem:
            raise StoreError(problem, verification.DAMAGED_HINT)
        return checkpoint.home / WEIGHTS

    def problem(self, checkpoint: Checkpoint) -> str:
        """Return what is wrong with the manifest, the files or the parents of a checkpoint; empty if nothing is."""
        return verification.problem(_home(checkpoint), checkpoint)

    def problems(self, checkpoints: Iterable[Checkpoint]) -> dict[str, str]:
        """Return what is wrong with each checkpoint, by id; those that another process removes meanwhile are left out."""
        found = {checkpoint.id: self.problem(checkpoint) for checkpoint in checkpoints}
        return {
            identity: problem for identity, problem in found.items() if not problem or references.by_id(self, identity)
        }

    def parents(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Return what a checkpoint was merged or trained from; StoreError where that is gone or is the checkpoint itself."""
        store = _home(checkpoint)
        if checkpoint.recipe and checkpoint.is_recipe:
            if problem := verification.params_problem(checkpoint.recipe):
                raise StoreError(
                    f"checkpoint {checkpoint.id} ({checkpoint.name}) is a recipe {problem}", verification.DAMAGED_HINT
                )
            verification.check_ancestors(store, checkpoint)
        return [store.get(parent) for parent in checkpoint.parents]

    def read_fishers(self, checkpoint: Checkpoint) -> tuple[dict[str, torch.Tensor], ...]:
        """Return the Fisher information of each parent that a recipe is merged with; raises as :meth:`fisher_paths` does."""
        from safetensors.torch import load_file

        return tuple(load_file(path) for path in self.fisher_paths(checkpoint))

    def fisher_paths(self, checkpoint: Checkpoint) -> tuple[Path, ...]:
        """Return the files of the Fisher information that a recipe is merged with, verified; none where it needs none.

        Raises :class:`StoreError` where one was removed or differs by one bit.
        """
        if checkpoint.recipe is None:
            return ()
        kind = GRAM_ENTRIES if "gram" in checkpoint.recipe.params else FISHER_ENTRIES
        return _home(checkpoint).cache.fisher_paths(checkpoint.recipe.fisher_files, kind)

    def size(self, checkpoint: Checkpoint) -> int:
        """Count the bytes of a checkpoint's own files."""
        return sum(path.stat().st_size for file in checkpoint.files if (path := checkpoint.home / file).is_file())

    def children(self, *checkpoints: Checkpoint) -> list[Checkpoint]:
        """Return the recipes that are merged from any of these, also through other recipes."""
        return removal.children(self.everything(), checkpoints)

    def remove(self, checkpoints: Sequence[Checkpoint], *, with_recipes: bool = False) -> list[Checkpoint]:
        """Remove checkpoints, all or none, and return what went; recipes that need them go too, or are the reason to refuse.

        Raises :class:`StoreError` for a checkpoint of another store, where one that stays needs one that is to go, and where a
        running process uses one.
        """
        return removal.remove_checkpoints(self, checkpoints, with_recipes=with_recipes)

    def collect_garbage(self, *, caches: bool = False, runs: bool = False) -> list[Path]:
        """Remove what nothing needs any more, and return the paths; see :func:`~wisepatch.store.removal.collect_garbage`."""
        return removal.collect_garbage(self, caches=caches, runs=runs)


def _home(checkpoint: Checkpoint) -> Store:
    """Return the store in which a checkpoint lies."""
    return Store(checkpoint.home.parent.parent)


def _is_whole(checkpoint: Checkpoint) -> bool:
    """Tell whether this very content is in the store already, undamaged."""
    try:
        return identify(read_manifest(checkpoint.home)) == checkpoint.id and not verification.file_problem(checkpoint)
    except NewerStoreError:
        raise
    except StoreError:
        return False
