"""``wisepatch zeroshot``."""

from __future__ import annotations

from wisepatch.cli import options as o
from wisepatch.cli.output import Output, show_rows
from wisepatch.config import check_precision


def command(
    task: o.TaskOption = [],  # noqa: B006 -- Typer copies defaults
    model: o.ModelOption = None,
    pretrained: o.PretrainedOption = None,
    classnames: o.ClassnamesOption = None,
    template: o.TemplateOption = [],  # noqa: B006
    metric: o.MetricOption = [],  # noqa: B006
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
    """Build heads from text, save the zero-shot checkpoint, measure it.

    Example: `wisepatch zeroshot --model demo --task Shapes,Digits`
    """
    from wisepatch.analysis.metrics import find_metric
    from wisepatch.datasets.prompts import templates
    from wisepatch.plugins import find_tasks
    from wisepatch.store.checkpoints import Store

    output = Output(as_json=as_json, quiet=quiet)
    metrics = [find_metric(name).name for name in o.split_list(metric)]
    tasks = find_tasks(o.split_list(task), o.read_classnames(classnames), templates(template) or None)
    folder, precision = o.data_folder(data), check_precision(mixed_precision)
    from wisepatch.workflows.patching import zeroshot

    checkpoint, rows = zeroshot(
        o.model_config(model, pretrained), tasks, Store(store), folder, metrics=metrics, batch_size=batch_size, workers=workers,
        mixed_precision=precision, cache_images=cache_images, fast_decode=fast_decode, compiled=compiled,
        progress=output.progress(),
    )  # fmt: skip
    show_rows(output, rows, {checkpoint.id: checkpoint.name})
    output.say(f"saved {checkpoint.name} ({checkpoint.id}) in {store}; next: wisepatch finetune --task TASK")
