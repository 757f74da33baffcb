"""``wisepatch merge``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.cli.output import Output
from wisepatch.config import EvalConfig
from wisepatch.errors import UsageError
from wisepatch.files import in_utf8
from wisepatch.reports.numbers import percent, with_interval

if TYPE_CHECKING:
    from wisepatch.workflows.merging import Candidate, Merged

SHOWN = 20  # candidates, those with the best mean
MARKS = {"start": "start", "end": "end", "ensemble": "no checkpoint"}


@o.with_settings
def command(
    checkpoints: o.CheckpointsArgument,
    evaluation: EvalConfig,
    machine: o.Machine,
    common: o.Common,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="linear, task-arithmetic, ties, dare, breadcrumbs, fisher, regmean, regmean++, lines, model-stock, slerp, tsv-m, "
            "iso-c, iso-cts, greedy-soup, or one of a plugin.",
            autocompletion=completion.methods,
        ),
    ] = "linear",
    param: Annotated[
        list[str],
        typer.Option(
            "--param",
            metavar="NAME=VALUES",
            help="A parameter of the method: scale=0:1:0.1, density=0.2,0.5; several make the grid of all. Repeatable.",
        ),
    ] = [],  # noqa: B006 -- Typer copies defaults
    layers: Annotated[
        list[str],
        typer.Option(
            "--layers",
            help="Scale what is added by layer: 0.2:1 from the first block to the last, or NAME=SCALE by comma.",
        ),
    ] = [],  # noqa: B006
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="The start of all ends, where they do not say it.", autocompletion=completion.checkpoints
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--eval",
            help="Tasks to measure besides those of the ends. (default: the supported tasks of their runs)",
            autocompletion=completion.tasks,
        ),
    ] = None,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="Store the merge, and measure nothing.")] = False,
    select: o.SelectOption = None,
    select_on: o.SelectOnOption = "val",
    name: Annotated[
        str, typer.Option("--name", help="A name for the merged checkpoint and this run.", callback=in_utf8)
    ] = "",
    metric: o.MetricOption = [],  # noqa: B006
    space: Annotated[
        Literal["weights", "output"],
        typer.Option("--space", help="output: measure ensembles of logits and of probabilities too; never stored."),
    ] = "weights",
    limit: o.LimitOption = None,
    form: o.FormatOption = "table",
) -> None:
    """Merge several fine-tuned checkpoints into one, and measure all candidates in one pass over the data.

    Example: `wisepatch merge A B C --method ties --param density=0.1:0.5:0.2 --param scale=0:1.5:0.1 --select best-mean`

    Example: `wisepatch merge A B --method task-arithmetic --param alpha=-0.5,0.3 --eval MNIST,CIFAR10`
    """
    common = common.printing(form)
    output, metrics = common.output, o.metric_names(metric)
    store, data = common.open_store(), common.data_folder()
    found = o.find_checkpoints(store, checkpoints)
    from wisepatch.analysis.selection import parse_rule
    from wisepatch.tasks import find_tasks
    from wisepatch.workflows.greedy_soup import GREEDY_SOUP, greedy_soup
    from wisepatch.workflows.merging import merge

    rule = parse_rule(select) if select else None
    others = None if tasks is None else find_tasks(o.split_list(tasks), limit=limit)
    shared: dict[str, Any] = {
        "tasks": others, "metrics": metrics, "limit": limit, "run_name": name, "settings": evaluation,
        "progress": output.progress(),
    }  # fmt: skip
    if method == GREEDY_SOUP:
        of_others = {
            "--param": param, "--layers": layers, "--from": start, "--no-eval": no_eval, "--select": rule,
            "--select-on": select_on != "val", "--space": space != "weights",
        }  # fmt: skip
        if given := next((option for option, value in of_others.items() if value), ""):
            reason = f"a greedy soup chooses by validation data itself, and takes no {given}"
            raise UsageError(reason, f"leave {given} out")
        done = greedy_soup(store, data, found, **shared)
    else:
        done = merge(
            store, data, found, method=method, params=param, layers=layers, start=start, measure=not no_eval, rule=rule,
            select_on=select_on, space=space, **shared,
        )  # fmt: skip
    show_merged(output, done)
    if done.chosen:
        saved = f"saved as {done.chosen.name} ({done.chosen.id})"
        on = "TEST" if done.selected_on == "test" else "validation"
        if done.choice and done.choice.kind == "start":
            output.say(f"chosen: the start, {done.chosen.name}, by {done.rule} on {on} data; no candidate is better")
        elif done.rule and done.choice:
            output.say(f"chosen: {done.choice.label} by {done.rule} on {on} data, {saved}")
        else:
            output.say(saved)
        for note in filter(None, [done.note]):
            output.say(note)
        output.say(f"next: {common.again('export', done.chosen.id, 'merged-model')}")
    elif done.rows:
        output.say("without --select no candidate is chosen; add --select best-mean")


def show_merged(output: Output, done: Merged) -> None:
    """Print all rows for programs, and for people a table a split: start, ends, candidates and ensembles, a column a task."""
    from wisepatch.weights.parameters import without_files

    output.records(done.rows)
    if done.chosen:
        output.records([{
            "chosen": done.chosen.name, "checkpoint": done.chosen.id, "method": done.method,
            "params": without_files(done.choice.params) if done.choice else {},
            "candidate": done.choice.number if done.choice else 1, "rule": str(done.rule) if done.rule else None,
            "selected_on": done.selected_on, "note": done.note, **done.facts,
        }], "choice")  # fmt: skip
    for split in done.points:
        _show_split(output, done, split)


def _show_split(output: Output, done: Merged, split: str) -> None:
    rows = [row for row in done.rows if row["split"] == split or len(done.points) == 1]
    tasks = [task for task in (*done.patching, *done.supported) if any(row["task"] == task for row in rows)]
    first = {row["task"]: row["metric"] for row in reversed(rows)}
    cells = {(row["checkpoint"], row["task"]): row for row in rows if row["metric"] == first[row["task"]]}
    shown = [each for each in done.candidates if any((each.checkpoint.id, task) in cells for task in tasks)]
    merges = sorted((each for each in shown if each.kind == "merged"), key=lambda each: -_means(done, each, cells)[-1])
    left_out = {id(each) for each in merges[SHOWN:] if each is not done.choice}
    shown = [each for each in shown if id(each) not in left_out]
    body, strong = [], None
    for number, each in enumerate(shown):
        of_tasks = [cells.get((each.checkpoint.id, task), {}) for task in tasks]
        chosen = done.choice is each
        strong = number if chosen else strong
        mark = ", ".join(filter(None, [MARKS.get(each.kind, ""), "chosen" if chosen else ""]))
        means = [percent(mean) for mean in _means(done, each, cells)]
        body.append([each.label, *map(with_interval, of_tasks), *means, mark])
    words = " / ".join(dict.fromkeys(first.values()))
    note = f"; {len(left_out)} candidates with a smaller mean are left out" if left_out else ""
    seen = (
        f" ({'chosen on this split' if split == done.selected_on else f'chosen on {done.selected_on}'})"
        if done.choice
        else ""
    )
    output.result(f"{done.method}: {words} in per cent, {split} split{seen}{note}")
    means = ["patched", "supported", "mean"] if len(_means(done, shown[0], cells)) > 1 else ["mean"]
    output.table(("model", *tasks, *means, ""), body, strong=strong)
    if any(each.kind == "ensemble" for each in shown):
        output.result(
            "output-logits and output-probabilities run every end for each image: no checkpoint comes of them"
        )


def _means(done: Merged, each: Candidate, cells: dict[tuple[str, str], dict[str, Any]]) -> list[float]:
    """Return the mean over what the ends were trained on, that over supported tasks, and the mean of both, as rules see them."""
    found = []
    for tasks in (done.patching, done.supported):
        values = [
            float(cells[each.checkpoint.id, task]["value"]) for task in tasks if (each.checkpoint.id, task) in cells
        ]
        found += [sum(values) / len(values)] if values else []
    return [*found, sum(found) / 2] if len(found) == 2 else found
