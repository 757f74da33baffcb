"""``wisepatch eval``."""

from __future__ import annotations

from typing import Annotated

import typer

from wisepatch.cli import options as o
from wisepatch.cli.output import Output, show_rows
from wisepatch.config import check_precision

CheckpointsArgument = Annotated[
    list[str],
    typer.Argument(metavar="CHECKPOINT...", help="zeroshot, finetuned, patched, latest, a name, an id, or a folder."),
]
SplitOption = Annotated[str, typer.Option("--split", help="test, val or train, for tasks that name none.")]
WideOption = Annotated[bool, typer.Option("--wide", help="Print the papers' wide records, a JSON object a checkpoint.")]


def command(
    checkpoints: CheckpointsArgument,
    task: o.TaskOption = [],  # noqa: B006 -- Typer copies defaults
    split: SplitOption = "test",
    classnames: o.ClassnamesOption = None,
    template: o.TemplateOption = [],  # noqa: B006
    metric: o.MetricOption = [],  # noqa: B006
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
    """Measure any checkpoints on any tasks, all checkpoints in one pass over the data.

    Without --task: the task that one of them was trained on, and the supported ones of that run.

    Example: `wisepatch eval zeroshot finetuned patched --task MNIST,CIFAR10`
    """
    from wisepatch.analysis.metrics import find_metric
    from wisepatch.datasets.prompts import templates
    from wisepatch.store.checkpoints import Store

    output = Output(as_json=as_json or wide, quiet=quiet)
    metrics = [find_metric(name).name for name in o.split_list(metric)]
    names, prompts = o.read_classnames(classnames), templates(template) or None
    folder, precision, place = o.data_folder(data), check_precision(mixed_precision), Store(store)
    found = o.find_checkpoints(place, checkpoints)
    from wisepatch.evaluation.measurement import evaluate
    from wisepatch.store.results import wide as widen
    from wisepatch.workflows.patching import new_run, tasks_of

    tasks = tasks_of(found, o.split_list(task), names, prompts)
    rows = evaluate(
        found, tasks, place, folder, split=split, metrics=metrics, batch_size=batch_size, workers=workers,
        mixed_precision=precision, cache_images=cache_images, fast_decode=fast_decode, compiled=compiled,
        run=new_run("eval"), progress=output.progress(),
    )  # fmt: skip
    if wide:
        output.records(widen(rows))
    else:
        show_rows(output, rows, {checkpoint.id: checkpoint.name for checkpoint in found})
