"""One run of a command: where it works, what its results are called, how it measures."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wisepatch.config import EvalConfig
from wisepatch.evaluation.measurement import evaluate
from wisepatch.evaluation.prediction import Predictions
from wisepatch.progress import Progress, QuietNotes, Silent
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.tasks import Task


def new_run(command: str) -> str:
    """Return an identity for one run of a command, by which its rows are told from those of others."""
    return f"{command}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class Run:
    """Hold the store, the data folder, the identity and the name of a run, its evaluation settings, and whom it tells."""

    store: Store
    data: Path
    id: str
    name: str = ""
    settings: EvalConfig | None = None
    progress: Progress | None = None

    def measure(
        self,
        checkpoints: Sequence[Checkpoint],
        tasks: Sequence[Task],
        split: str,
        metrics: Sequence[str] = (),
        *,
        extra_fields: Callable[[Checkpoint, Task], Mapping[str, Any]] | None = None,
        watch: Callable[[Predictions], object] | None = None,
        notes: bool = True,
    ) -> list[dict[str, Any]]:
        """Measure checkpoints in one pass over each task and return the rows, as :func:`evaluate`; none is recorded yet.

        Without ``notes`` those that an evaluation gives are left out: they were given before.
        """
        progress = self.progress if notes else QuietNotes(self.progress or Silent())
        return evaluate(
            checkpoints, tasks, self.store, self.data, split=split, metrics=metrics, run=self.id, run_name=self.name, record=False,
            extra_fields=extra_fields, watch=watch, settings=self.settings, progress=progress,
        )  # fmt: skip
