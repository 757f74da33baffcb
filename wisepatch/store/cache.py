"""What a store keeps and can make again: caches by hash, and Fisher information; whole or not there, made by one at a time."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError
from wisepatch.files import PARTIAL, sha256, write_durably, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch

    Tensors = Mapping[str, torch.Tensor]


class Cache:
    """A folder with a folder for each kind of thing; made when first written to."""

    def __init__(self, root: Path | str) -> None:
        """Name the folder; nothing is read or made yet."""
        self.root = Path(root).expanduser()
        self.heads = self.root / "heads"
        self.features = self.root / "features"
        self.pixels = self.root / "pixels"
        self.fishers = self.root / "fisher"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an operating system's refusal to write into a :class:`StoreError` that names the store."""
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, SafetensorError, StoreError) as error:
            reason = error.__cause__ if isinstance(error, StoreError) else error
            if not isinstance(reason, (OSError, SafetensorError)):
                raise
            raise StoreError(
                f"the store {self.root} cannot be written: {getattr(reason, 'strerror', None) or reason}",
                "name another folder with --store or WISEPATCH_STORE, or free space there",
            ) from error

    def cached(self, kind: str, digest: str, *names: str) -> dict[str, torch.Tensor]:
        """The tensors that :meth:`cache` kept; empty where one of ``names`` is missing, or the file is broken."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.root / kind / f"{digest}.safetensors"
        try:
            found = load_file(path) if path.is_file() else {}
        except SafetensorError:
            found = {}
        return found if set(names) <= set(found) else {}

    def cache(self, kind: str, digest: str, tensors: Tensors) -> None:
        """Keep tensors in the folder ``kind`` (``heads``, ``features``), under a hash of all that they depend on."""
        from safetensors.torch import save

        path = self.root / kind / f"{digest}.safetensors"
        with self.writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))

    def get_tensors(
        self,
        kind: str,
        digest: str,
        make: Callable[[], Tensors],
        names: Sequence[str],
        waiting: Callable[[], None] | None = None,
    ) -> Tensors:
        """The tensors ``names`` that are :meth:`cached`, or that ``make`` makes, which are kept then; made by one process alone."""
        found: Tensors = self.cached(kind, digest, *names)
        if not found:
            with self.lock(kind, digest, waiting):
                found = self.cached(kind, digest, *names)
                if not found:
                    found = make()
                    self.cache(kind, digest, found)
        return {name: found[name] for name in names}

    @contextmanager
    def lock(self, kind: str, digest: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Let no other process make what is kept under ``digest`` meanwhile; ``waiting`` is called where another one does.

        Whoever had to wait looks again first: it may be there now. A process that ends gives way, however it ends.
        """
        from filelock import FileLock, Timeout

        path = self.root / kind / f".{digest}.lock"
        with self.writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if waiting:
                    waiting()
                lock.acquire()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            lock.release()

    def find_fisher(self, digest: str) -> dict[str, Any] | None:
        """What is written beside the Fisher information of that hash, its ``sha256`` too; ``None`` unless it is whole."""
        try:
            about: dict[str, Any] = json.loads((self.fishers / f"{digest}.json").read_text(encoding="utf-8"))
            return about if about["sha256"] == sha256(self.fishers / f"{digest}.safetensors") else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save_fisher(self, digest: str, fisher: Tensors, about: Mapping[str, Any]) -> dict[str, Any]:
        """Keep Fisher information under a hash of all that it depends on, and say beside it what it is of."""
        path = self.fishers / f"{digest}.safetensors"
        partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
        with self.writing():
            self.fishers.mkdir(parents=True, exist_ok=True)
            write_tensors(partial, fisher)
            written = {**about, "sha256": sha256(partial)}
            partial.replace(path)
            write_durably(path.with_suffix(".json"), json.dumps(written, indent=2).encode())
        return written

    def verified_fishers(self, files: Sequence[Sequence[str]]) -> tuple[Path, Path]:
        """The files of the Fisher information of two ends that are named by hash and sha256. Raises as :meth:`fisher_paths`."""
        problem = self.fisher_problem(files)
        if problem:
            raise StoreError(problem, "run `wisepatch interpolate --method fisher` again, which makes it anew")
        start, end = (self.fishers / f"{digest}.safetensors" for digest, _ in files)
        return start, end

    def fisher_problem(self, files: Iterable[Sequence[str]]) -> str:
        """What is wrong with files of Fisher information that are named by hash and sha256; empty if nothing is."""
        for digest, expected in files:
            path = self.fishers / f"{digest}.safetensors"
            if not path.is_file():
                return f"the Fisher information {path} is gone"
            if sha256(path) != expected:
                return f"the Fisher information {path} is not what the mix was made with"
        return ""
