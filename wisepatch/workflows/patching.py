"""The whole way, for programs: evaluate zero-shot, fine-tune, sweep alpha, choose it on validation data, patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wisepatch.analysis.metrics import missing_needs
from wisepatch.analysis.selection import Rule
from wisepatch.config import EvalConfig, ModelConfig, listed
from wisepatch.datasets.duplicates import same_files, told
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.evaluation.measurement import evaluate
from wisepatch.files import expanded
from wisepatch.models.clip import load_clip
from wisepatch.plugins import find_metric
from wisepatch.process_group import on_main
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import is_main
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.task_roles import RunTasks
from wisepatch.tasks import Task, as_tasks
from wisepatch.terminal import pasted
from wisepatch.train_config import TrainConfig
from wisepatch.training.finetuning import Finetuned
from wisepatch.training.fisher_information import EXAMPLES
from wisepatch.training.objectives.start import objective_problems
from wisepatch.training.start import save_start
from wisepatch.training.tracking import tracker_problems
from wisepatch.training.unlabelled import unlabelled_problems
from wisepatch.workflows.model_table import Table, model_table
from wisepatch.workflows.patch_job import PatchJob, finetune_on
from wisepatch.workflows.preflight import evaluation_splits, preflight
from wisepatch.workflows.run import Run, new_run
from wisepatch.workflows.several_tasks import Strategy, strategy_for
from wisepatch.workflows.sweep import Sweep
from wisepatch.workflows.sweep_plan import TEST, VAL, plan_sweep


@dataclass(frozen=True)
class Patched:
    """The fine-tuning run of :func:`patch`, and the sweep that chose its alpha; of several, the last of each.

    ``runs`` and ``sweeps`` are all of them, where several tasks were patched one after the other or side by side. ``table`` puts
    what there was before, the ends, and what was chosen side by side, of several tasks and where others are measured ``also``.
    """

    run: Finetuned
    sweep: Sweep
    runs: tuple[Finetuned, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    table: Table | None = None


def zeroshot(
    model: ModelConfig,
    tasks: Sequence[Task | str] | Task | str,
    store: Store,
    data: Path | str,
    *,
    split: str = TEST,
    metrics: Sequence[str] | str = (),
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> tuple[Checkpoint, list[dict[str, Any]]]:
    """Save the zero-shot checkpoint and measure it on ``tasks``, each on the split that it names or ``split``."""
    progress = progress or Silent()
    data, metrics, tasks = expanded(data), listed(metrics), as_tasks(tasks)
    preflight(evaluation_splits(tasks, split), data, metrics, store=store)
    progress.start(f"loading {model}", 1)
    checkpoint = on_main(lambda: save_start(store, load_clip(model)))
    progress.advance()
    progress.finish()
    return checkpoint, evaluate(
        [checkpoint],
        tasks,
        store,
        data,
        split=split,
        run=new_run("zeroshot"),
        metrics=metrics,
        settings=settings,
        progress=progress,
    )


def keep_best_problems(tasks: RunTasks, config: TrainConfig, data: Path) -> list[WisepatchError]:
    """Return why the best weights cannot be told by validation data; none where they need not be."""
    if not config.keep_best:
        return []
    problems: list[WisepatchError] = []
    for task in tasks.patching.each:
        if VAL not in task.dataset.available_splits:
            reason = f"{task.name} has no validation split to tell the best weights by"
            problems.append(UsageError(reason, "leave --keep-best out"))
            continue
        try:
            problems += missing_needs(find_metric(config.keep_best), task.dataset.split(VAL, data).annotations)
        except WisepatchError as error:
            problems.append(error)
    return problems


def training_problems(tasks: RunTasks, config: TrainConfig, data: Path) -> list[WisepatchError]:
    """Return what keeps a training from doing what is asked for, beside its images."""
    return [
        *objective_problems(config), *unlabelled_problems(config.distill_on, data), *keep_best_problems(tasks, config, data),
        *tracker_problems(config),
    ]  # fmt: skip


def training_splits(tasks: RunTasks, config: TrainConfig) -> list[tuple[Task, list[str]]]:
    """Return what the training reads: ``train``, and with ``eval_every`` the validation splits that there are."""
    watched = [*tasks.patching.each, *tasks.supported] if config.eval_every else []
    validation = [(task, [VAL]) for task in watched if VAL in task.dataset.available_splits]
    return [*((task, ["train"]) for task in tasks.patching.each), *validation]


def finetune_watched(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path | str,
    progress: Progress | None = None,
    *,
    tasks: RunTasks | None = None,
    run_name: str = "",
    fresh: bool = False,
) -> Finetuned:
    """Fine-tune; with ``config.eval_every`` set, measure task and supported tasks on validation data as it goes.

    A training that was interrupted goes on, unless it is to be ``fresh``. Raises all that is missing before the first step.
    """
    data, tasks = expanded(data), tasks or RunTasks.of(config)
    problems = training_problems(tasks, config, data)
    preflight((), data, problems=problems, read=training_splits(tasks, config), store=store)
    return finetune_on(config, model, store, data, progress, tasks, run_name, fresh=fresh)


def patch(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path | str,
    *,
    tasks: RunTasks | None = None,
    alphas: Sequence[float] | float | str | None = None,
    method: str = "linear",
    fisher_examples: int = EXAMPLES,
    rule: Rule | str | None = None,
    select_on: str = VAL,
    metrics: Sequence[str] | str = (),
    run: str | None = None,
    run_name: str = "",
    settings: EvalConfig | None = None,
    fresh: bool = False,
    strategy: str | None = None,
    coefficients: str | None = None,
    evaluations: int | None = None,
    also: Sequence[Task | str] | Task | str = (),
    problems: Sequence[WisepatchError] = (),
    progress: Progress | None = None,
) -> Patched:
    """Fine-tune on ``config.task``, sweep alpha, choose it (``best-mean`` unless told otherwise) and store the patched model.

    PAINT section 2, start to end. Several tasks (``config.tasks``) are patched by a ``strategy`` (section 5): ``joint``, one
    training on all; ``sequential``, one after the other; ``parallel``, an end each, with ``coefficients`` that are ``equal``, on a
    ``grid``, or found by a ``search`` of so many ``evaluations``. Tasks named ``also`` are measured at the end, and have no part in
    the choice.

    ``settings`` are those of the sweep, by default the precision and loading processes of the
    training. A training that was interrupted goes on and one that is finished is taken as it is, unless it is to be ``fresh``.
    Raises all that is missing for training and sweep before the first step, with the ``problems`` that the caller met. Several
    processes all call this.
    """
    data, tasks = expanded(data), tasks or RunTasks.of(config)
    asked = strategy_for(tasks.patching, strategy, coefficients, evaluations, config.balance)
    plan = plan_sweep(
        tasks.patching, tasks.supported, alphas=alphas, method=method, rule=rule or Rule(), select_on=select_on, metrics=metrics,
    )  # fmt: skip
    plan = replace(plan, strategy=asked.name if asked else "", also=tasks.further(also, config.limit))
    trained = asked.of_a_training(config) if asked else config
    problems = [*problems, *training_problems(tasks, trained, data), *(asked.problems(plan, config) if asked else ())]
    plan.check(data, training_splits(tasks, config), problems, store=store)
    if progress and is_main():
        for task in tasks.patching.each:
            check = pasted(["wisepatch", "datasets", "check", task.base_spec])
            for line in told(task.dataset, same_files(task.dataset, data), "bytes"):
                progress.note(f"note: {line}; `{check}` names them")
    own = Run(store, data, run or new_run("patch"), run_name, settings or config.evaluation, progress)
    job = PatchJob(config, model, tasks, plan, own, fresh, fisher_examples)
    runs, sweeps = (asked or Strategy()).carry_out(job)
    table = model_table(job, runs, sweeps) if tasks.patching.parts or plan.also else None
    return Patched(runs[-1], sweeps[-1], runs, sweeps, table)
