"""A row of results: its columns, and what each may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from wisepatch.store.manifests import TRAININGS_OF_SCHEMA_1

COLUMNS = (
    "time", "run", "run_name", "checkpoint", "model", "pretrained", "training", "method", "alpha", "params", "task", "split",
    "metric", "value", "n", "ci_low", "ci_high", "seed", "limit", "version",
)  # fmt: skip
# Beyond the contract: what the picture and the tables need to tell rows apart.
EXTRA = (
    "role", "patching", "chosen", "selected_on", "broken", "fixed", "candidate", "fitted_on", "images", "n_effective",
)  # fmt: skip
LARGEST, MAX_LETTERS = 1e300, 10_000
SURROGATES = re.compile("[\ud800-\udfff]")  # halves of characters
NUMBERS = ("alpha", "value", "n", "ci_low", "ci_high", "seed", "limit", "broken", "fixed", "candidate", "n_effective")
OTHERS: dict[str, type] = {"params": dict, "chosen": bool}  # all other fields are texts


def check_row(row: Mapping[str, Any], required: Sequence[str] = ()) -> None:
    """Raise :class:`ValueError` for a field that is missing, or of another type than ``append`` writes."""
    known = (*COLUMNS, *EXTRA)
    for name in {**dict.fromkeys(known), **row}:
        value = row.get(name)
        if value is None:
            fits = name not in required
        elif name in NUMBERS:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > LARGEST
        elif name in OTHERS:
            fits = isinstance(value, OTHERS[name])
        else:
            fits = _is_text(value) if name in known or isinstance(value, str) else True
        if not fits or not _is_text(name):
            raise ValueError(f"its {name} is {str(value)[:40]!r}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_LETTERS and not SURROGATES.search(value)


def with_training(record: dict[str, Any]) -> dict[str, Any]:
    """Return a row of today from one that has no column ``training`` yet."""
    training = None if "training" in record else TRAININGS_OF_SCHEMA_1.get(str(record.get("method")))
    return record | {"training": training, "method": "linear"} if training else record
