"""Resume a training: its position between two steps, states on the disk, and the signals that ask for one."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from wisepatch.errors import DataError, Stopped, StoreError
from wisepatch.files import check_room, write_tensors
from wisepatch.process_group import from_all, on_main
from wisepatch.ranks import is_main
from wisepatch.store.checkpoints import Store
from wisepatch.store.runs import KEPT_STATES, Run
from wisepatch.training.averaging import Average

if TYPE_CHECKING:
    from types import FrameType

    import torch
    from accelerate import Accelerator

BEST, AVERAGE = "best.safetensors", "average.safetensors"
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")  # the last where a terminal is closed, unless it is ignored, as under nohup
SAVING = "SIGUSR1"  # what Slurm sends before it kills


@dataclass
class Position:
    """Where a training stands between two steps; ``batches`` are those of the epoch that are done, micro-batches each."""

    step: int = 0
    epoch: int = 0
    batches: int = 0
    reported: int = 0
    loss_sum: float = 0.0
    losses: list[float] = field(default_factory=list)
    next_validation: float = 0.0
    best_score: float | None = None
    best_epoch: float = 0.0
    validations_since_best: int = 0

    def is_better(self, score: float | None, epoch: float) -> bool:
        """Take in the score of a validation, the higher the better; tell whether it is the best until now. NaN never is."""
        if score is None:
            return False
        better = not math.isnan(score) and (self.best_score is None or score > self.best_score)
        if better:
            self.best_score, self.best_epoch = score, epoch
        self.validations_since_best = 0 if better else self.validations_since_best + 1
        return better


@contextmanager
def open_run(
    store: Store,
    identity: Mapping[str, Any],
    fingerprint: str,
    task: str,
    note: Callable[[str], object],
    *,
    fresh: bool,
    name: str = "",
) -> Iterator[tuple[Run, dict[str, Any] | None]]:
    """Yield the run of a training, which no other command trains meanwhile, and what came out of it if it is finished.

    ``fresh`` forgets what there is; a ``name`` replaces the one that the run has.
    Raises :class:`DataError` where the state that is kept was trained on other images.
    """
    run = Run(store.root, identity, fingerprint, writes=is_main(), name=name)
    waiting = f"another command runs this very training of {task}: waiting for it"

    def look() -> dict[str, Any] | None:
        outcome = None if fresh else _whole_outcome(run, store)
        if not fresh and run.has_other_data():
            raise DataError(
                f"the training images of {task} have changed since this training stopped, with its state in {run.folder}",
                "put them back, or begin anew with --fresh",
            )
        if outcome is None:
            run.begin(fresh=fresh)
        elif name:
            run.keep_record()
        return outcome

    with run.lock(lambda: note(waiting)) if run.writes else nullcontext():
        yield run, on_main(look)


def _whole_outcome(run: Run, store: Store) -> dict[str, Any] | None:
    """Return what came out of a finished run, where its checkpoints are still in the store and whole."""
    outcome = run.finished()
    with suppress(StoreError, KeyError, TypeError):
        if outcome and not any(store.problem(store.get(outcome[end])) for end in ("zeroshot", "finetuned")):
            return outcome
    return None


class States:
    """Saves and restores all that a training needs to go on: weights, optimiser, scaler, random states, position."""

    def __init__(
        self, run: Run, accelerator: Accelerator, note: Callable[[str], object], average: Average | None = None
    ) -> None:
        """Keep the states in ``run``, with the ``average`` of the weights; every process calls every method."""
        self.run, self.accelerator, self.note = run, accelerator, note
        self.average = average or Average()

    def restore(self) -> tuple[Position, dict[str, torch.Tensor]] | None:
        """Load the newest whole state into what was prepared; return its position, and the best weights until then, if any."""
        from safetensors.torch import load_file

        found = on_main(lambda: self.run.newest_state(self.note))
        self.run.rewind_log(found[1]["step"] if found else 0)
        if found is None:
            return None
        folder, position = found
        self.accelerator.load_state(str(folder))
        best, average = (load_file(folder / name) if (folder / name).exists() else {} for name in (BEST, AVERAGE))
        self.average.restore(average)
        return Position(**position), best

    def save(self, position: Position, best: Mapping[str, torch.Tensor]) -> str:
        """Save a state, whole or not at all; return why it cannot be saved, empty if it is: no reason to lose the training."""

        def publish() -> None:
            for name, tensors in ((BEST, best), (AVERAGE, self.average.tensors)):
                if tensors:
                    write_tensors(folder / name, tensors)
            self.run.keep_state(folder, position.step, asdict(position))

        folder, problem = on_main(lambda: _attempt(self.run.new_state))
        if not problem:
            problem = next(filter(None, from_all(_attempt(lambda: self.accelerator.save_state(str(folder)))[1])), "")
        return problem or on_main(lambda: _attempt(publish)[1])


def _attempt(work: Callable[[], Any]) -> tuple[Any, str]:
    """Return what ``work`` returns, and why it cannot write, empty if it can."""
    from safetensors import SafetensorError

    try:
        return work(), ""
    except StoreError as error:
        return None, error.message
    except (OSError, SafetensorError, RuntimeError) as error:  # torch raises the last where a disk is full
        return None, getattr(error, "strerror", None) or str(error).partition("\n")[0]


def check_room_for_training(
    store: Store, clip: torch.nn.Module, classifier: torch.nn.Module, trained: Sequence[torch.Tensor], *, saves: bool
) -> None:
    """Raise :class:`StoreError` where the disk has no room for the checkpoint and, with ``saves``, for the states on the way."""
    checkpoint, states = room_for_training(clip, classifier, trained, saves=saves)
    hint = "free space there, or name another store with --store"
    check_room(store.root, checkpoint + states, f"{hint}, or save no states with --save-every 0" if saves else hint)


def room_for_training(
    clip: torch.nn.Module, classifier: torch.nn.Module, trained: Sequence[torch.Tensor], *, saves: bool
) -> tuple[int, int]:
    """Compute the bytes of a checkpoint and, with ``saves``, of the states on the way."""
    checkpoint = sum(tensor.nbytes for tensor in clip.state_dict().values())
    moments = 2 * sum(parameter.nbytes for parameter in trained)
    state = sum(tensor.nbytes for tensor in classifier.state_dict().values()) + moments
    return checkpoint, (KEPT_STATES + 1) * state if saves else 0  # the third is written before the oldest goes


class Signals:
    """Wait for signals that ask a training to save or to stop, which it does after the step under way.

    A second signal to stop does so at once. Where a training does not run in the main thread, signals are left alone.
    """

    def __init__(self, note: Callable[[str], object]) -> None:
        """Tell a person by ``note`` that the training is going to stop."""
        self.note = note
        self.stop, self.save = 0, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Begin to listen."""
        if threading.current_thread() is threading.main_thread():
            for name in (*STOPPING, SAVING):
                number = getattr(signal, name, None)  # Windows has not all of them
                if number and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if number == getattr(signal, SAVING, None):
            self.save = True
        elif self.stop:
            raise Stopped(number)
        else:
            self.stop = number
            with suppress(RuntimeError):  # in the middle of another line to the terminal
                self.note("stopping after this step, with its state saved; a second time stops at once")

    def asked(self) -> tuple[bool, int]:
        """Return whether a state is to be saved, and the number of the signal to stop, if any; the same in every process."""
        asked = from_all((self.save or bool(self.stop), self.stop))
        self.save = False
        return any(save for save, _ in asked), max(stop for _, stop in asked)
