"""Runs: what a training leaves while it is under way, so that the same command goes on where it stopped.

``runs/<id>`` holds ``run.json`` (what the training is, and the fingerprint of its data), ``log.jsonl`` (losses, rates, validation),
up to two states to resume from, and at the end ``finished.json`` in their place. The id follows from all that decides about the
weights but the data, which must be the same when a training goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wisepatch.files import remove, remove_at_once, remove_leftovers, seal, sync_folder, unseal, write_durably
from wisepatch.locks import LOCK, locked
from wisepatch.store.cache import entry_problem, seal_entry
from wisepatch.store.manifests import ID
from wisepatch.store.sharing import writing

RUN, LOG, FINISHED, POSITION = "run.json", "log.jsonl", "finished.json", "position.json"
PARTIAL_STATE = ".partial-state"  # whoever holds the lock of the run writes it
KEPT_STATES = 2


@dataclass(frozen=True)
class Run:
    """A training of the store ``store``; ``identity`` holds JSON types, ``data`` is the fingerprint of the images.

    Of several processes that train together one ``writes``; in the others nothing is logged or finished.
    """

    store: Path
    identity: Mapping[str, Any]
    data: str
    writes: bool = True
    name: str = ""  # that a user gave it

    @property
    def id(self) -> str:
        """Return 12 hexadecimal digits that follow from the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Return the folder of the run."""
        return self.store / "runs" / self.id

    @property
    def called(self) -> str:
        """Return the name that is given, or the one that the run has; empty where it has none."""
        return self.name or str((_read(self.folder / RUN) or {}).get("name", ""))

    @contextmanager
    def lock(self, waiting: Callable[[], object] | None = None) -> Iterator[None]:
        """Let no other process train this meanwhile; ``waiting`` is called where another one does."""
        with ExitStack() as stack:
            with writing(self.store):
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.folder.parent / f".{self.id}{LOCK}", waiting))
            yield

    def begin(self, *, fresh: bool = False) -> None:
        """Make the folder; ``fresh`` forgets what is in it. Call this and all that writes under the lock."""
        with writing(self.store):
            if fresh:
                for state in self.states():
                    remove_at_once(state)
                remove(self.folder)
            self.folder.mkdir(exist_ok=True)
            self.keep_record()
            for leftover in (self.folder / FINISHED, self.folder / PARTIAL_STATE):
                remove(leftover)
            remove_leftovers(self.folder)

    def keep_record(self) -> None:
        """Write what the training is, and its name: a new one, or the one that it had."""
        record = {"identity": dict(self.identity), "data": self.data, "name": self.called}
        with writing(self.store):
            write_durably(self.folder / RUN, seal(record))

    def has_other_data(self) -> bool:
        """Tell whether the states that are kept were trained on other images."""
        record = _read(self.folder / RUN)
        return bool(self.states()) and record is not None and record.get("data") != self.data

    def finished(self) -> dict[str, Any] | None:
        """Return what :meth:`finish` was given; ``None`` for a training that is not finished, or was on other images."""
        record, finished = _read(self.folder / RUN), _read(self.folder / FINISHED)
        return finished if record is not None and record.get("data") == self.data else None

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Keep what came out, JSON types, and remove the states."""
        if not self.writes:
            return
        with writing(self.store):
            write_durably(self.folder / FINISHED, seal(outcome))
            for state in self.states():
                remove_at_once(state)

    def states(self) -> list[Path]:
        """Return the folders of the states, oldest first, whole or not."""
        return sorted(self.folder.glob("state-*"))

    def newest_state(self, note: Callable[[str], object]) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest whole state and its position; ``note`` is told of damaged ones."""
        for state in reversed(self.states()):
            problem = entry_problem(state, "state")
            position = None if problem else _read(state / POSITION)
            if position is not None:
                return state, position
            note(f"{problem or f'the state {state} has no position'}: an older one is taken, or none")
        return None

    def new_state(self) -> Path:
        """Make an empty folder for the files of a state."""
        folder = self.folder / PARTIAL_STATE
        with writing(self.store):
            remove(folder)
            folder.mkdir()
        return folder

    def keep_state(self, partial: Path, step: int, position: Mapping[str, Any]) -> None:
        """Hash and publish the state after ``step``; of the older ones, one is kept. ``position`` holds JSON types."""
        with writing(self.store):
            write_durably(partial / POSITION, seal(position))
            remove_leftovers(partial)
            seal_entry(partial, {})
            remove_leftovers(partial)
            state = self.folder / f"state-{step:09d}"
            remove_at_once(state)
            partial.rename(state)
            sync_folder(self.folder)
            for old in self.states()[:-KEPT_STATES]:
                remove_at_once(old)

    def log(self, **entry: Any) -> None:
        """Append a line to the log."""
        if not self.writes:
            return
        with writing(self.store), (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def rewind_log(self, step: int) -> None:
        """Drop what was logged after ``step``."""
        if not self.writes:
            return
        path = self.folder / LOG
        with writing(self.store):
            kept = [json.dumps(entry) + "\n" for entry in read_log(path) if entry["step"] <= step]
            write_durably(path, "".join(kept).encode())


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log; a line that a kill tore is passed over."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("step"), int)]


@dataclass(frozen=True)
class Training:
    """A training that has logged something: its id, task, name, and the checkpoint it came to, if it is finished."""

    folder: Path
    task: str
    finetuned: str
    name: str

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Return what was logged."""
        return read_log(self.folder / LOG)


