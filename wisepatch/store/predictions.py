"""Per-image answers, for paired tests: one parquet file for each checkpoint, task and split.

``predictions/<checkpoint id>/<task>-<split>-<hash>.parquet`` has a row an image: ``image`` (an id, text), ``label`` and ``answer``
(numbers of classes), ``confidence`` (the probability of the answer), ``rank`` (of the label among the classes, 0 the first) and
``brier`` (the image's Brier score); files of wisepatch 0.1.0 have no last two. The file's metadata holds checkpoint, task, split,
what the caller adds (task specification, data fingerprint, precision), and the sha256 of the rest of the file. The hash in the name
is one over these additions: other data or another precision have a file of their own.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError
from wisepatch.files import SEAL, in_utf8, write_durably
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.sharing import use

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = {"image": "string", "label": "int64", "answer": "int64", "confidence": "float32"}
SCORES = {"rank": "int32", "brier": "float32"}  # to measure top-5 accuracy and calibration by
METADATA = b"wisepatch"
UNSEALED = "0" * 64  # stands where the sha256 of the rest of the file will stand
MAX_SLUG_CHARACTERS = 60


def save_predictions(
    store: Store, checkpoint: Checkpoint, task: str, split: str, columns: Mapping[str, Any], about: Mapping[str, Any]
) -> Path:
    """Write the answers of a checkpoint to a split; return the file.

    ``columns`` maps ``image``, ``label``, ``answer``, ``confidence`` and, where they are known, ``rank`` and ``brier`` to ``(n,)``
    each; a DataFrame is such a mapping. ``about`` holds JSON types. Raises :class:`StoreError` where the file cannot be written.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = COLUMNS | (SCORES if {*SCORES} <= {*columns} else {})
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in kinds.items()])
    arrays = {name: [*map(in_utf8, columns[name])] if name == "image" else np.asarray(columns[name]) for name in kinds}
    table = pa.table(arrays, schema=schema)
    details = {**about, "checkpoint": checkpoint.id, "task": task, "split": split}
    if not store.owns(checkpoint):
        details["home"] = str(checkpoint.home.resolve())
    metadata = {METADATA: json.dumps(details | {SEAL: UNSEALED}).encode()}
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, store_schema=False) as writer:  # or metadata would stand in the file twice
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    before, _, after = buffer.getvalue().rpartition(UNSEALED.encode())
    path = store.predictions / checkpoint.id / _file_name(task, split, about)
    with store.writing():
        use(store.root, checkpoint.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, before + hashlib.sha256(before + after).hexdigest().encode() + after)
    return path


def home_of_predictions(path: Path) -> Path | None:
    """Return the folder of the checkpoint of another store that a file of answers is of; ``None`` for one of the same store."""
    try:
        _, details = _read(path)
    except StoreError:
        return None
    return Path(details["home"]) if "home" in details else None


def load_predictions(
    store: Store,
    checkpoint: Checkpoint,
    task: str,
    split: str,
    about: Mapping[str, Any] | None = None,
    *,
    note: Callable[[str], object] | None = None,
) -> pd.DataFrame | None:
    """Read the answers of a checkpoint to a split, verified; ``None`` where there are none.

    With ``about`` those that were saved with it, else the newest. The metadata is in the frame's ``attrs``. ``note`` is told of
    a damaged file, which then counts as missing; without it, one raises :class:`StoreError`.
    """
    files = (store.predictions / checkpoint.id).glob(_file_name(task, split, about))
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            table, details = _read(path)
        except StoreError as error:
            if note is None:
                raise
            note(f"{error.message}: they are made again")
            continue
        if (details["task"], details["split"]) == (task, split):  # another task may have the same letters in its name
            return _framed(table, details)
    return None


def _framed(table: pa.Table, details: Mapping[str, Any]) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    frame.attrs.update(details)
    return frame


def read_predictions(path: Path) -> pd.DataFrame:
    """Read one file of answers, verified; the metadata is in the frame's ``attrs``. Raises :class:`StoreError`."""
    return _framed(*_read(path))


def answered(store: Store, checkpoint: Checkpoint) -> list[tuple[Path, dict[str, Any]]]:
    """Return the files of a checkpoint's answers with their metadata, the newest first; unverified, without damaged ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = []
    paths = (store.predictions / checkpoint.id).glob("[!.]*.parquet")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            kept.append((path, json.loads(pq.read_schema(path).metadata[METADATA])))
    return kept


def prediction_problems(store: Store) -> list[str]:
    """Hash all files of answers; return one sentence for each that is damaged."""
    problems = []
    for path in sorted(store.predictions.glob("[!.]*/[!.]*.parquet")):
        try:
            _read(path)
        except StoreError as error:
            if path.exists():  # not removed meanwhile
                problems.append(error.message)
    return problems


def _read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
        table = pq.read_table(io.BytesIO(content))
        details = json.loads(table.schema.metadata[METADATA])
        expected = details.pop(SEAL)
        before, _, after = content.rpartition(expected.encode())
        if hashlib.sha256(before + after).hexdigest() != expected and _hash_values(table, details) != expected:
            raise ValueError("it does not have the sha256 that it names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        hint = "remove the file; the next evaluation writes it again"
        raise StoreError(f"the predictions {path} are damaged: {error}", hint) from error
    return table, details


def _hash_values(table: pa.Table, details: Mapping[str, Any]) -> str:
    """Hash the metadata and the values of all columns, which was the sha256 of files of wisepatch 0.1.0."""
    digest = hashlib.sha256(json.dumps(details, sort_keys=True).encode())
    for name in COLUMNS:
        column = table.column(name)
        digest.update(json.dumps(column.to_pylist()).encode() if name == "image" else column.to_numpy().tobytes())
    return digest.hexdigest()


def _file_name(task: str, split: str, about: Mapping[str, Any] | None) -> str:
    """Name the file of a split; without ``about``, a pattern for all of its files."""
    task, split = (re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:MAX_SLUG_CHARACTERS] for name in (task, split))
    digest = "*" if about is None else hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode()).hexdigest()[:8]
    return f"{task}-{split}-{digest}.parquet"
