"""Open every task, split and metric of a command before anything is trained or measured, and say all that is wrong at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from wisepatch.analysis.metrics import missing_needs
from wisepatch.config import listed
from wisepatch.datasets.image_files import check_readable
from wisepatch.errors import StoreError, UnknownNameError, UsageError, WisepatchError
from wisepatch.evaluation.measurement import metrics_for
from wisepatch.files import check_writable, expanded, refused
from wisepatch.hookspecs import Metric
from wisepatch.process_group import main_first
from wisepatch.store.checkpoints import Store
from wisepatch.store.sharing import HINT, is_marked
from wisepatch.tasks import Task


class PreflightError(WisepatchError):
    """Several things that are wrong with a command, each with its next step."""

    def __init__(self, problems: Sequence[WisepatchError]) -> None:
        """List the problems; the exit code is that of the first."""
        self.problems = tuple(problems)
        super().__init__("\n".join(self.lines), "mend them all, then run the command again")
        self.exit_code = problems[0].exit_code

    @property
    def lines(self) -> tuple[str, ...]:
        """Return a line for each problem, after one with their number."""
        hints = [f" ({each.hint})" if each.hint else "" for each in self.problems]
        listed = (f"  {each.message}{hint}" for each, hint in zip(self.problems, hints, strict=True))
        return (f"{len(self.problems)} things are wrong:", *listed)


def preflight(
    splits_of: Iterable[tuple[Task, Iterable[str]]],
    data: Path | str,
    metrics: Sequence[str] | str = (),
    problems: Iterable[WisepatchError] = (),
    *,
    read: Iterable[tuple[Task, Iterable[str]]] = (),
    store: Store | None = None,
) -> None:
    """Open each task's splits once and check that they support its metrics (or ``metrics``).

    The splits ``read`` by a training are opened first, and no metric is asked of them. The headers of a user's own images are read
    too; before a training the images themselves, also those that are measured afterwards: one that is broken is said before the
    first step. Of several processes the main one goes first, so that data is downloaded once. A ``store`` must be one that can be
    written. Raises the one :class:`WisepatchError` that was met, or :class:`PreflightError` with all of them, after those
    ``problems`` that the caller met.
    """
    errors = {error.message: error for error in [*problems, *(_store_problems(store) if store else ())]}
    data, metrics = expanded(data), listed(metrics)
    measured = [(task, split) for task, splits in splits_of for split in splits]
    trained = [(task, split) for task, splits in read for split in splits]
    with main_first():
        for task, split in dict.fromkeys([*trained, *measured]):
            try:
                opened = task.dataset.split(split, data)
                check_readable(opened, decode=bool(trained))
                annotations = opened.annotations
                for metric in _metrics(task, metrics) if (task, split) in measured else ():
                    for error in missing_needs(metric, annotations):
                        message = f"{task.name} ({split}): {error.message}"
                        errors.setdefault(message, UsageError(message, error.hint))
            except WisepatchError as error:
                errors.setdefault(error.message, error)
        _raise(list(errors.values()))


def _metrics(task: Task, asked: Sequence[str]) -> list[Metric]:
    """Return the metrics to measure a task by; an unknown one of the task's own is said with the task."""
    try:
        return metrics_for(task, asked)
    except UnknownNameError as error:
        if not asked:
            error.message = f"{task.name}: {error.message}"
        raise


def _store_problems(store: Store) -> Iterator[WisepatchError]:
    """Yield why a store cannot be written; nothing is made."""
    try:
        is_marked(store.root)
        with refused(f"the store {store.root}", StoreError, HINT):
            for folder in (store.root, store.checkpoints):
                check_writable(folder, folder=True)
    except StoreError as error:
        yield error


def _raise(errors: Sequence[WisepatchError]) -> None:
    if len(errors) > 1:
        raise PreflightError(errors)
    if errors:
        raise errors[0]


def evaluation_splits(tasks: Sequence[Task], split: str) -> list[tuple[Task, list[str]]]:
    """Return each task with the split that it names, or ``split``."""
    return [(task, [task.split or split]) for task in tasks]
