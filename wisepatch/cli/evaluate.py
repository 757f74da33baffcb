"""``wisepatch eval``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from wisepatch.cli import options as o
from wisepatch.cli.output import labels, show_rows
from wisepatch.config import EvalConfig
from wisepatch.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wisepatch.store.checkpoints import Checkpoint, Store


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
    limit: o.LimitOption = None,
    wide: o.WideOption = False,
) -> None:
    """Measure any checkpoints on any tasks, all checkpoints in one pass over the data.

    Without --task: the task that one of them was trained on, and the supported ones of that run.

    Example: `wisepatch eval zeroshot finetuned patched --task MNIST,CIFAR10`

    Example: `wisepatch eval zeroshot patched --task photos,corrupt:photos,corrupt:photos:fog:3 --limit 500`
    """
    output, metrics = replace(common, as_json=common.as_json or wide).output, o.metric_names(metric)
    classnames, templates = names.names(), names.templates()
    store, data = common.open_store(), common.data_folder()
    named = o.find_checkpoints(store, checkpoints)
    if stray := of_other_runs(common, o.split_list(checkpoints), named):
        output.say(f"note: {stray}")
    from wisepatch.evaluation.measurement import evaluate
    from wisepatch.store.results import wide as widen
    from wisepatch.workflows.preflight import evaluation_splits, preflight
    from wisepatch.workflows.run_tasks import evaluation_tasks
    from wisepatch.workflows.sweep import new_run

    tasks = evaluation_tasks(named, names.task_words(task), classnames, templates, limit)
    preflight(evaluation_splits(tasks, split), data, metrics, store=store)
    rows = evaluate(
        named, tasks, store, data, split=split, metrics=metrics, run=new_run("eval"), settings=evaluation,
        progress=output.progress(),
    )  # fmt: skip
    if wide:
        output.records(widen(rows), "wide")
    else:
        show_rows(output, rows, labels(named))


def of_other_runs(common: o.Common, words: Sequence[str], named: Sequence[Checkpoint]) -> str:
    """Say which of the newest checkpoints of their kinds belong to different runs; an empty string where all are of one."""
    from wisepatch.store.checkpoints import REFERENCES

    newest = [checkpoint for checkpoint in named if checkpoint.id not in words and set(words) & set(REFERENCES)]
    store = common.open_store()
    families = {checkpoint.id: _family(store, checkpoint) for checkpoint in newest}
    for number, one in enumerate(newest):
        for other in newest[number + 1 :]:
            if one.id in families[other.id] or other.id in families[one.id] or one.parents == other.parents != ():
                continue
            last = max(newest, key=lambda each: (each.recipe is not None, each.created))
            whole = common.again("eval", *last.parents, last.id)
            return f"{one.name} ({one.id}) and {other.name} ({other.id}) are of different runs; of one run: {whole}"
    return ""


def _family(store: Store, checkpoint: Checkpoint) -> set[str]:
    """Return the ids of a checkpoint and of all that it comes from, as far as these are there."""
    family, waiting = set(), [checkpoint.id]
    while waiting:
        identity = waiting.pop()
        family.add(identity)
        with suppress(StoreError):
            waiting += [parent for parent in store.get(identity).parents if parent not in family]
    return family
