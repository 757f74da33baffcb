"""The papers' own wide records, ``{"alpha": 0.5, "ImageNet:top1": 0.81}``: to and from tidy rows of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIELDS = {
    "model": "model",
    "train_dataset": "patching",
    "alpha": "alpha",
    "split": "split",
}  # of a record, and of a row


def from_wide(record: Mapping[str, Any], run: str) -> list[dict[str, Any]]:
    """Spread ``{"alpha": a, "<Task>:<metric>": value, ...}`` over rows; the patching task is ``train_dataset`` if named."""
    patching = record.get("train_dataset")
    measured = {key: value for key, value in record.items() if ":" in key and isinstance(value, int | float)}
    if not measured:
        raise ValueError("it has neither a metric and a value nor a 'Task:metric' field")
    shared = {"run": run, "model": record.get("model"), "alpha": record.get("alpha"), "n": record.get("n")}
    shared |= {"split": record.get("split") or "test", "patching": patching}
    rows = []
    for key, value in measured.items():
        task, _, metric = key.rpartition(":")
        role = ("patching" if task == patching else "supported") if patching else None
        rows.append(shared | {"task": task, "metric": metric, "value": float(value), "role": role})
    return rows


def to_wide(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Gather tidy rows into the papers' wide records: one for each checkpoint and alpha, sorted by alpha."""
    records: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row.get(name) for name in ("run", "checkpoint", "alpha", "split"))
        record = records.setdefault(key, {name: row.get(field) for name, field in FIELDS.items()})
        record[f"{row['task']}:{row['metric']}"] = row["value"]
    return sorted(records.values(), key=lambda record: (record["alpha"] is None, record["alpha"] or 0.0))
