"""``wisepatch store``: list, show, compare, verify, remove, collect garbage."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.cli.results import labels
from wisepatch.counting import count

RunsOption = Annotated[
    bool, typer.Option("--runs", help="Remove the states of trainings that stopped, too; they cannot go on then.")
]
CachesOption = Annotated[
    bool, typer.Option("--caches", help="Remove cached pixels and features too; they are made again when needed.")
]

app = typer.Typer(
    help="Checkpoints: list, show, diff, verify, rm, gc.\n\nExample: `wisepatch store list`", no_args_is_help=True
)


@app.command("list")
@o.with_settings
def listing(
    common: o.Common,
    every: Annotated[bool, typer.Option("--all", help="A line for each mix, not one for all of a run.")] = False,
) -> None:
    """List the checkpoints by run, oldest first; the mixes of a run share a line.

    Example: `wisepatch store list`
    """
    from wisepatch.reports.checkpoint_tables import COLUMNS, columns_that_fit, grouped, lines, run_names
    from wisepatch.store.checkpoints import describe
    from wisepatch.store.runs import unfinished_runs

    output = common.output
    place = common.open_store()
    checkpoints, unreadable = place.scan()
    output.records(map(describe, checkpoints), "checkpoint")
    names = {} if output.as_json else run_names(place, checkpoints)
    groups = [lines(place, group, names, every=every) for group in grouped(checkpoints)]
    rows = [row for group in groups for row in group]
    kept = range(columns_that_fit(rows, output.width) if output.width else len(COLUMNS))
    ends = set(accumulate(len(group) for group in groups))
    output.table([COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows], ends={end - 1 for end in ends})
    for error in unreadable:
        output.say(f"unreadable: {error.message}")
    for run in unfinished_runs(place.root):
        output.say(f"stopped: the training of {run.task} after step {run.step}; its command goes on ({run.folder})")
    if not checkpoints:
        output.result(f"no checkpoints in {common.store}")


@app.command("show")
@o.with_settings
def show(
    common: o.Common,
    checkpoint: o.CheckpointsArgument,
) -> None:
    """Tell of checkpoints: what each was made from and how, with which settings and seed, and what was measured.

    Example: `wisepatch store show patched`
    """
    from wisepatch.reports.checkpoint_tables import facts
    from wisepatch.store.checkpoints import describe

    output, place = common.output, common.open_store()
    named = o.find_checkpoints(place, checkpoint, place.look_up)
    output.records(map(describe, named), "checkpoint")
    for each in named:
        output.table((each.name, each.id), list(facts(place, each).items()))


@app.command("diff")
@o.with_settings
def diff(
    common: o.Common,
    first: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help=o.CHECKPOINT_HELP, autocompletion=completion.checkpoints)
    ],
    second: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help=o.CHECKPOINT_HELP, autocompletion=completion.checkpoints)
    ],
) -> None:
    """Tell in what two checkpoints differ: settings, seed, model, lineage.

    Example: `wisepatch store diff finetuned patched`
    """
    from wisepatch.reports.checkpoint_tables import facts

    output, place = common.output, common.open_store()
    one, other = place.look_up(first), place.look_up(second)
    of_one, of_other = facts(place, one), facts(place, other)
    both = {name: (of_one.get(name, "-"), of_other.get(name, "-")) for name in [*of_one, *of_other]}
    differing = {name: values for name, values in both.items() if values[0] != values[1]}
    fields = ({"field": name, "first": a, "second": b} for name, (a, b) in differing.items())
    output.records(fields, "difference")
    names = labels([one, other])
    if differing:
        output.table(("", names[one.id], names[other.id]), [(name, *values) for name, values in differing.items()])
    output.result(f"{count(len(both) - len(differing), 'other field')} the same")


@app.command("verify")
@o.with_settings
def verify(
    common: o.Common,
) -> None:
    """Hash every checkpoint, cache entry, file of predictions, result and record of a training; exit code 1 if one is damaged.

    Example: `wisepatch store verify`
    """
    from wisepatch.errors import StoreError
    from wisepatch.store.manifests import UnreadableManifestError
    from wisepatch.store.predictions import prediction_problems
    from wisepatch.store.results import result_problems
    from wisepatch.store.runs import run_problems
    from wisepatch.store.sharing import NewerStoreError

    output = common.output
    place = common.open_store()
    if not place.root.is_dir():
        raise StoreError(f"there is no store at {common.store}", "name one with --store or WISEPATCH_STORE")
    checkpoints, unreadable = place.scan()
    problems = place.problems(checkpoints)
    checked = [(each.id, each.name, problems[each.id]) for each in checkpoints if each.id in problems]
    checked += [
        (error.folder.name if isinstance(error, UnreadableManifestError) else "-", "-", error.message)
        for error in unreadable
    ]
    others = [
        *place.cache.problems(), *prediction_problems(place), *result_problems(place.results), *run_problems(place.root)
    ]  # fmt: skip
    output.records(
        (
            {"id": id_, "name": name, "ok": not problem, "problem": problem}
            for id_, name, problem in [*checked, *(("-", "-", problem) for problem in others)]
        ),
        "verification",
    )
    output.table(("name", "id", "state"), [(name, id_, problem or "whole") for id_, name, problem in checked])
    damaged = [problem for _, _, problem in checked if problem]
    for problem in others:
        output.say(problem)
    for error in unreadable:
        if isinstance(error, NewerStoreError):
            raise error
    if damaged:
        are = "is" if len(damaged) == 1 else "are"
        raise StoreError(
            f"{len(damaged)} of {count(len(checked), 'checkpoint')} {are} damaged: {damaged[0]}",
            "make again what is gone or damaged, which mends it, or remove it with `wisepatch store rm` and its id",
        )
    if others:
        raise StoreError(
            f"damage beside the checkpoints in {count(len(others), 'place')}: {others[0]}",
            "no checkpoint is damaged: the cache is made again when it is needed, predictions by `wisepatch eval`; a line of "
            "results is left out; a training begins again or goes on from an older state",
        )


@app.command("rm")
@o.with_settings
def remove(
    common: o.Common,
    checkpoint: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT", help="Names or ids.", autocompletion=completion.checkpoints)
    ],
    recipes: Annotated[bool, typer.Option("--recipes", help="Also remove the recipes that are mixed from it.")] = False,
) -> None:
    """Remove checkpoints.

    Example: `wisepatch store rm demo/Digits/finetuned --recipes`
    """
    output = common.output
    place = common.open_store()
    named = o.find_checkpoints(place, checkpoint, place.look_up_damaged)
    for gone in place.remove(named, with_recipes=recipes):
        output.records([{"removed": gone.id, "name": gone.name}], "removed")
        output.result(f"removed {gone.name} ({gone.id})")


@app.command("gc")
@o.with_settings
def collect(
    common: o.Common,
    caches: CachesOption = False,
    runs: RunsOption = False,
) -> None:
    """Remove what interrupted writes left behind and what no checkpoint needs; with --caches what can be made again.

    That is recipes whose parents are gone, Fisher information that no recipe names, predictions of removed checkpoints.
    What a running process uses stays.

    Example: `wisepatch store gc`
    """
    output = common.output
    gone = common.open_store().collect_garbage(caches=caches, runs=runs)
    output.records(({"removed": str(path)} for path in gone), "removed")
    output.result(f"removed {count(len(gone), 'file or folder', 'files and folders')}")
    for path in gone:
        output.result(f"  {path}")
