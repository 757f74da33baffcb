"""``wisepatch patch --plan``: what a patch would read, compute and keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wisepatch.alphas import AUTO
from wisepatch.cli import options as o
from wisepatch.config import EvalConfig, ModelConfig
from wisepatch.counting import count
from wisepatch.errors import UsageError
from wisepatch.task_roles import RunTasks
from wisepatch.train_config import TrainConfig


def show_plan(
    common: o.Common,
    config: TrainConfig,
    model: ModelConfig,
    tasks: RunTasks,
    settings: EvalConfig,
    picture: Path | None,
    also: list[str],
    several: o.SeveralOptions,
    **options: Any,
) -> None:
    """Print what a patch will read, compute and keep; ``options`` are those of the sweep."""
    from wisepatch.reports.plots import picture_problems
    from wisepatch.workflows.planning import plan_patch
    from wisepatch.workflows.several_tasks import strategy_for
    from wisepatch.workflows.sweep_plan import plan_sweep

    if options["alphas"] == AUTO:
        reason = "--alpha auto finds the alphas as it goes, and --plan counts them"
        raise UsageError(reason, "name them: --alpha 0:1:0.1")
    output, store, data = common.output, common.open_store(), common.data_folder()
    asked = strategy_for(tasks.patching, **several.asked(), balance=config.balance)
    sweep = replace(plan_sweep(tasks.patching, tasks.supported, **options), also=tasks.further(also, config.limit))
    problems = picture_problems(picture) if picture else []
    plan = plan_patch(
        config, model, store, data, sweep, tasks=tasks, settings=settings, asked=asked, problems=problems,
        progress=output.progress(),
    )  # fmt: skip
    output.records([plan.to_json()], "plan")
    output.table(
        ("task", "split", "for", "images", "times", "ms to read one"),
        [(r.task, r.split, r.purpose, r.images, r.passes, f"{1000 * r.seconds:.1f}") for r in plan.readings],
    )
    total = (plan.train_seconds + plan.eval_seconds) / 60
    output.result(
        f"{count(plan.steps, 'step')} of {count(config.batch_size, 'image')} ({plan.epochs:.1f} epochs): "
        f"about {plan.train_seconds / 60:.1f} minutes; {count(plan.mixes, 'alpha')}: about {plan.eval_seconds / 60:.1f} minutes; "
        f"together about {total:.1f}, measured on this machine"
    )
    output.result(
        f"training needs about {plan.memory / 1e6:,.0f} MB of memory; the store grows by {plan.kept / 1e6:,.0f} MB (zero-shot and "
        f"fine-tuned weights, answers), meanwhile by {plan.disk / 1e6:,.0f} MB; {plan.free / 1e9:,.1f} GB are free"
    )
    if plan.disk > plan.free:
        output.result("note: the disk of the store has no room for that; name another with --store")
    output.result("nothing was trained; leave --plan out to do it")
