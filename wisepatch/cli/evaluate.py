"""``wisepatch eval``."""

from __future__ import annotations

from dataclasses import replace

from wisepatch.cli import options as o
from wisepatch.cli.output import show_rows
from wisepatch.config import EvalConfig


@o.with_settings
def command(
    checkpoints: o.CheckpointsArgument,
    names: o.ClassOptions,
    evaluation: EvalConfig,
    machine: o.Machine,
    common: o.Common,
    task: o.TaskOption = [],  # noqa: B006 -- Typer copies defaults
    split: o.SplitOption = "test",
    metric: o.MetricOption = [],  # noqa: B006
    wide: o.WideOption = False,
) -> None:
    """Measure any checkpoints on any tasks, all checkpoints in one pass over the data.

    Without --task: the task that one of them was trained on, and the supported ones of that run.

    Example: `wisepatch eval zeroshot finetuned patched --task MNIST,CIFAR10`
    """
    output, metrics = replace(common, as_json=common.as_json or wide).output, o.metric_names(metric)
    classnames, templates = names.names(), names.templates()
    store, data = common.open_store(), common.data_folder()
    named = o.find_checkpoints(store, checkpoints)
    from wisepatch.evaluation.measurement import evaluate
    from wisepatch.store.results import wide as widen
    from wisepatch.workflows.preflight import evaluation_splits, preflight
    from wisepatch.workflows.run_tasks import evaluation_tasks
    from wisepatch.workflows.sweep import new_run

    tasks = evaluation_tasks(named, names.words(task), classnames, templates)
    preflight(evaluation_splits(tasks, split), data, metrics)
    rows = evaluate(
        named, tasks, store, data, split=split, metrics=metrics, run=new_run("eval"), settings=evaluation,
        progress=output.progress(),
    )  # fmt: skip
    if wide:
        output.records(widen(rows))
    else:
        show_rows(output, rows, {checkpoint.id: checkpoint.name for checkpoint in named})
