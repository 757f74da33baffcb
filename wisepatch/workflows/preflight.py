"""Open every task, split and metric of a command before anything is trained or measured, and say all that is wrong at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from wisepatch.analysis.metrics import missing_needs
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.evaluation.measurement import metrics_for
from wisepatch.process_group import main_first
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
    *,
    read: Iterable[tuple[Task, Iterable[str]]] = (),
) -> None:
    """Open each task's splits once and check that they support its metrics (or ``metrics``); no image is decoded.

    The splits ``read`` are opened first, and no metric is asked of them: training has none. Of several processes the main one
    goes first, so that data is downloaded once. Raises the one :class:`WisepatchError` that was met, or :class:`PreflightError`
    with all of them, after those ``problems`` that the caller met.
    """
    errors = {error.message: error for error in problems}
    measured = [(task, split) for task, splits in splits_of for split in splits]
    both = [*((task, split) for task, splits in read for split in splits), *measured]
    with main_first():
        for task, split in dict.fromkeys(both):
            try:
                annotations = task.dataset.split(split, data).annotations
                for metric in metrics_for(task, metrics) if (task, split) in measured else ():
                    for error in missing_needs(metric, annotations):
                        message = f"{task.name} ({split}): {error.message}"
                        errors.setdefault(message, UsageError(message, error.hint))
            except WisepatchError as error:
                errors.setdefault(error.message, error)
        _raise(list(errors.values()))


def _raise(errors: Sequence[WisepatchError]) -> None:
    if len(errors) > 1:
        raise PreflightError(errors)
    if errors:
        raise errors[0]


def evaluation_splits(tasks: Sequence[Task], split: str) -> list[tuple[Task, list[str]]]:
    """Return each task with the split that it names, or ``split``."""
    return [(task, [task.split or split]) for task in tasks]
