"""The cache: what can be made again, hashed whenever it is read.

An entry is a folder ``cache/<kind>/<digest>``, the digest one over all that the entry depends on. Its ``entry.json`` holds the
sha256 of every file and is written last; one rename publishes the folder. Kinds are ``heads``, ``features``, ``pixels``, ``merged``
(by methods that take long), ``fisher`` and ``grams``; recipes name entries of the last two kinds by digest and sha256.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError
from wisepatch.files import (
    check_room,
    partial_folder,
    publish,
    seal,
    sha256,
    sync_file,
    unseal,
    write_durably,
    write_tensors,
)
from wisepatch.locks import LOCK, locked
from wisepatch.store.sharing import use, writing

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]
    Callback = Callable[..., object] | None
    About = Mapping[str, Any] | None

ENTRY, TENSORS = "entry.json", "tensors.safetensors"
FISHER_ENTRIES, GRAM_ENTRIES, MERGED_ENTRIES = "fisher", "grams", "merged"
NAMED = {FISHER_ENTRIES: "Fisher information", GRAM_ENTRIES: "Gram matrices"}  # kinds that recipes name
KINDS = ("heads", "features", "pixels", MERGED_ENTRIES, *NAMED)
REMOVABLE = ("pixels", "features", MERGED_ENTRIES)  # kinds that no recipe needs and that are large


@cache
def versions(*packages: str) -> dict[str, str]:
    """Return the versions of wisepatch and of other packages, for manifests and for the digests of cache entries."""
    from importlib.metadata import version

    return {name: version(name) for name in ("wisepatch", *packages)}


class Cache:
    """The folder ``cache`` of a store, made when it is first written to."""

    def __init__(self, store: Path) -> None:
        """Name the store's folder; nothing is read or made yet."""
        self.store, self.root = store, store / "cache"

    def tensors(
        self,
        kind: str,
        digest: str,
        make: Callable[[], Tensors],
        waiting: Callback = None,
        *,
        note: Callback = None,
        about: About = None,
    ) -> dict[str, torch.Tensor]:
        """Return the tensors of an entry, which ``make`` makes where they are not there; see :meth:`folder`."""
        from safetensors.torch import load_file

        def build(folder: Path) -> None:
            tensors = make()
            with writing(self.store):
                check_room(self.store, sum(tensor.nbytes for tensor in tensors.values()))
                write_tensors(folder / TENSORS, tensors)

        return load_file(self.folder(kind, digest, build, waiting, note=note, about=about) / TENSORS)

    def folder(
        self,
        kind: str,
        digest: str,
        build: Callable[[Path], None],
        waiting: Callback = None,
        *,
        note: Callback = None,
        about: About = None,
    ) -> Path:
        """Return the folder of an entry, verified; ``build`` fills it where it is not there or damaged.

        One process builds while others wait, each of which calls ``waiting`` first. ``note`` is told of a damaged entry. ``about``
        is written beside the hashes, for people. Raises what ``build`` raises, and :class:`StoreError` where it cannot be written.
        """
        folder = self.root / kind / digest
        if self.find(kind, digest):
            return folder
        with self.lock(kind, digest, waiting), ExitStack() as stack:
            use(self.store, f"{kind}/{digest}")
            problem = entry_problem(folder)
            if problem:
                if note and folder.exists():
                    note(f"{problem}: it is made again")
                with writing(self.store):
                    partial = stack.enter_context(partial_folder(folder.parent))
                build(partial)
                with writing(self.store):
                    seal_entry(partial, about or {})
                    publish(partial, folder, lambda: not entry_problem(folder))
        return folder

    def find(self, kind: str, digest: str) -> Path | None:
        """Return the folder of a whole entry, ``None`` where there is none; ``gc`` leaves it alone until this process ends."""
        folder = self.root / kind / digest
        if folder.exists():
            use(self.store, f"{kind}/{digest}")
        return None if entry_problem(folder) else folder

    def sha256(self, kind: str, digest: str) -> str:
        """Return the sha256 of an entry's file of tensors."""
        return sha256(self.root / kind / digest / TENSORS)

    @contextmanager
    def lock(self, kind: str, digest: str, waiting: Callback = None) -> Iterator[None]:
        """Let no other process make an entry meanwhile; ``waiting`` is called where another one does."""
        path = self.root / kind / f".{digest}.lock"
        with ExitStack() as stack:
            with writing(self.store):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(path, waiting))
            yield

    def problems(self) -> list[str]:
        """Hash all entries; return one sentence for each that is damaged."""
        entries = sorted(path for path in self.root.glob("*/[!.]*") if path.is_dir())
        found = {path: entry_problem(path) for path in entries}
        return [problem for path, problem in found.items() if problem and path.exists()]  # not removed meanwhile

    def removable(self) -> list[Path]:
        """Return the entries that no checkpoint needs: pixels and features."""
        return [path for kind in REMOVABLE for path in self._entries(kind)]

    def unnamed_fisher(self, named: Collection[str]) -> list[Path]:
        """Return the Fisher information and Gram matrices that are not ``named`` by their digest."""
        older = [
            path
            for path in sorted((self.store / FISHER_ENTRIES).glob("*"))
            if re.fullmatch(r"[0-9a-f]{32}\.(safetensors|json)", path.name)
        ]
        return [
            path
            for path in (*(each for kind in NAMED for each in self._entries(kind)), *older)
            if path.stem not in named
        ]

    def _entries(self, kind: str) -> list[Path]:
        return [path.parent for path in sorted((self.root / kind).glob(f"[!.]*/{ENTRY}"))]

    def lease_name(self, entry: Path) -> str:
        """Return the name by which processes that use an entry hold it."""
        return f"{entry.parent.name}/{entry.stem}"

    def remove_stale_locks(self) -> list[Path]:
        """Remove lock files of entries that no process makes; return their paths."""
        gone = []
        for path in (path for kind in KINDS for path in (self.root / kind).glob(f".?*{LOCK}")):
            with locked(path, wait=False) as taken:
                if taken:
                    gone.append(path)
        return gone

    def fisher_paths(self, files: Iterable[Sequence[str]], kind: str = FISHER_ENTRIES) -> tuple[Path, ...]:
        """Return the files of Fisher information, or of Gram matrices (``kind``), that are named by digest and sha256, verified.

        Raises :class:`StoreError` where one is gone or differs by one bit.
        """
        paths = []
        for digest, expected in files:
            candidates = self.fisher_candidates(digest)
            intact = next((path for path in candidates if sha256(path) == expected), None)
            if intact is None:
                path = next(iter(candidates), self.root / kind / digest)
                grams = kind == GRAM_ENTRIES
                verb, it = ("are", "them") if grams else ("is", "it")
                command = "merge --method regmean" if grams else "interpolate --method fisher"
                raise StoreError(
                    f"the {NAMED[kind]} {path} {verb} {'not what the mix was made with' if candidates else 'gone'}",
                    f"run `wisepatch {command}` again, which makes {it} anew",
                )
            paths.append(intact)
        return tuple(paths)

    def fisher_candidates(self, digest: str) -> list[Path]:
        """Return the files that may hold this information, whole or not; stores of schema 1 have a folder of their own."""
        cached = (self.root / kind / digest / TENSORS for kind in NAMED)
        paths = (*cached, self.store / "fisher" / f"{digest}.safetensors")
        return [path for path in paths if path.is_file()]


def entry_problem(folder: Path, kind: str = "cache entry") -> str:
    """Return what is wrong with an entry: it is not there, cannot be read, or differs from its hashes; empty if nothing is."""
    try:
        entry = unseal((folder / ENTRY).read_bytes())
        if set(entry) != {"files", "about"}:
            raise ValueError(f"it holds {', '.join(entry)}")
        files = entry["files"]
        damaged = [name for name, digest in files.items() if sha256(folder / name) != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"the {kind} {folder} cannot be read ({error})"
    return f"the {kind} {folder} is damaged ({', '.join(damaged) or ENTRY})" if damaged or not files else ""


def seal_entry(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the hashes of all files of an entry, and ``about`` (JSON types) with them, last."""
    files = sorted(folder.iterdir())
    for path in files:
        sync_file(path)
    write_durably(folder / ENTRY, seal({"files": {path.name: sha256(path) for path in files}, "about": dict(about)}))
