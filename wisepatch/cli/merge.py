"""``wisepatch merge``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.cli.merge_tables import show_merged
from wisepatch.config import EvalConfig
from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.files import in_utf8

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wisepatch.workflows.merging import Merged

MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        help="linear, task-arithmetic, ties, dare, breadcrumbs, fisher, regmean, regmean++, lines, model-stock, slerp, tsv-m, "
        "iso-c, iso-cts, greedy-soup, or one of a plugin.",
        autocompletion=completion.methods,
    ),
]
ParamOption = Annotated[
    list[str],
    typer.Option(
        "--param",
        metavar="NAME=VALUES",
        help="A parameter of the method: scale=0:1:0.1, density=0.2,0.5; several make the grid of all. Repeatable.",
    ),
]
LayersOption = Annotated[
    list[str],
    typer.Option(
        "--layers",
        help="Scale what is added by layer: 0.2:1 from the first block to the last, or NAME=SCALE by comma.",
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--from", help="The start of all ends, where they do not say it.", autocompletion=completion.checkpoints
    ),
]
EvalOption = Annotated[
    list[str] | None,
    typer.Option(
        "--eval",
        help="Tasks to measure besides those of the ends. (default: the supported tasks of their runs)",
        autocompletion=completion.tasks,
    ),
]
NoEvalOption = Annotated[bool, typer.Option("--no-eval", help="Store the merge, and measure nothing.")]
SpaceOption = Annotated[
    Literal["weights", "output"],
    typer.Option("--space", help="output: measure ensembles of logits and of probabilities too; never stored."),
]
MaterializeOption = Annotated[
    bool,
    typer.Option("--materialize", help="Store the merge as weights, not as a recipe that is merged when loaded."),
]


@o.with_settings
def command(
    checkpoints: o.CheckpointsArgument,
    evaluation: EvalConfig,
    files: o.FileOptions,
    machine: o.Machine,
    common: o.Common,
    method: MethodOption = "linear",
    param: ParamOption = [],  # noqa: B006 -- Typer copies defaults
    layers: LayersOption = [],  # noqa: B006
    start: StartOption = None,
    tasks: EvalOption = None,
    no_eval: NoEvalOption = False,
    select: o.SelectOption = None,
    select_on: o.SelectOnOption = "val",
    name: Annotated[
        str, typer.Option("--name", help="A name for the merged checkpoint and this run.", callback=in_utf8)
    ] = "",
    metric: o.MetricOption = [],  # noqa: B006
    space: SpaceOption = "weights",
    materialize: MaterializeOption = False,
    limit: o.LimitOption = None,
    form: o.FormatOption = "table",
) -> None:
    """Merge several fine-tuned checkpoints into one, and measure all candidates in one pass over the data.

    Example: `wisepatch merge A B C --method ties --param density=0.1:0.5:0.2 --param scale=0:1.5:0.1 --select best-mean`

    Example: `wisepatch merge A B --method task-arithmetic --param alpha=-0.5,0.3 --eval MNIST,CIFAR10`
    """
    common = common.printing(form)
    if method not in (known := completion.merge_methods()):
        raise UnknownNameError("merge method", method, known)
    output, metrics = common.output, o.metric_names(metric)
    store, data = common.open_store(), common.data_folder()
    found = o.find_checkpoints(store, checkpoints)
    from wisepatch.analysis.selection import parse_rule
    from wisepatch.tasks import find_tasks
    from wisepatch.workflows.greedy_soup import GREEDY_SOUP, greedy_soup
    from wisepatch.workflows.merging import merge

    rule = parse_rule(select) if select else None
    others = None if tasks is None else find_tasks(files.task_words(tasks), limit=limit)
    shared: dict[str, Any] = {
        "tasks": others, "metrics": metrics, "limit": limit, "run_name": name, "materialize": materialize,
        "settings": evaluation, "progress": output.progress(),
    }  # fmt: skip
    if method == GREEDY_SOUP:
        _refuse_for_soup({
            "--param": param, "--layers": layers, "--from": start, "--no-eval": no_eval, "--select": rule,
            "--select-on": select_on != "val", "--space": space != "weights",
        })  # fmt: skip
        done = greedy_soup(store, data, found, **shared)
    else:
        done = merge(
            store, data, found, method=method, params=param, layers=layers, start=start, measure=not no_eval, rule=rule,
            select_on=select_on, space=space, **shared,
        )  # fmt: skip
    show_merged(output, done)
    for line in _closing(done, common):
        output.say(line)


def _refuse_for_soup(given: Mapping[str, object]) -> None:
    """Raise :class:`UsageError` for the first option that a greedy soup does not take."""
    if option := next((name for name, value in given.items() if value), ""):
        reason = f"a greedy soup chooses by validation data itself, and takes no {option}"
        raise UsageError(reason, f"leave {option} out")


def _closing(done: Merged, common: o.Common) -> Iterator[str]:
    """Yield what was chosen and stored, and what comes next."""
    from wisepatch.plugins import find_merge_method

    if done.chosen:
        yield _sentence(done)
        if done.note:
            yield done.note
        if done.chosen.is_recipe and find_merge_method(done.chosen.method).costly:
            yield "it is a recipe: export merges it anew, for which --materialize stores its weights"
        yield f"next: {common.again('export', done.chosen.id, 'merged-model')}"
    elif done.rows:
        yield "without --select no candidate is chosen; add --select best-mean"


def _sentence(done: Merged) -> str:
    """Say what was chosen and stored."""
    assert done.chosen is not None
    saved = f"saved as {done.chosen.name} ({done.chosen.id})"
    if not (done.rule and done.choice):
        return saved
    on = "TEST" if done.selected_on == "test" else "validation"
    if done.choice.kind == "start":
        return f"chosen: the start, {done.chosen.name}, by {done.rule} on {on} data; no candidate is better"
    return f"chosen: {done.choice.label} by {done.rule} on {on} data, {saved}"
