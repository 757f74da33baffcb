"""Parts of a checkpoint's weights: the image tower (``visual``), the trained head (``classifier``), and ``text``, all the rest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wisepatch.errors import StoreError
from wisepatch.files import hash_tensors
from wisepatch.store.manifests import Checkpoint


def part_of(names: Iterable[str], part: str) -> dict[str, str]:
    """Return the names of a part's tensors in a checkpoint, by their names in the part.

    ``visual`` (named as in the image tower), ``classifier`` (the trained head), and ``text``, all the rest.
    """
    if part == "text":
        return {name: name for name in names if name.partition(".")[0] not in ("visual", "classifier")}
    return {name.removeprefix("visual."): name for name in names if name.startswith(f"{part}.")}


def hash_parts(path: Path) -> dict[str, str]:
    """Hash the tensors of a file of weights by part."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    return {
        part: hash_tensors({short: tensors[name] for short, name in names.items()})
        for part in ("visual", "text", "classifier")
        if (names := part_of(tensors, part))
    }


def check_head(checkpoint: Checkpoint, rows: int) -> None:
    """Raise :class:`StoreError` where a trained head has another number of rows than its manifest has class names."""
    names = checkpoint.head["classes"] if checkpoint.head else ()
    if rows != len(names):
        raise StoreError(
            f"the trained head of {checkpoint.name} ({checkpoint.id}) has {rows} classes, and {len(names)} names of classes",
            "make or import the checkpoint again, with a name for each class",
        )
