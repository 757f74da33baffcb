"""``wisepatch interpolate``."""

from __future__ import annotations

from typing import Annotated

import typer

from wisepatch.analysis.selection import parse_rule
from wisepatch.cli import options as o
from wisepatch.cli.output import Output, show_sweep
from wisepatch.config import DEFAULT_ALPHAS, LINEAR, check_mix, check_precision, parse_alphas

EvalOption = Annotated[
    list[str] | None,
    typer.Option("--eval", help="Tasks to measure besides the trained one.  [default: the run's supported tasks]"),
]
CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", help="The fine-tuned checkpoint; mixed with its zero-shot parent.")
]
MaterializeOption = Annotated[bool, typer.Option("--materialize", help="Store every mix as weights, not as a recipe.")]
WideOption = Annotated[bool, typer.Option("--wide", help="Print the papers' wide records, a JSON object an alpha.")]


def command(
    alpha: o.AlphaOption = [DEFAULT_ALPHAS],  # noqa: B006 -- Typer copies defaults
    method: o.MethodOption = LINEAR,
    fisher_examples: o.FisherExamplesOption = 1000,
    evaluate: EvalOption = None,
    checkpoint: CheckpointOption = "finetuned",
    select: o.SelectOption = None,
    select_on: o.SelectOnOption = "val",
    metric: o.MetricOption = [],  # noqa: B006
    materialize: MaterializeOption = False,
    wide: WideOption = False,
    store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    batch_size: o.EvalBatchOption = None,
    workers: o.WorkersOption = None,
    mixed_precision: o.PrecisionOption = "no",
    cache_images: o.CacheOption = False,
    fast_decode: o.FastDecodeOption = False,
    compiled: o.CompileOption = False,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Mix zero-shot and fine-tuned weights at every alpha, and measure all mixes in one pass over the data.

    Example: `wisepatch interpolate --alpha 0:1:0.1 --eval MNIST,CIFAR10 --select max-drop=0.01`
    """
    from wisepatch.analysis.metrics import find_metric
    from wisepatch.plugins import find_tasks
    from wisepatch.store.checkpoints import Store

    output = Output(as_json=as_json or wide, quiet=quiet)
    check_mix(method)
    alphas, rule = parse_alphas(alpha), parse_rule(select) if select else None
    metrics = [find_metric(name).name for name in o.split_list(metric)]
    tasks = None if evaluate is None else [task.spec for task in find_tasks(o.split_list(evaluate))]
    folder, precision, place = o.data_folder(data), check_precision(mixed_precision), Store(store)
    place.find(checkpoint)
    from wisepatch.store.results import wide as widen
    from wisepatch.workflows.patching import sweep

    done = sweep(
        place, folder, alphas=alphas, method=method, fisher_examples=fisher_examples, checkpoint=checkpoint, tasks=tasks,
        rule=rule, select_on=select_on, metrics=metrics, batch_size=batch_size, workers=workers,
        mixed_precision=precision, cache_images=cache_images, fast_decode=fast_decode, compiled=compiled,
        materialize=materialize, progress=output.progress(),
    )  # fmt: skip
    if wide:
        output.records(widen(done.rows))
    else:
        show_sweep(output, done)
    if done.chosen and done.choice:
        kept = f"kept as {done.chosen.name} ({done.chosen.id})"
        on = "TEST" if done.selected_on == "test" else "validation"
        output.say(f"chosen: alpha {done.choice.alpha:g} by {rule} on {on} data, {kept}")
    output.say("next: wisepatch plot --output plot.png")
