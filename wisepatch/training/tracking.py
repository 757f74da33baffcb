"""Hand the losses, rates and validation of a training to trackers that Accelerate knows, such as tensorboard or wandb."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from wisepatch.config import names_by_comma
from wisepatch.errors import UnknownNameError, UsageError, WisepatchError
from wisepatch.progress import Progress
from wisepatch.store.runs import Run
from wisepatch.train_config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "wisepatch"
MAX_SLUG_CHARACTERS = 60
PLAIN = (bool, int, float, str)  # settings that every tracker takes


def trackers(names: str | None) -> list[str]:
    """Return the names of trackers in a list by comma.

    Raises :class:`UnknownNameError` for one that Accelerate does not know, :class:`UsageError` for one that is not installed.
    """
    asked = names_by_comma(names or "")
    known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
    available = {str(name) for name in get_available_trackers()}
    for name in asked:
        if name not in known:
            raise UnknownNameError("tracker", name, known)
        if name in LoggerType.list() and name not in available:  # others were registered as classes
            raise UsageError(f"the tracker {name} is not installed", f"install its package, such as pip install {name}")
    return asked


def tracker_problems(config: TrainConfig) -> list[WisepatchError]:
    """Return why a training cannot be tracked as it is asked for."""
    try:
        trackers(config.track)
    except UsageError as error:
        return [error]
    return []


@contextmanager
def tracked(
    accelerator: Accelerator, config: TrainConfig, run: Run, progress: Progress
) -> Iterator[Callable[..., None]]:
    """Yield what logs an entry in the store's log and in the trackers. Files of trackers lie below ``tracking``, a folder a run.

    A tracker that fails is said and left out from there on: the training goes on.
    """
    if not config.track:
        yield run.log
        return
    folder = "-".join([*filter(None, [re.sub(r"[^A-Za-z0-9_.-]+", "_", run.called)[:MAX_SLUG_CHARACTERS]]), run.id])
    accelerator.project_configuration.logging_dir = str(run.store / "tracking" / folder)
    tracking = _Trackers(accelerator, progress)
    settings = {
        key: value if isinstance(value, PLAIN) else str(value)
        for key, value in config.identity.items()
        if value is not None
    }
    tracking.call(lambda: accelerator.init_trackers(PROJECT, config={"run": run.called or run.id, **settings}))

    def both(*, step: int, **entry: Any) -> None:
        run.log(step=step, **entry)
        tracking.call(lambda: accelerator.log(dict(_flat(entry)), step=step))

    try:
        yield both
    finally:
        tracking.call(accelerator.end_training)


class _Trackers:
    def __init__(self, accelerator: Accelerator, progress: Progress) -> None:
        self.accelerator, self.progress, self.working = accelerator, progress, True

    def call(self, function: Callable[[], object]) -> None:
        """Call a function that may raise anything, once it has not raised yet."""
        if not self.working:
            return
        try:
            function()
        except Exception as error:  # noqa: BLE001 -- trackers talk to services, and a training is worth more
            self.working = False
            self.progress.note(f"tracking stops, the training goes on: {type(error).__name__}: {error}")


def _flat(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of an entry; those of the validation are called ``validation/TASK``."""
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{key}", number) for key, number in value.items())
        else:
            yield name, value
