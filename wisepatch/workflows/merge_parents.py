"""The parents of a merge: ends that fit together, the start they share, their tasks, and what is measured of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.config import EvalConfig
from wisepatch.errors import StoreError, UsageError
from wisepatch.hookspecs import MergeMethod
from wisepatch.progress import Progress, Silent
from wisepatch.store.checkpoints import WEIGHTS, Checkpoint, Store
from wisepatch.store.recipes import load_all, merged_head
from wisepatch.task_roles import other_tasks, several_tasks
from wisepatch.tasks import Task
from wisepatch.training.fisher_information import EXAMPLES, endpoint_fisher
from wisepatch.training.gram_matrices import REGMEAN_PLUS_PLUS, gram_matrices
from wisepatch.weights.methods import check_same, with_one_head
from wisepatch.weights.streaming import read_weights
from wisepatch.workflows.tasks_of_run import tasks_of_run

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

WITHOUT_A_START = "linear, slerp, fisher or regmean"
PARTS = ("visual", "text")


@dataclass(frozen=True)
class Parents:
    """The ends of a merge and the start that all were trained from, where they have one; ``all`` is in the order of the method."""

    ends: tuple[Checkpoint, ...]
    start: Checkpoint | None
    all: tuple[Checkpoint, ...]
    names: tuple[str, ...]


def merge_parents(
    store: Store, method: MergeMethod, ends: Sequence[Checkpoint], start: Checkpoint | str | None = None
) -> Parents:
    """Return what a method merges.

    Raises :class:`UsageError` for too few or too many, :class:`StoreError` for what does not fit together.
    """
    for place, end in enumerate(ends):
        store.check_own(end)
        if end.id in [other.id for other in ends[:place]]:
            raise UsageError(
                f"{end.name} ({end.id}) is named twice", "name it once; an average may count it more (--param weights)"
            )
    given = store.find(start) if isinstance(start, str) else start
    named = [end for end in ends if method.from_start and end.kind in ("zeroshot", "start")]
    if named and given is None and len(ends) > len(named):
        raise UsageError(
            f"{named[0].name} ({named[0].id}) is no end, but a start, and {method.name} adds ends to one",
            "leave it out: the start of the ends is found, or named with --from",
        )
    least, most = method.ends
    least = max(least, 1 if method.from_start else 2)
    if len(ends) < least or (most is not None and len(ends) > most):
        wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
        what = f"{len(ends)} checkpoint{'s' if len(ends) != 1 else ''}"
        raise UsageError(
            f"{method.name} merges {wanted}, and {what} {'are' if len(ends) != 1 else 'is'} named", "name others"
        )
    _check_models(ends)
    found = given or common_start(store, method, ends)
    if found is not None:
        store.check_own(found)
    everything = (found, *ends) if method.from_start and found is not None else tuple(ends)
    merged_head(everything)
    return Parents(tuple(ends), found, everything, _check_tensors(store, everything))


def _check_models(ends: Sequence[Checkpoint]) -> None:
    first = ends[0]
    for other in ends[1:]:
        if other.model["model"] != first.model["model"]:
            raise StoreError(
                f"{first.name} ({first.id}) and {other.name} ({other.id}) are of different architectures: "
                f"{first.model['model']} and {other.model['model']}",
                "merge checkpoints of one model",
            )


def _check_tensors(store: Store, parents: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Compare names and shapes before any work; files are mapped, not read. Return the names of all tensors."""
    weights = with_one_head([_like_weights(store, parent) for parent in parents])
    check_same(*weights)
    return tuple(weights[0])


def _like_weights(store: Store, checkpoint: Checkpoint) -> Tensors:
    """Return tensors of the names, shapes and integers of a checkpoint, without a merge: of a recipe those of its first parent."""
    if (checkpoint.home / WEIGHTS).is_file():
        return read_weights(checkpoint.home / WEIGHTS)[0]
    return with_one_head([_like_weights(store, parent) for parent in store.parents(checkpoint)])[0]


def common_start(store: Store, method: MergeMethod, ends: Sequence[Checkpoint]) -> Checkpoint | None:
    """Return the checkpoint that all ends were trained from, without a head where one of them has none; ``None`` without.

    Raises :class:`StoreError` where a method of task vectors has no such: ends without a start, or of different ones.
    """
    starts = {end.id: _start_of(store, end) for end in ends}
    orphans = [end for end in ends if starts[end.id] is None]
    known = [start for start in starts.values() if start is not None]
    if orphans:
        if not method.from_start:
            return None
        end = orphans[0]
        raise StoreError(
            f"{end.name} ({end.id}) does not say what it was trained from, and {method.name} adds task vectors to a start",
            f"name the start with --from, or use {WITHOUT_A_START}, which need none",
        )
    kinds = {start.id: tuple(_part(store, start, part) for part in PARTS) for start in known}
    if len(set(kinds.values())) > 1:
        if not method.from_start:
            return None
        pairs = ", ".join(f"{end.name} from {start.name} ({start.id})" for end in ends if (start := starts[end.id]))
        raise StoreError(
            f"the ends have different starts, and task vectors of these do not add up: {pairs}",
            f"average them with {WITHOUT_A_START}, or name one start for all with --from",
        )
    headed = [end for end in ends if end.head]
    fitting = [start for start in known if bool(start.head) == (len(headed) == len(ends))]
    return (fitting or [_headless(store, known[0])])[0]


