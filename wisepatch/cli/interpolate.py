"""``wisepatch interpolate``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from wisepatch.alphas import DEFAULT_ALPHAS
from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.cli.results import show_sweep
from wisepatch.config import EvalConfig


@o.with_settings
def command(
    evaluation: EvalConfig,
    files: o.FileOptions,
    machine: o.Machine,
    common: o.Common,
    alpha: o.AlphaOption = [DEFAULT_ALPHAS],  # noqa: B006 -- Typer copies defaults
    method: o.MethodOption = "linear",
    fisher_examples: o.FisherExamplesOption = 1000,
    fisher: Annotated[
        str, typer.Option("--fisher", help="F0,F1: files of the Fisher information of both ends, ours or WiSE-FT's.")
    ] = "",
    layers: Annotated[
        str,
        typer.Option(
            "--layers",
            help="Scale alpha by block: lines (LiNeS: 0.5 in the first to 1 in the last), 0.2:1, NAME=SCALE by comma, or learned.",
        ),
    ] = "",
    evaluations: Annotated[
        int | None, typer.Option("--evaluations", help="learned: mixes to measure on validation data. (100)", min=1)
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--eval",
            help="Tasks to measure besides the trained one. (default: the run's supported tasks)",
            autocompletion=completion.tasks,
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint",
            help="The fine-tuned checkpoint; mixed with its zero-shot parent.",
            autocompletion=completion.checkpoints,
        ),
    ] = "finetuned",
    select: o.SelectOption = None,
    select_on: o.SelectOnOption = "val",
    name: o.NameOption = "",
    metric: o.MetricOption = [],  # noqa: B006
    limit: o.LimitOption = None,
    materialize: Annotated[
        bool, typer.Option("--materialize", help="Store every mix as weights, not as a recipe.")
    ] = False,
    wide: o.WideOption = False,
    form: o.FormatOption = "table",
) -> None:
    """Mix zero-shot and fine-tuned weights at every alpha, and measure all mixes in one pass over the data.

    Example: `wisepatch interpolate --alpha 0:1:0.1 --eval MNIST,CIFAR10 --select max-drop=0.01@95`,
    `wisepatch interpolate --alpha auto --select best-mean`
    """
    from wisepatch.analysis.selection import parse_rule
    from wisepatch.plugins import find_merge_method
    from wisepatch.tasks import find_tasks

    common = common.printing(form)
    output, metrics = replace(common, as_json=common.as_json or wide).output, o.metric_names(metric)
    alphas, rule = o.alphas(alpha), parse_rule(select) if select else None
    fishers, method = o.split_list([fisher]), "fisher" if fisher and method == "linear" else method
    find_merge_method(method)
    others = None if tasks is None else find_tasks(files.task_words(tasks), limit=limit)
    store, data = common.open_store(), common.data_folder()
    end = store.find(checkpoint)
    from wisepatch.store.wide_records import to_wide
    from wisepatch.workflows.cautions import cautions
    from wisepatch.workflows.sweep import sweep

    done = sweep(
        store, data, checkpoint=end, tasks=others, alphas=alphas, method=method, fisher_examples=fisher_examples, fishers=fishers,
        rule=rule, select_on=select_on, run_name=name, metrics=metrics, materialize=materialize, limit=limit,
        settings=evaluation, layers=layers, evaluations=evaluations, progress=output.progress(),
    )  # fmt: skip
    if wide:
        output.records(to_wide(done.rows), "wide")
    else:
        show_sweep(output, done)
    if done.chosen and done.choice:
        on = "TEST" if done.selected_on == "test" else "validation"
        saved = f"saved as {done.chosen.name} ({done.chosen.id})"
        output.say(f"chosen: alpha {done.choice.alpha:g} by {rule} on {on} data, {saved}")
    for note in filter(None, [done.note, *(f"note: {caution}" for caution in cautions(done))]):
        output.say(note)
    output.say(f"next: {common.again('plot', '--run', done.run, '--output', 'plot.png')}")