def logged_trainings(store: Path) -> list[Training]:
    """Return the trainings of a store that have logged something, the one that logged last at the end."""
    logs = [path for path in (store / "runs").glob(f"*/{LOG}") if ID.fullmatch(path.parent.name)]
    trainings = []
    for folder in (path.parent for path in sorted(logs, key=lambda path: path.stat().st_mtime)):
        record = _read(folder / RUN) or {}
        identity = record.get("identity")
        config = identity.get("config") if isinstance(identity, dict) else None
        task = config.get("task") if isinstance(config, dict) else None
        finetuned = str((_read(folder / FINISHED) or {}).get("finetuned"))
        trainings.append(Training(folder, str(task), finetuned, str(record.get("name") or "")))
    return trainings


def finished_trainings(store: Path) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Yield of each finished training its identity, the fingerprint of its images, and what came out."""
    for path in sorted((store / "runs").glob(f"*/{FINISHED}")):
        record, outcome = _read(path.parent / RUN), _read(path)
        if outcome and record and isinstance(record.get("identity"), dict):
            yield record["identity"], str(record.get("data")), outcome


def names_of_trainings(store: Path) -> dict[str, str]:
    """Return the names that were given to trainings, by the id of the fine-tuned checkpoint."""
    return {each.finetuned: each.name for each in logged_trainings(store) if each.name}


@dataclass(frozen=True)
class Unfinished:
    """A training that stopped: its folder, its identity, and the step after which its newest state was saved."""

    folder: Path
    identity: dict[str, Any]
    step: int

    @property
    def task(self) -> str:
        """Return the word for the task that is trained."""
        return str(self.identity.get("config", {}).get("task"))


def unfinished_runs(store: Path) -> list[Unfinished]:
    """Return the trainings of a store that can go on, under way or not."""
    runs = []
    for folder in sorted((store / "runs").glob("*")):
        record, states = _read(folder / RUN), sorted(folder.glob("state-*"))
        if ID.fullmatch(folder.name) and record and isinstance(record.get("identity"), dict) and states:
            runs.append(Unfinished(folder, record["identity"], int(states[-1].name.removeprefix("state-"))))
    return runs


def run_problems(store: Path) -> list[str]:
    """Hash the records and the states of all trainings; return one sentence for each that is damaged."""
    problems = []
    for folder in sorted(path for path in (store / "runs").glob("[!.]*") if ID.fullmatch(path.name)):
        for record in (folder / RUN, folder / FINISHED):
            try:
                unseal(record.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, ValueError, RecursionError) as error:
                problems.append(f"the record of a training {record} cannot be read ({error})")
        found = {state: entry_problem(state, "state") for state in sorted(folder.glob("state-*"))}
        problems += [problem for state, problem in found.items() if problem and state.exists()]  # not removed meanwhile
    return problems


def remove_run_leftovers(store: Path) -> list[Path]:
    """Remove what interrupted writes left of trainings that are not under way; return the paths."""
    gone = []
    for folder in sorted(path for path in (store / "runs").glob("[!.]*") if ID.fullmatch(path.name)):
        with locked(folder.parent / f".{folder.name}{LOCK}", wait=False) as stopped:
            if stopped:
                partial = [path for path in (folder / PARTIAL_STATE,) if path.exists()]
                for path in partial:
                    remove(path)
                gone += [*partial, *remove_leftovers(folder)]
    return gone


def remove_states(run: Unfinished) -> list[Path]:
    """Remove the states of a training that stopped, and return their folders; none where it is under way."""
    with locked(run.folder.parent / f".{run.folder.name}{LOCK}", wait=False) as stopped:
        states = sorted(run.folder.glob("state-*")) if stopped else []
        for path in states:
            remove_at_once(path)
    return states


def _read(path: Path) -> dict[str, Any] | None:
    """Return what was sealed; ``None`` for what is not there or differs from its hash."""
    with suppress(OSError, ValueError, RecursionError):
        return unseal(path.read_bytes())
    return None
