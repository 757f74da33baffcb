"""The store: checkpoints and recipes; written whole, hashed, verified.

A checkpoint is a folder ``checkpoints/<id>`` with ``manifest.json`` and, unless it is a recipe (merged from its parents when it is
loaded), ``model.safetensors``. It is written into a partial folder, its manifest last, and published by one rename: what has a
manifest is whole. Nothing is removed but what wisepatch can have written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError, UnknownNameError
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
from wisepatch.store import removal, verification
from wisepatch.store.cache import Cache, versions
from wisepatch.store.manifests import (
    ID,
    MANIFEST,
    WEIGHTS,
    Checkpoint,
    Recipe,
    UnreadableManifestError,
    describe,
    identify,
    is_gone,
    manifest_bytes,
    manifest_content,
    parse_manifest,
    read_manifest,
)
from wisepatch.store.sharing import NewerStoreError, add_to_lease, next_moment, store_lock, use, writing

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
    "merged": (("merged",), "merged", "merge CHECKPOINT..."),
    "latest": (("finetuned", "patched"), "fine-tuned", "finetune --task TASK"),
}
CREATED = re.compile(rb'"created": *"([^"]*)"')
DAMAGED_HINT = "remove it with `wisepatch store rm` and make it again"


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
                    content = replace(content, files={WEIGHTS: weights(path)}, parts=_hash_parts(path))
                elif weights is not None:
                    check_room(self.root, sum(tensor.nbytes for tensor in weights.values()))
                    write_tensors(path, weights)
                    content = replace(content, files={WEIGHTS: sha256(path)}, parts=_hash_parts(path))
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
        for folder, content in self._manifests():
            try:
                if isinstance(content, StoreError):
                    raise content
                checkpoints.append(parse_manifest(content, folder))
            except StoreError as error:
                problems.append(error)
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.created), problems

    def _manifests(self) -> Iterator[tuple[Path, bytes | StoreError]]:
        """Yield each folder that has a manifest with its content, or why that cannot be read; a foreign folder is no matter."""
        try:
            folders = [path for path in self.checkpoints.iterdir() if path.name[0] != "."]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StoreError(
                f"{self.checkpoints} cannot be read: {error.strerror}", "look at its permissions"
            ) from error
        for folder in folders:
            try:
                yield folder, manifest_content(folder)
            except UnreadableManifestError as error:
                if not is_gone(error) and ID.fullmatch(folder.name):
                    yield folder, error

    def _newest(self, words: Sequence[str], fits: Callable[[Checkpoint], bool]) -> Checkpoint | None:
        """Return the newest checkpoint that ``fits``; manifests without one of the words are not parsed, nor are older ones."""
        needles = [json.dumps(word).encode() for word in words]
        candidates = [
            ((CREATED.findall(content) or [b""])[-1], folder, content)
            for folder, content in self._manifests()
            if isinstance(content, bytes) and any(needle in content for needle in needles)
        ]
        for _, folder, content in sorted(candidates, key=lambda candidate: candidate[0], reverse=True):
            try:
                checkpoint = parse_manifest(content, folder)
            except StoreError:
                continue
            if fits(checkpoint):
                return checkpoint
        return None

    def owns(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a checkpoint lies in this store."""
        return checkpoint.home.parent.resolve() == self.checkpoints.resolve()

    def check_own(self, checkpoint: Checkpoint) -> None:
        """Raise :class:`StoreError` for a checkpoint of another store: recipes need their parents beside them."""
        if not self.owns(checkpoint):
            hint = f"name that with --store {checkpoint.home.parent.parent}"
            raise StoreError(f"{checkpoint.name} ({checkpoint.id}) lies in another store", hint)

    def find(self, reference: str) -> Checkpoint:
        """Return the checkpoint that ``reference`` names, which other processes cannot remove until this one ends.

        That is ``zeroshot``, ``finetuned``, ``interpolated``, ``patched`` (the newest of the kind), ``latest`` (the newest
        fine-tuned or patched one), a name (the newest of that name), the beginning of an id, or the path of a checkpoint's folder.

        Raises :class:`StoreError` where the store holds none of the kind, :class:`UnknownNameError` for any other word.
        """
        while True:
            checkpoint = self.look_up(reference)
            use(checkpoint.home.parent.parent, checkpoint.id)
            if _is_file(checkpoint.home / MANIFEST):  # not removed between the two
                return checkpoint

    def look_up(self, reference: str) -> Checkpoint:
        """Return the checkpoint that ``reference`` names as :meth:`find` does, for one that may be removed at any time."""
        if reference in REFERENCES:
            return self._newest_of_kind(*REFERENCES[reference])
        found = self._read(reference) or self._newest([reference], lambda checkpoint: checkpoint.name == reference)
        if found:
            return found
        checkpoints = self.everything()
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
        raise UnknownNameError("checkpoint", reference, [*REFERENCES, *(each.name for each in checkpoints)], hint)

    def _newest_of_kind(self, kinds: Sequence[str], described: str, command: str) -> Checkpoint:
        newest = self._newest(kinds, lambda checkpoint: checkpoint.kind in kinds)
        if newest:
            return newest
        none, unreadable = f"no {described} checkpoint in the store {self.root}", self.unreadable()
        if unreadable:
            raise StoreError(f"{none} can be read: {unreadable[0].message}", unreadable[0].hint)
        raise StoreError(f"{none} yet", f"run `wisepatch {command}` first, or name a store with --store")

    def look_up_damaged(self, reference: str) -> Checkpoint:
        """Return what :meth:`look_up` does, also for the id of one whose manifest cannot be read: to be removed, nothing else."""
        folder = self.checkpoints / reference
        try:
            return self.look_up(reference)
        except UnreadableManifestError as error:
            if ID.fullmatch(reference):
                return Checkpoint(reference, "damaged", "", {}, home=folder)
            raise error

    def get(self, identity: str) -> Checkpoint:
        """Return the checkpoint with exactly this id. Raises :class:`StoreError` if it is gone."""
        checkpoint = self._read(identity)
        if checkpoint is None:
            raise StoreError(f"checkpoint {identity} is not in the store {self.root}", "it was removed; make it again")
        return checkpoint

    def _read(self, identity: str) -> Checkpoint | None:
        """Return the checkpoint with exactly this id, ``None`` where there is none."""
        if not ID.fullmatch(identity):
            return None
        try:
            return read_manifest(self.checkpoints / identity)
        except UnreadableManifestError as error:
            if is_gone(error):
                return None
            raise

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
        return verification.problem(_home(checkpoint), checkpoint)

    def problems(self, checkpoints: Iterable[Checkpoint]) -> dict[str, str]:
        """Return what is wrong with each checkpoint, by id; those that another process removes meanwhile are left out."""
        found = {checkpoint.id: self.problem(checkpoint) for checkpoint in checkpoints}
        return {identity: problem for identity, problem in found.items() if not problem or self._read(identity)}

    def parents(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Return what a checkpoint was merged or trained from; StoreError where that is gone or is the checkpoint itself."""
        store = _home(checkpoint)
        if checkpoint.recipe and checkpoint.is_recipe:
            if problem := verification.params_problem(checkpoint.recipe):
                raise StoreError(f"checkpoint {checkpoint.id} ({checkpoint.name}) is a recipe {problem}", DAMAGED_HINT)
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
        files = checkpoint.recipe.fisher_files if checkpoint.recipe else ()
        return _home(checkpoint).cache.fisher_paths(files)

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


def check_head(checkpoint: Checkpoint, rows: int) -> None:
    """Raise :class:`StoreError` where a trained head has another number of rows than its manifest has class names."""
    names = checkpoint.head["classes"] if checkpoint.head else ()
    if rows != len(names):
        raise StoreError(
            f"the trained head of {checkpoint.name} ({checkpoint.id}) has {rows} classes, and {len(names)} names of classes",
            "make or import the checkpoint again, with a name for each class",
        )


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


def _is_whole(checkpoint: Checkpoint) -> bool:
    """Tell whether this very content is in the store already, undamaged."""
    try:
        return identify(read_manifest(checkpoint.home)) == checkpoint.id and not verification.file_problem(checkpoint)
    except NewerStoreError:
        raise
    except StoreError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
