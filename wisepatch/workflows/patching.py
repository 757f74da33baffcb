"""The whole way, for programs: evaluate zero-shot, sweep alpha, choose it on validation data, patch."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.selection import MAX_DROP, Point, Rule, choose, points
from wisepatch.config import (
    DEFAULT_ALPHAS,
    FISHER,
    LINEAR,
    ModelConfig,
    TrainConfig,
    check_mix,
    check_speed,
    parse_alphas,
)
from wisepatch.errors import StoreError, UsageError
from wisepatch.evaluation.measurement import evaluate, watcher
from wisepatch.plugins import find_task, find_tasks
from wisepatch.progress import Silent
from wisepatch.store.checkpoints import Recipe
from wisepatch.store.results import append
from wisepatch.training.finetuning import Finetuned, checkpoint_prefix, finetune, save_zeroshot
from wisepatch.training.fisher_information import EXAMPLES, line_fishers
from wisepatch.weights.interpolation import weights_file
from wisepatch.weights.streaming import merge_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Unpack

    from wisepatch.config import Speed
    from wisepatch.plugins import Task
    from wisepatch.progress import Progress
    from wisepatch.store.checkpoints import Checkpoint, Store
    from wisepatch.training.finetuning import Watcher

VAL, TEST = "val", "test"


@dataclass(frozen=True)
class Sweep:
    """A sweep over alpha: all rows as written, the points of each split, and what was chosen, if a rule was given."""

    run: str
    patching: str
    supported: tuple[str, ...]
    rows: list[dict[str, Any]]
    points: dict[str, list[Point]]
    checkpoints: dict[float, Checkpoint]
    rule: Rule | None = None
    selected_on: str | None = None
    choice: Point | None = None
    chosen: Checkpoint | None = None

    def at(self, split: str, alpha: float) -> Point:
        """The point of a split at an alpha of the sweep."""
        return next(point for point in self.points[split] if point.alpha == alpha)


@dataclass(frozen=True)
class Patched:
    """What :func:`patch` did: the fine-tuning run and the sweep that chose its alpha."""

    run: Finetuned
    sweep: Sweep


def new_run(command: str) -> str:
    """A name for one run of a command, by which its rows are told from those of others."""
    return f"{command}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def zeroshot(
    model: ModelConfig, tasks: Sequence[Task], store: Store, data: Path, **options: Any
) -> tuple[Checkpoint, list[dict[str, Any]]]:
    """Save the zero-shot checkpoint and measure it on ``tasks``; ``options`` go to ``evaluate``."""
    from wisepatch.models.clip import load_clip

    progress = options.get("progress") or Silent()
    progress.start(f"loading {model}", 1)
    checkpoint = save_zeroshot(store, load_clip(model))
    progress.advance()
    progress.finish()
    return checkpoint, evaluate([checkpoint], tasks, store, data, run=new_run("zeroshot"), **options)


def finetune_watched(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path,
    progress: Progress | None = None,
) -> Finetuned:
    """Fine-tune; with ``config.eval_every`` set, measure task and supported tasks on validation data as it goes."""
    watch: Watcher | None = None
    if config.eval_every:
        tasks = [find_task(config.task, config.classnames, config.templates), *find_tasks(config.supported)]
        watch = watcher(tasks, store, data, workers=config.workers)
    return finetune(config, model, store, data, progress, watch)


def sweep(
    store: Store,
    data: Path,
    *,
    alphas: Sequence[float] | None = None,
    method: str = LINEAR,
    fisher_examples: int = EXAMPLES,
    checkpoint: str = "finetuned",
    tasks: Sequence[str] | None = None,
    rule: Rule | None = None,
    select_on: str = VAL,
    metrics: Sequence[str] = (),
    materialize: bool = False,
    run: str | None = None,
    progress: Progress | None = None,
    **speed: Unpack[Speed],
) -> Sweep:
    """Mix a fine-tuned checkpoint with its zero-shot parent at every alpha and measure all mixes in one pass.

    With ``rule``, alpha is chosen on the ``val`` splits and the ``test`` splits are measured once, after the choice
    (``select_on="test"`` chooses on test data, and every row says so). ``tasks`` defaults to the run's own task and its
    supported ones. Mixes are stored as recipes, as weights with ``materialize``; the chosen one as ``<model>/<task>/patched``.

    With the method ``fisher`` each parameter is weighed by its Fisher information at both ends, measured with the seed of the
    fine-tuning on up to ``fisher_examples`` images of its training split. ``speed`` is :class:`~wisepatch.config.Speed`.
    """
    check_mix(method)
    check_speed(speed)
    alphas = parse_alphas(DEFAULT_ALPHAS) if alphas is None else alphas
    end = store.find(checkpoint)
    if end.kind != "finetuned" or not end.parents:
        raise StoreError(
            f"{end.name} ({end.id}) is not a fine-tuned checkpoint", "name one; `wisepatch store list` lists them"
        )
    store.check_own(end)
    (start,) = store.parents(end)
    patching, others = line_tasks(end, tasks)
    check_selection(alphas, others, rule, select_on)
    run = run or new_run("interpolate")
    fisher = None
    if method == FISHER:
        fisher = line_fishers(
            start, end, patching, store, data, examples=fisher_examples, seed=end.config.get("seed") or 0,
            workers=speed.get("workers"), progress=progress,
        )  # fmt: skip
    mixes = _mixes(store, start, end, alphas, patching.name, fisher, materialize=materialize)
    by_id = {mixed.id: alpha for alpha, mixed in mixes.items()}

    def measure(split: str) -> list[dict[str, Any]]:
        return evaluate(
            list(mixes.values()), [patching, *others], store, data, split=split, metrics=metrics, run=run, record=False,
            progress=progress, **speed,
            labels=lambda mixed, task: {
                "alpha": by_id[mixed.id], "patching": patching.name,
                "role": "patching" if task.name == patching.name else "supported",
                "method": method,
            },
        )  # fmt: skip

    rows: list[dict[str, Any]] = []
    found: dict[str, list[Point]] = {}
    choice: Point | None = None
    # With a rule, test data is measured once, after the choice (unless it is what the choice is to be made on).
    for split in (VAL, TEST) if rule and select_on == VAL else (TEST,):
        measured = measure(split)
        found[split] = points(_accuracies(measured), patching.name, [task.name for task in others])
        if rule and split == select_on:
            choice = choose(found[split], rule)
        if choice:
            measured = [row | {"chosen": row["alpha"] == choice.alpha, "selected_on": select_on} for row in measured]
        rows += append(store.results, measured)
    chosen = None
    if choice is not None:
        chosen = store.save(
            None, kind="patched", name=f"{checkpoint_prefix(ModelConfig.from_json(end.model))}/{patching.name}/patched",
            model=end.model, training=end.training, recipe=_recipe(start, end, choice.alpha, fisher), head=end.head,
            config=end.config | {"select": str(rule), "select_on": select_on},
        )  # fmt: skip
    return Sweep(
        run, patching.name, tuple(t.name for t in others), rows, found, mixes, rule, select_on if rule else None, choice, chosen
    )  # fmt: skip


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> dict[float, dict[str, float]]:
    """``alpha -> task -> value`` of the first metric of each task."""
    first = {row["task"]: row["metric"] for row in reversed(rows)}
    found: dict[float, dict[str, float]] = {}
    for row in rows:
        if row["metric"] == first[row["task"]]:
            found.setdefault(row["alpha"], {})[row["task"]] = row["value"]
    return found


def check_selection(alphas: Sequence[float], others: Sequence[Task], rule: Rule | None, select_on: str) -> None:
    """Raise :class:`UsageError` for a choice of alpha that cannot be made, before anything is trained or measured."""
    if select_on not in (VAL, TEST):
        raise UsageError(f"alpha is selected on val or test, not {select_on!r}", "--select-on takes val or test")
    named = next((task for task in others if task.split), None)
    if rule and named:
        raise UsageError(
            f"{named.spec} names a split, and alpha is to be chosen on {select_on}",
            f"write {named.name}: its splits are used as needed",
        )
    if rule and rule.name == MAX_DROP and not (others and 0 in alphas):
        missing = "alpha 0 in the sweep" if others else "supported tasks"
        raise UsageError(
            f"max-drop needs {missing} to measure the drop from zero-shot", "add them, or use --select best-mean"
        )


def line_tasks(finetuned: Checkpoint, specs: Sequence[str] | None) -> tuple[Task, list[Task]]:
    """The patching task of a fine-tuned checkpoint, as it was trained, and the other tasks to measure.

    ``specs`` of ``None`` means the supported tasks of its run.
    """
    config = finetuned.config
    patching = find_task(config["task"], config.get("classnames"), config.get("templates"))
    return patching, other_tasks(patching, config.get("supported") or () if specs is None else specs)


def other_tasks(patching: Task, specs: Sequence[str]) -> list[Task]:
    """Look up the tasks to measure besides ``patching``.

    Raises :class:`UsageError` where two of them would be told apart by nothing but a split or a folder.
    """
    others = [task for task in find_tasks(specs) if task.base_spec != patching.base_spec]
    seen = {patching.name: patching.spec}
    for task in others:
        if task.name in seen:
            raise UsageError(
                f"two tasks of one sweep are called {task.name!r}: {seen[task.name]} and {task.spec}",
                "name one of them, or rename a folder",
            )
        seen[task.name] = task.spec
    return others


def tasks_of(
    checkpoints: Sequence[Checkpoint],
    specs: Sequence[str],
    classnames: Sequence[str] | None,
    templates: Sequence[str] | None,
) -> list[Task]:
    """The tasks to measure some checkpoints on.

    Without ``specs`` the task that one of them was trained on, and the supported ones of its run. A task that one was trained
    on keeps the class names and prompts of that run unless others are given. Raises :class:`UsageError` where none is named.
    """
    trained = [checkpoint for checkpoint in checkpoints if "task" in checkpoint.config]
    if not specs:
        if not trained:
            raise UsageError(f"{checkpoints[0].name} was not trained on a task", "name tasks with --task")
        patching, others = line_tasks(trained[0], None)
        return [patching, *others]
    found = []
    for task in find_tasks(specs, classnames, templates):
        run = next((c.config for c in trained if c.config["task"] == task.base_spec), {})
        found.append(find_task(task.spec, classnames or run.get("classnames"), templates or run.get("templates")))
    return found


def _recipe(start: Checkpoint, end: Checkpoint, alpha: float, fisher: dict[str, Any] | None) -> Recipe:
    params = {"alpha": alpha} | ({"fisher": fisher} if fisher else {})
    return Recipe(FISHER if fisher else LINEAR, (start.id, end.id), params)


def _mixes(
    store: Store,
    start: Checkpoint,
    end: Checkpoint,
    alphas: Sequence[float],
    task: str,
    fisher: dict[str, Any] | None = None,
    *,
    materialize: bool,
) -> dict[float, Checkpoint]:
    """The checkpoint at each alpha: an end itself, or a recipe.

    With ``materialize`` the weights, the same to the bit as those of the recipe, merged from file to file in little memory.
    """
    name = f"{checkpoint_prefix(ModelConfig.from_json(end.model))}/{task}/{'fisher-' if fisher else ''}alpha="
    mixes: dict[float, Checkpoint] = {}
    with ExitStack() as stack:
        files, fishers = None, None
        if materialize:
            files = [stack.enter_context(weights_file(store, parent, store.checkpoints)) for parent in (start, end)]
            paths = store.cache.fisher_paths(fisher["files"] if fisher else ())
            fishers = (paths[0], paths[1]) if paths else None
        for alpha in alphas:
            if alpha in (0, 1):
                mixes[alpha] = end if alpha else start
                continue
            weights = partial(merge_files, files[0], files[1], alpha, fishers=fishers) if files else None
            mixes[alpha] = store.save(
                weights, kind="interpolated", name=f"{name}{alpha:g}", model=end.model, training=end.training,
                recipe=_recipe(start, end, alpha, fisher), config=end.config, head=end.head,
            )  # fmt: skip
    return mixes


def patch(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path,
    *,
    alphas: Sequence[float] | None = None,
    method: str = LINEAR,
    rule: Rule | None = None,
    select_on: str = VAL,
    run: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Patched:
    """Fine-tune on ``config.task``, sweep alpha, choose it (``best-mean`` unless told otherwise) and store the patched model.

    PAINT section 2, start to end. ``options`` go to :func:`sweep`, which each of several processes would do for itself: let the
    main one call this and the others :func:`finetune_watched`, as the command does.
    """
    # What is misspelt or cannot be chosen is said before anything is trained.
    check_mix(method)
    alphas, rule = parse_alphas(DEFAULT_ALPHAS) if alphas is None else alphas, rule or Rule()
    others = other_tasks(find_task(config.task, config.classnames, config.templates), config.supported)
    check_selection(alphas, others, rule, select_on)
    finished = finetune_watched(config, model, store, data, progress)
    swept = sweep(
        store, data, alphas=alphas, method=method, checkpoint=finished.finetuned.id, tasks=[task.spec for task in others],
        rule=rule, select_on=select_on, run=run or new_run("patch"), progress=progress,
        workers=config.workers, mixed_precision=config.mixed_precision, **options,
    )  # fmt: skip
    return Patched(finished, swept)
