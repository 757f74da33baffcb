"""Manifests: a checkpoint as JSON beside its weights. Schema 2 is written; schema 1 is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wisepatch.errors import StoreError
from wisepatch.files import seal, unseal
from wisepatch.store.sharing import SCHEMA, check_schema

MANIFEST, WEIGHTS = "manifest.json", "model.safetensors"
ID = re.compile(r"[0-9a-f]{12}")
NOT_IN_ID = ("id", "versions", "created")
TYPES: dict[str, type | tuple[type, ...]] = {
    "id": str, "name": str, "kind": str, "model": dict, "training": str, "recipe": (dict, type(None)), "trained_from": list,
    "config": dict, "head": (dict, type(None)), "files": dict, "parts": dict, "versions": dict, "created": str, "schema": int,
}  # fmt: skip
RECIPE_TYPES: dict[str, type | tuple[type, ...]] = {"method": str, "parents": list, "params": dict}
# In schema 1 and its results, `method` held the training, unless it was `fisher`.
TRAININGS_OF_SCHEMA_1 = {"paint": "paint", "wiseft": "wise-ft", "linear": "linear-probe", "zeroshot": "zeroshot"}


@dataclass(frozen=True)
class Recipe:
    """A merge: the name of the method, the ids of the parents in its order, and its parameters (JSON types), such as ``alpha``."""

    method: str
    parents: tuple[str, ...]
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def fisher_files(self) -> tuple[tuple[str, str], ...]:
        """Return what each parent is weighed by, Fisher information or Gram matrices: digest of the entry, sha256 of the file."""
        found = self.params.get("fisher") or self.params.get("gram")
        return tuple((digest, sha256) for digest, sha256 in found["files"]) if found else ()


@dataclass(frozen=True)
class Checkpoint:
    """A manifest.

    ``model`` holds the fields of :class:`~wisepatch.config.ModelConfig`; ``training`` is ``zeroshot``, ``paint``, ``wise-ft`` or
    ``linear-probe``; ``trained_from`` holds the ids of what a training began with. ``head`` describes a trained classifier (task,
    classes), which is ``classifier.weight`` and ``.bias`` of the weights. ``files`` maps each file to its sha256; ``parts`` maps
    ``visual``, ``text`` and ``classifier``, where there are any, to the :func:`~wisepatch.files.hash_tensors` of these tensors.
    """

    id: str
    name: str
    kind: str
    model: dict[str, str]
    training: str = ""
    recipe: Recipe | None = None
    trained_from: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] | None = None
    files: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    schema: int = SCHEMA
    home: Path = field(default=Path(), compare=False)  # the folder that it was read from

    def __repr__(self) -> str:
        """Return the name, the id and what it is."""
        alpha = "" if self.alpha is None else f", alpha {self.alpha:g}"
        return f"Checkpoint({self.name!r}, {self.id}, {self.kind}{alpha})"

    @property
    def is_recipe(self) -> bool:
        """Tell whether the weights are merged from the parents when they are loaded."""
        return self.recipe is not None and not self.files

    @property
    def parents(self) -> tuple[str, ...]:
        """Return the ids of the checkpoints that this one was merged or trained from."""
        return self.recipe.parents if self.recipe else self.trained_from

    @property
    def method(self) -> str:
        """Return the name of the merge method; empty for a checkpoint that was not merged."""
        return self.recipe.method if self.recipe else ""

    @property
    def alpha(self) -> float | None:
        """Return the mixing coefficient, where the merge has one."""
        return self.recipe.params.get("alpha") if self.recipe else None


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint as JSON types, as manifests and listings hold it."""
    described: dict[str, Any] = json.loads(json.dumps(asdict(checkpoint) | {"home": None}))
    del described["home"]
    return described