def _start_of(store: Store, end: Checkpoint) -> Checkpoint | None:
    """Return what a checkpoint was trained from; of a mix the start of all its parents, or the first where they have none."""
    if end.recipe:
        with suppress(StoreError):  # of a mix with weights of its own the parents may be gone
            starts = [_start_of(store, parent) for parent in store.parents(end)]
            if starts[0] and all(start == starts[0] for start in starts):
                return starts[0]
    return store.get(end.parents[0]) if end.parents else None


def _headless(store: Store, start: Checkpoint) -> Checkpoint:
    while start.head and start.parents:
        start = store.get(start.parents[0])
    return start


def _part(store: Store, checkpoint: Checkpoint, part: str) -> str:
    return checkpoint.parts.get(part) or checkpoint.id


def tasks_of(
    ends: Sequence[Checkpoint], tasks: Sequence[Task | str] | Task | str | None, limit: int | None
) -> tuple[Task, tuple[Task, ...]]:
    """Return what the ends were trained on, one task or several together, and the other tasks to measure.

    Those are ``tasks``, by default the supported tasks of the ends' runs. Of ends that do not say what they were trained on the
    first of ``tasks`` stands for it. Raises :class:`UsageError` where there is none, or two are told apart by a folder alone.
    """
    runs = [tasks_of_run(end, None, limit) for end in ends if "task" in end.config]
    if not runs:
        patching, others = tasks_of_run(ends[0], tasks, limit)
        return patching, tuple(others)
    trained = {task.base_spec: task for patching, _ in runs for task in patching.each}
    patching = several_tasks(list(trained.values()))
    supported = {task.base_spec: task for _, others in runs for task in others}
    return patching, tuple(other_tasks(patching, list(supported.values()) if tasks is None else tasks, limit=limit))


def own_task(method: MergeMethod, end: Checkpoint, limit: int | None = None) -> Task:
    """Return the task whose training images a method reads for an end. Raises :class:`UsageError` where it does not say it."""
    if "task" not in end.config:
        raise UsageError(
            f"{end.name} ({end.id}) does not say what it was trained on, and {method.name} reads training images",
            "use a method that needs none, such as linear",
        )
    return tasks_of_run(end, (), limit)[0]


def with_information(
    method: MergeMethod,
    parents: Parents,
    grid: Sequence[Mapping[str, Any]],
    store: Store,
    data: Path,
    *,
    limit: int | None = None,
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Add to each candidate's parameters what its method weighs the ends by, measured once for all that ask for the same."""
    if not (method.needs_fisher or method.needs_grams):
        return list(map(dict, grid))
    matters = ("images", "reduction") if method.name == REGMEAN_PLUS_PLUS else ("images",)
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    candidates = []
    for params in grid:
        asked = tuple(params.get(name) for name in matters)
        if asked not in found:
            found[asked] = _information(method, parents, params, store, data, limit, settings, progress)
        candidates.append({**params, **found[asked]})
    return candidates


def _information(
    method: MergeMethod,
    parents: Parents,
    params: Mapping[str, Any],
    store: Store,
    data: Path,
    limit: int | None,
    settings: EvalConfig | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """Measure what a method weighs each end by, on training images of its own task; return the recipe's parameter for it."""
    progress, ends, seed = progress or Silent(), parents.ends, parents.ends[0].config.get("seed") or 0
    known = [own_task(method, end, limit) for end in ends]
    workers = settings.workers if settings else None
    if method.needs_grams:
        found = gram_matrices(
            ends, known, method.name, params, store, data, seed=seed, workers=workers, progress=progress
        )
        return {"gram": found}
    weights = list(load_all(store, ends))
    changed = {
        name for name, tensor in weights[0].items() if any(not tensor.equal(other[name]) for other in weights[1:])
    }
    entries = [
        endpoint_fisher(end, theta, changed, task, store, data, EXAMPLES, seed, workers, progress)
        for end, theta, task in zip(ends, weights, known, strict=True)
    ]
    return {"fisher": {"files": [each["file"] for each in entries], "examples": EXAMPLES, "seed": seed}}
