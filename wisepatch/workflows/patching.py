"""The whole way, for programs: evaluate zero-shot, fine-tune, sweep alpha, choose it on validation data, patch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wisepatch.analysis.metrics import missing_needs
from wisepatch.analysis.selection import Rule
from wisepatch.config import EvalConfig, ModelConfig, TrainConfig, listed
from wisepatch.datasets.duplicates import same_files, told
from wisepatch.errors import UsageError, WisepatchError, out_of_memory
from wisepatch.evaluation.measurement import evaluate
from wisepatch.evaluation.validation import watcher
from wisepatch.files import expanded
from wisepatch.launcher import is_main
from wisepatch.models.clip import load_clip
from wisepatch.plugins import find_metric
from wisepatch.process_group import on_main
from wisepatch.progress import Progress, Silent
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.tasks import RunTasks, Task, as_tasks
from wisepatch.training.finetuning import Finetuned, finetune
from wisepatch.training.fisher_information import EXAMPLES
from wisepatch.training.objectives.start import objective_problems
from wisepatch.training.start import save_start
from wisepatch.training.tracking import tracker_problems
from wisepatch.training.unlabelled import unlabelled_problems
from wisepatch.workflows.preflight import evaluation_splits, preflight
from wisepatch.workflows.sweep import Sweep, new_run, run_sweep
from wisepatch.workflows.sweep_plan import VAL, plan_sweep


@dataclass(frozen=True)
class Patched:
    """The fine-tuning run of :func:`patch`, and the sweep that chose its alpha."""

    run: Finetuned
    sweep: Sweep


def zeroshot(
    model: ModelConfig,
    tasks: Sequence[Task | str] | Task | str,
    store: Store,
    data: Path | str,
    *,
    metrics: Sequence[str] | str = (),
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> tuple[Checkpoint, list[dict[str, Any]]]:
    """Save the zero-shot checkpoint and measure it on ``tasks``; several processes share that."""
    progress = progress or Silent()
    data, metrics, tasks = expanded(data), listed(metrics), as_tasks(tasks)
    preflight(evaluation_splits(tasks, "test"), data, metrics, store=store)
    progress.start(f"loading {model}", 1)
    checkpoint = on_main(lambda: save_start(store, load_clip(model)))
    progress.advance()
    progress.finish()
    return checkpoint, evaluate(
        [checkpoint], tasks, store, data, run=new_run("zeroshot"), metrics=metrics, settings=settings, progress=progress
    )


def keep_best_problems(tasks: RunTasks, config: TrainConfig, data: Path) -> list[WisepatchError]:
    """Return why the best weights cannot be told by validation data; none where they need not be."""
    if not config.keep_best:
        return []
    dataset = tasks.patching.dataset
    if VAL not in dataset.available_splits:
        reason = f"{tasks.patching.name} has no validation split to tell the best weights by"
        return [UsageError(reason, "leave --keep-best out")]
    try:
        return list(missing_needs(find_metric(config.keep_best), dataset.split(VAL, data).annotations))
    except WisepatchError as error:
        return [error]


def training_problems(tasks: RunTasks, config: TrainConfig, data: Path) -> list[WisepatchError]:
    """Return what keeps a training from doing what is asked for, beside its images."""
    return [
        *objective_problems(config), *unlabelled_problems(config.distill_on, data), *keep_best_problems(tasks, config, data),
        *tracker_problems(config),
    ]  # fmt: skip


def training_splits(tasks: RunTasks, config: TrainConfig) -> list[tuple[Task, list[str]]]:
    """Return what the training reads: ``train``, and with ``eval_every`` the validation splits that there are."""
    watched = [tasks.patching, *tasks.supported] if config.eval_every else []
    validation = [(task, [VAL]) for task in watched if VAL in task.dataset.available_splits]
    return [(tasks.patching, ["train"]), *validation]


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
    return finetune_tasks(config, model, store, data, progress, tasks, run_name, fresh)


def finetune_tasks(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path,
    progress: Progress | None,
    tasks: RunTasks,
    run_name: str,
    fresh: bool,
) -> Finetuned:
    """Fine-tune as :func:`finetune_watched` does, where all was checked before."""
    watched = [tasks.patching, *tasks.supported]
    watch = watcher(watched, store, data, config.evaluation, config.keep_best) if config.eval_every else None
    return finetune(
        config, model, store, data, progress, watch, task=tasks.patching, others=tasks.supported, run_name=run_name, fresh=fresh,
    )  # fmt: skip


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
    problems: Sequence[WisepatchError] = (),
    progress: Progress | None = None,
) -> Patched:
    """Fine-tune on ``config.task``, sweep alpha, choose it (``best-mean`` unless told otherwise) and store the patched model.

    PAINT section 2, start to end. ``settings`` are those of the sweep, by default the precision and loading processes of the
    training. A training that was interrupted goes on and one that is finished is taken as it is, unless it is to be ``fresh``.
    Raises all that is missing for training and sweep before the first step, with the ``problems`` that the caller met. Several
    processes all call this.
    """
    data, tasks = expanded(data), tasks or RunTasks.of(config)
    plan = plan_sweep(
        tasks.patching, tasks.supported, alphas=alphas, method=method, rule=rule or Rule(), select_on=select_on, metrics=metrics,
    )  # fmt: skip
    problems = [*problems, *training_problems(tasks, config, data)]
    plan.check(data, training_splits(tasks, config), problems, store=store)
    if progress and is_main():
        check = shlex.join(["wisepatch", "datasets", "check", tasks.patching.base_spec])
        for line in told(tasks.patching.dataset, same_files(tasks.patching.dataset, data), "bytes"):
            progress.note(f"note: {line}; `{check}` names them")
    finished = finetune_tasks(config, model, store, data, progress, tasks, run_name, fresh)
    settings = settings or config.evaluation
    try:
        swept = run_sweep(
            plan, finished.finetuned, store, data, run=run or new_run("patch"), run_name=run_name, fisher_examples=fisher_examples,
            settings=settings, progress=progress,
        )  # fmt: skip
    except BaseException as error:
        known = out_of_memory(error, "--eval-batch-size") if isinstance(error, Exception) else None
        go_on = plan.command(
            finished.finetuned,
            store,
            data,
            fisher_examples=fisher_examples,
            run_name=run_name,
            precision=settings.mixed_precision,
        )
        (known or error).add_note(f"the fine-tuned model is stored; go on with: {go_on}")
        if known:
            raise known from error
        raise
    return Patched(finished, swept)