def identify(checkpoint: Checkpoint) -> str:
    """Return the id that follows from the content: 12 hexadecimal digits."""
    content = {name: value for name, value in describe(checkpoint).items() if name not in NOT_IN_ID}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def manifest_bytes(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as the bytes of its manifest, which end with the sha256 of all of them."""
    return seal(describe(checkpoint))


class UnreadableManifestError(StoreError):
    """A manifest that cannot be read, or is none; knows the folder of its checkpoint."""

    def __init__(self, message: str, hint: str, folder: Path) -> None:
        """Keep the folder."""
        super().__init__(message, hint)
        self.folder = folder


def read_manifest(folder: Path) -> Checkpoint:
    """Read the manifest in a checkpoint's folder; raises as :func:`manifest_content` and :func:`parse_manifest` do."""
    return parse_manifest(manifest_content(folder), folder)


def manifest_content(folder: Path) -> bytes:
    """Read the bytes of a manifest. Raises :class:`UnreadableManifestError`."""
    path = folder / MANIFEST
    try:
        return path.read_bytes()
    except OSError as error:
        hint = "look at its permissions" if isinstance(error, PermissionError) else _removal(folder)
        raise UnreadableManifestError(f"{path} cannot be read: {error.strerror or error}", hint, folder) from error


def parse_manifest(content: bytes, folder: Path) -> Checkpoint:
    """Take a manifest apart.

    Raises :class:`NewerStoreError` for a newer schema, and :class:`UnreadableManifestError` for what is no manifest or is damaged.
    """
    path = folder / MANIFEST
    try:
        data = unseal(content)
        schema = data.get("schema")
        check_schema(path, schema)
        if isinstance(schema, bool) or schema not in (1, SCHEMA):
            raise ValueError(f"there is no schema {json.dumps(schema)[:40]}")
        return _to_checkpoint(_from_schema_1(data) if schema == 1 else data, folder)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{path} is not a manifest of this version: {error}"
        raise UnreadableManifestError(reason, _removal(folder), folder) from error


def is_gone(error: UnreadableManifestError) -> bool:
    """Tell whether there is no manifest, be it that another process has removed it meanwhile."""
    return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)


def _removal(folder: Path) -> str:
    return f"remove it with `wisepatch store rm {folder.name}`" if ID.fullmatch(folder.name) else f"remove {folder}"


def _to_checkpoint(data: dict[str, Any], folder: Path) -> Checkpoint:
    """Check names, types and ids. Raises :class:`ValueError` with what is wrong."""
    _check_fields(data, TYPES)
    recipe = data["recipe"]
    if recipe is not None:
        _check_fields(recipe, RECIPE_TYPES)
        recipe = Recipe(recipe["method"], tuple(recipe["parents"]), recipe["params"])
        if not all(re.fullmatch("[0-9a-f]+", digest) for digest, _ in recipe.fisher_files):
            raise ValueError("it names Fisher information by something else than a digest")
    if data["id"] != folder.name:
        raise ValueError(f"its id {data['id']!r} is not the name of its folder")
    for identity in (data["id"], *data["trained_from"], *(recipe.parents if recipe else ())):
        if not isinstance(identity, str) or not ID.fullmatch(identity):
            raise ValueError(f"{identity!r} is not an id")
    if set(data["files"]) - {WEIGHTS}:
        raise ValueError(f"it names files other than {WEIGHTS}")
    return Checkpoint(**data | {"recipe": recipe, "trained_from": tuple(data["trained_from"]), "home": folder})


def _check_fields(data: dict[str, Any], types: dict[str, type | tuple[type, ...]]) -> None:
    for what, names in (("unknown fields", set(data) - set(types)), ("no", set(types) - set(data))):
        if names:
            raise ValueError(f"{what} {', '.join(sorted(names))}")
    for name, kind in types.items():
        if not isinstance(data[name], kind):
            raise ValueError(f"{name} cannot be {json.dumps(data[name])[:40]}")


def _from_schema_1(data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of schema 2: ``method`` was the training, but for ``fisher``, and ``alpha`` a field of its own."""
    data = dict(data)
    method, parents, alpha = data.pop("method"), data.pop("parents"), data.pop("alpha")
    config = dict(data["config"])
    fisher = {"fisher": config.pop("fisher")} if "fisher" in config else {}
    training = TRAININGS_OF_SCHEMA_1.get(method, method)
    if method == "fisher":
        frozen, trained = config.get("freeze_encoder"), config.get("head") == "trained"
        training = "linear-probe" if frozen else "wise-ft" if trained else "paint"
    recipe = None
    if data["kind"] in ("interpolated", "patched"):
        merge = "fisher" if method == "fisher" else "linear"
        recipe = {"method": merge, "parents": parents, "params": {"alpha": alpha} | fisher}
    trained_from = [] if recipe else parents
    return data | {"training": training, "recipe": recipe, "trained_from": trained_from, "parts": {}, "config": config}


def manifests_below(folder: Path) -> Iterator[tuple[Path, bytes | StoreError]]:
    """Yield each folder in another that has a manifest, with its content or why that cannot be read; others are no matter."""
    try:
        inside = [path for path in folder.iterdir() if path.name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}", "look at its permissions") from error
    for path in inside:
        try:
            yield path, manifest_content(path)
        except UnreadableManifestError as error:
            if not is_gone(error) and ID.fullmatch(path.name):
                yield path, error
