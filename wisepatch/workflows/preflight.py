"""Open every task, split and metric of a command before anything is trained or measured, and say all that is wrong at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from wisepatch.analysis.metrics import missing_needs
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.evaluation.measurement import metrics_for
from wisepatch.tasks import Task


class PreflightError(WisepatchError):
    """Several things that are wrong with a command, each with its next step."""

    def __init__(self, problems: Sequence[WisepatchError]) -> None:
        """List the problems; the exit code is that of the first."""
        lines = "".join(f"\n  {each.message}{f' ({each.hint})' if each.hint else ''}" for each in problems)
        super().__init__(f"{len(problems)} things are wrong:{lines}", "mend them all, then run the command again")
        self.problems = tuple(problems)
        self.exit_code = problems[0].exit_code


def preflight(
    splits_of: Iterable[tuple[Task, Iterable[str]]],
    data: Path,
    metrics: Sequence[str] = (),
    problems: Iterable[WisepatchError] = (),
) -> None:
    """Open each task's splits once and check that they support its metrics (or ``metrics``); no image is decoded.

    Raises the one :class:`WisepatchError` that was met, or :class:`PreflightError` with all of them, after those ``problems`` that
    the caller met.
    """
    errors = {error.message: error for error in problems}
    opened = set()
    for task, split in ((task, split) for task, splits in splits_of for split in splits):
        if (task, split) in opened:
            continue
        opened.add((task, split))
        try:
            annotations = task.dataset.split(split, data).annotations
            for metric in metrics_for(task, metrics) if split != "train" else ():
                for error in missing_needs(metric, annotations):
                    message = f"{task.name} ({split}): {error.message}"
                    errors.setdefault(message, UsageError(message, error.hint))
        except WisepatchError as error:
            errors.setdefault(error.message, error)
    if len(errors) > 1:
        raise PreflightError(list(errors.values()))
    if errors:
        raise next(iter(errors.values()))


def evaluation_splits(tasks: Sequence[Task], split: str) -> list[tuple[Task, list[str]]]:
    """Return each task with the split that it names, or ``split``."""
    return [(task, [task.split or split]) for task in tasks]
