"""The checkpoint store: safetensors and manifests; atomic, hashed, verified.

A checkpoint is a folder ``checkpoints/<id>`` with ``manifest.json`` and, unless it is a recipe (an interpolation that
is mixed when it is loaded), ``model.safetensors``. A checkpoint is written into a partial folder, its manifest last, and
published by one rename, so what has a manifest is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.config import FISHER
from wisepatch.errors import StoreError, UnknownNameError
from wisepatch.files import PARTIAL, is_running, sha256, sync_folder, write_durably, write_tensors
from wisepatch.store.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    Tensors = Mapping[str, torch.Tensor]

SCHEMA = 1
MANIFEST, WEIGHTS = "manifest.json", "model.safetensors"
KINDS = ("zeroshot", "finetuned", "interpolated", "patched")


@dataclass(frozen=True)
class Checkpoint:
    """What a manifest says.

    ``model`` holds the fields of :class:`~wisepatch.config.ModelConfig`; ``parents`` are ids (the zero-shot one first);
    ``alpha`` is the mixing coefficient; ``head`` describes a trained classifier (task, classes) that lies in the weights as
    ``classifier.weight`` and ``classifier.bias``; ``files`` maps each file to the sha256 of its bytes. The ``method`` of a recipe
    is ``fisher`` where it is mixed with Fisher information, whose files and their sha256 are in ``config["fisher"]["files"]``.
    """

    id: str
    name: str
    kind: str
    model: dict[str, str]
    parents: tuple[str, ...] = ()
    alpha: float | None = None
    method: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] | None = None
    files: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    schema: int = SCHEMA
    home: Path = field(default=Path(), compare=False)  # the folder that it was read from

    @property
    def is_recipe(self) -> bool:
        """Whether the weights are mixed from the parents when loaded."""
        return not self.files


class Store(Cache):
    """A folder of checkpoints, results and predictions, and of all that is :class:`~wisepatch.store.cache.Cache` beside them."""

    def __init__(self, root: Path | str) -> None:
        """Name the folder; nothing is read or made yet."""
        super().__init__(root)
        self.checkpoints = self.root / "checkpoints"
        self.predictions = self.root / "predictions"
        self.results = self.root / "results.jsonl"

    def save(
        self,
        weights: Tensors | Callable[[Path], str] | None,
        *,
        kind: str,
        name: str,
        model: Mapping[str, str],
        parents: Iterable[str] = (),
        alpha: float | None = None,
        method: str = "",
        config: Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Write a checkpoint, or a recipe where ``weights`` is ``None``; its id follows from its content.

        ``weights`` may also be a function that writes them to a path, as safetensors, and returns the sha256 of the file.
        Saving the same content again keeps the id and makes it the newest. Raises :class:`StoreError` if it cannot be written.
        """
        content: dict[str, Any] = {
            "name": name, "kind": kind, "model": dict(model), "parents": list(parents), "alpha": alpha, "method": method,
            "config": dict(config or {}), "head": dict(head) if head else None, "files": {}, "schema": SCHEMA,
        }  # fmt: skip
        with self.writing():
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            partial = self.checkpoints / f"{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}"
            partial.mkdir()
            try:
                if callable(weights):
                    content["files"] = {WEIGHTS: weights(partial / WEIGHTS)}
                elif weights is not None:
                    write_tensors(partial / WEIGHTS, weights)
                    content["files"] = {WEIGHTS: sha256(partial / WEIGHTS)}
                digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
                folder = self.checkpoints / digest
                manifest = content | {"id": digest, "versions": versions(), "created": datetime.now(UTC).isoformat()}
                if _is_whole(folder, content["files"]):
                    write_durably(folder / MANIFEST, json.dumps(manifest, indent=2).encode())
                else:
                    write_durably(partial / MANIFEST, json.dumps(manifest, indent=2).encode())
                    shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would be whole
                    partial.rename(folder)
                    sync_folder(self.checkpoints)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return self._read(folder)

    def everything(self) -> list[Checkpoint]:
        """All whole checkpoints, oldest first; those whose manifest cannot be read are left out (see :meth:`unreadable`)."""
        found = []
        for folder in self._folders():
            with suppress(StoreError):
                found.append(self._read(folder))
        return sorted(found, key=lambda checkpoint: checkpoint.created)

    def unreadable(self) -> list[StoreError]:
        """Why some manifests cannot be read."""
        problems = []
        for folder in self._folders():
            try:
                self._read(folder)
            except StoreError as error:
                problems.append(error)
        return problems

    def _folders(self) -> list[Path]:
        return [path.parent for path in self.checkpoints.glob(f"*/{MANIFEST}") if path.parent.name[0] != "."]

    def check_own(self, checkpoint: Checkpoint) -> None:
        """Raise :class:`StoreError` for a checkpoint of another store: lines and recipes need their parents beside them."""
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
        everything = self.everything()
        if reference in KINDS or reference == "latest":
            wanted = ("finetuned", "patched") if reference == "latest" else (reference,)
            kind = [checkpoint for checkpoint in everything if checkpoint.kind in wanted]
            if not kind:
                described = (
                    "fine-tuned" if reference in ("finetuned", "latest") else reference.replace("zeros", "zero-s")
                )
                step = {
                    "zeroshot": "run `wisepatch zeroshot --task TASK`",
                    "interpolated": "run `wisepatch interpolate`",
                    "patched": "run `wisepatch patch --task TASK --supported TASKS`",
                }.get(reference, "run `wisepatch finetune --task TASK`")
                raise StoreError(
                    f"no {described} checkpoint in the store {self.root} yet",
                    f"{step} first, or name a store with --store",
                )
            return kind[-1]
        named = [checkpoint for checkpoint in everything if checkpoint.name == reference]
        if named:
            return named[-1]
        begun = [checkpoint for checkpoint in everything if len(reference) >= 3 and checkpoint.id.startswith(reference)]
        if len(begun) == 1:
            return begun[0]
        if begun:
            raise StoreError(
                f"{reference!r} begins {len(begun)} ids: {', '.join(c.id for c in begun)}", "give more of the id"
            )
        folder = Path(reference)
        folder = folder.parent if folder.name == MANIFEST else folder
        if (folder / MANIFEST).is_file():
            return self._read(folder)
        known = {checkpoint.name for checkpoint in everything}
        raise UnknownNameError(
            "checkpoint", reference, known, "`wisepatch store list` lists the names and ids there are"
        )

    def get(self, identity: str) -> Checkpoint:
        """The checkpoint with exactly this id. Raises :class:`StoreError` if it is gone."""
        folder = self.checkpoints / identity
        if not (folder / MANIFEST).is_file():
            raise StoreError(f"checkpoint {identity} is not in the store {self.root}", "it was removed; make it again")
        return self._read(folder)

    def read(self, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """The tensors of a checkpoint that has weights, verified against its manifest.

        Raises :class:`StoreError` where a file is missing or differs by one bit.
        """
        from safetensors.torch import load_file

        return load_file(self.weights_path(checkpoint))

    def weights_path(self, checkpoint: Checkpoint) -> Path:
        """The file of weights of a checkpoint that has one, verified. Raises :class:`StoreError` as :meth:`read` does."""
        problem = self.problem(checkpoint)
        if problem:
            raise StoreError(problem, "remove it with `wisepatch store rm` and make it again")
        return checkpoint.home / WEIGHTS

    def problem(self, checkpoint: Checkpoint) -> str:
        """What is wrong with the files or parents of a checkpoint; empty if nothing is."""
        label = f"checkpoint {checkpoint.id} ({checkpoint.name})"
        for file, digest in checkpoint.files.items():
            path = checkpoint.home / file
            if not path.is_file():
                return f"{label} has lost {file}"
            if sha256(path) != digest:
                return f"{label} is damaged: {file} does not have the sha256 that its manifest names"
        for parent in checkpoint.parents:
            if checkpoint.is_recipe and not (checkpoint.home.parent / parent / MANIFEST).is_file():
                return f"{label} is a recipe and its parent {parent} is gone"
        missing = _home(checkpoint).fisher_problem(_fisher_files(checkpoint))
        return f"{label} is a recipe, and {missing}" if missing else ""

    def parents(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """The checkpoints that one was made from, in the store in which it lies itself."""
        return [_home(checkpoint).get(parent) for parent in checkpoint.parents]

    def read_fishers(self, checkpoint: Checkpoint) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] | None:
        """The Fisher information of both ends that a recipe is mixed with, or ``None`` for one that is mixed linearly.

        Raises as :meth:`fisher_paths` does.
        """
        from safetensors.torch import load_file

        paths = self.fisher_paths(checkpoint)
        return (load_file(paths[0]), load_file(paths[1])) if paths else None

    def fisher_paths(self, checkpoint: Checkpoint) -> tuple[Path, Path] | None:
        """The files of the Fisher information that a recipe is mixed with, verified; ``None`` for one that is mixed linearly.

        Raises :class:`StoreError` where one was removed or differs by one bit.
        """
        files = _fisher_files(checkpoint)
        return _home(checkpoint).verified_fishers(files) if files else None

    def size(self, checkpoint: Checkpoint) -> int:
        """Bytes of a checkpoint's own files."""
        return sum(path.stat().st_size for file in checkpoint.files if (path := checkpoint.home / file).is_file())

    def children(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """The recipes mixed from ``checkpoint``, also through other recipes; those that need others come first."""
        needed = {checkpoint.id}
        found: list[Checkpoint] = []
        recipes = [other for other in self.everything() if other.is_recipe]
        while more := [r for r in recipes if r.id not in needed and needed & set(r.parents)]:
            found = more + found
            needed |= {r.id for r in more}
        return found

    def remove(self, checkpoint: Checkpoint, *, with_recipes: bool = False) -> list[Checkpoint]:
        """Remove a checkpoint and return what went; recipes that need it go too, or are the reason to refuse."""
        children = self.children(checkpoint)
        if children and not with_recipes:
            raise StoreError(
                f"{len(children)} recipes are mixed from {checkpoint.id} ({checkpoint.name}), such as {children[0].name}",
                "give --recipes to remove them with it",
            )
        for gone in (*children, checkpoint):
            with self.writing():
                (self.checkpoints / gone.id / MANIFEST).unlink()
                shutil.rmtree(self.checkpoints / gone.id)
        return [*children, checkpoint]

    def collect_garbage(self, *, caches: bool = False) -> list[Path]:
        """Remove what no manifest vouches for (interrupted writes) and recipes whose parents are gone; return the paths.

        ``caches`` removes kept pixels and features too, which are made again when they are needed.
        """
        folders = [path for path in self.checkpoints.glob("*") if path.is_dir()]
        gone = [path for path in folders if not (path / MANIFEST).is_file() and not _under_way(path)]
        broken = [c for c in self.everything() if c.is_recipe and self.problem(c)]
        gone += dict.fromkeys(self.checkpoints / c.id for first in broken for c in (*self.children(first), first))
        if caches:
            kept = (*self.pixels.glob("*"), *self.features.glob("*"))
            gone += [path for path in kept if not path.name.startswith(PARTIAL)]
        gone += [path for path in self.root.glob(f"*/{PARTIAL}*") if path not in gone and not _under_way(path)]
        for path in gone:
            with self.writing():
                path.unlink(missing_ok=True) if path.is_file() else shutil.rmtree(path)
        return gone

    def _read(self, folder: Path) -> Checkpoint:
        path = folder / MANIFEST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            data["parents"] = tuple(data["parents"])
            data["home"] = folder
            checkpoint = Checkpoint(**data)
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{path} is not a manifest of this version: {error}", f"remove {folder}") from error
        return checkpoint


def _home(checkpoint: Checkpoint) -> Store:
    """The store in which a checkpoint lies."""
    return Store(checkpoint.home.parent.parent)


def _fisher_files(checkpoint: Checkpoint) -> list[list[str]]:
    """Hash and sha256 of the Fisher information that a recipe needs, of its start and its end; empty for all others."""
    weighed = checkpoint.is_recipe and checkpoint.method == FISHER
    return list(checkpoint.config["fisher"]["files"]) if weighed else []


def _is_whole(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether a checkpoint's folder has its manifest and every file as hashed."""
    return (folder / MANIFEST).is_file() and all(
        (folder / file).is_file() and sha256(folder / file) == digest for file, digest in files.items()
    )


def _under_way(path: Path) -> bool:
    """Whether another living process of this machine is still writing the partial folder ``path``."""
    owner = path.name.removeprefix(PARTIAL).partition("-")[0]
    if not path.name.startswith(PARTIAL) or not owner.isdecimal() or int(owner) == os.getpid():
        return False
    return is_running(int(owner))


@cache
def versions() -> dict[str, str]:
    """The versions of what made a checkpoint."""
    from importlib.metadata import version

    return {name: version(name) for name in ("wisepatch", "torch", "open_clip_torch")}


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as JSON types, for listings."""
    return {name: value for name, value in asdict(checkpoint).items() if name != "home"}
