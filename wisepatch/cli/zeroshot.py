"""``wisepatch zeroshot``."""

from __future__ import annotations

from wisepatch.cli import options as o
from wisepatch.cli.results import show_rows
from wisepatch.config import EvalConfig


@o.with_settings
def command(
    model: o.ModelOptions,
    names: o.ClassOptions,
    evaluation: EvalConfig,
    machine: o.Machine,
    common: o.Common,
    task: o.TaskOption = [],  # noqa: B006 -- Typer copies defaults
    split: o.SplitOption = "test",
    metric: o.MetricOption = [],  # noqa: B006
    limit: o.LimitOption = None,
    form: o.FormatOption = "table",
) -> None:
    """Build heads from text, save the zero-shot checkpoint, measure it.

    Example: `wisepatch zeroshot --model demo --task Shapes,Digits`
    """
    from wisepatch.tasks import find_tasks

    common = common.printing(form)
    output, published, metrics = common.output, model.config(), o.metric_names(metric)
    tasks = find_tasks(names.task_words(task), names.names(), names.templates(), limit=limit)
    store, data = common.open_store(), common.data_folder()
    from wisepatch.workflows.patching import zeroshot

    checkpoint, rows = zeroshot(
        published, tasks, store, data, split=split, metrics=metrics, settings=evaluation, progress=output.progress()
    )
    show_rows(output, rows, {checkpoint.id: checkpoint.name})
    output.say(f"saved {checkpoint.name} ({checkpoint.id}) in {common.store}")
    trainable = [each for each in tasks if "train" in each.dataset.available_splits and not each.dataset.label_map]
    if trainable:
        first, *others = dict.fromkeys(each.base_spec for each in (trainable[0], *tasks))
        supported = ["--supported", ",".join(others)] if others else []
        words = ("--task", first, *supported, *model.words(), *names.words())
        output.say(f"next: {common.again('finetune', *words)}")
