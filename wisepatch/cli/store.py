"""``wisepatch store``: list, verify, remove, collect garbage."""

from __future__ import annotations

from typing import Annotated

import typer

from wisepatch.cli import options as o

RunsOption = Annotated[
    bool, typer.Option("--runs", help="Remove the states of trainings that stopped, too; they cannot go on then.")
]
CachesOption = Annotated[
    bool, typer.Option("--caches", help="Remove cached pixels and features too; they are made again when needed.")
]

app = typer.Typer(help="Checkpoints: list, verify, rm, gc.", no_args_is_help=True)


@app.command("list")
@o.with_settings
def listing(
    common: o.Common,
) -> None:
    """List the checkpoints, oldest first.

    Example: `wisepatch store list`
    """
    from wisepatch.store.checkpoints import describe
    from wisepatch.store.runs import unfinished_runs

    output = common.output
    place = common.open_store()
    checkpoints, unreadable = place.scan()
    output.records(describe(checkpoint) for checkpoint in checkpoints)
    output.table(
        ("name", "id", "kind", "training", "method", "alpha", "parents", "weights", "created"),
        [
            (
                c.name, c.id, c.kind, c.training or "-", c.method or "-", "-" if c.alpha is None else f"{c.alpha:g}",
                " ".join(c.parents) or "-",
                "recipe" if c.is_recipe else f"{place.size(c) / 1e6:.1f} MB", c.created[:19].replace("T", " "),
            )
            for c in checkpoints
        ],
    )  # fmt: skip
    for error in unreadable:
        output.say(f"unreadable: {error.message}")
    for run in unfinished_runs(place.root):
        output.say(f"stopped: the training of {run.task} after step {run.step}; its command goes on ({run.folder})")
    if not checkpoints:
        output.result(f"no checkpoints in {common.store}")


@app.command("verify")
@o.with_settings
def verify(
    common: o.Common,
) -> None:
    """Hash every checkpoint, cache entry and file of predictions; exit code 1 if one is damaged.

    Example: `wisepatch store verify`
    """
    from wisepatch.errors import StoreError
    from wisepatch.store.manifests import UnreadableManifestError
    from wisepatch.store.predictions import prediction_problems
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
    others = [*place.cache.problems(), *prediction_problems(place)]
    output.records(
        {"id": id_, "name": name, "ok": not problem, "problem": problem}
        for id_, name, problem in [*checked, *(("-", "-", problem) for problem in others)]
    )
    output.table(("name", "id", "state"), [(name, id_, problem or "whole") for id_, name, problem in checked])
    damaged = [problem for _, _, problem in checked if problem]
    for problem in others:
        output.say(problem)
    for error in unreadable:
        if isinstance(error, NewerStoreError):
            raise error
    if damaged:
        raise StoreError(
            f"{len(damaged)} of {len(checked)} checkpoints are damaged: {damaged[0]}",
            "make again what is gone or damaged, which mends it, or remove it with `wisepatch store rm` and its id",
        )
    if others:
        raise StoreError(
            f"{len(others)} cached entries or files of predictions are damaged: {others[0]}",
            "no checkpoint is; the cache is made again when it is needed, `wisepatch eval` writes predictions again",
        )


@app.command("rm")
@o.with_settings
def remove(
    common: o.Common,
    checkpoint: Annotated[list[str], typer.Argument(metavar="CHECKPOINT", help="Names or ids.")],
    recipes: Annotated[bool, typer.Option("--recipes", help="Also remove the recipes that are mixed from it.")] = False,
) -> None:
    """Remove checkpoints.

    Example: `wisepatch store rm demo/Digits/finetuned --recipes`
    """
    output = common.output
    place = common.open_store()
    named = o.find_checkpoints(place, checkpoint, place.look_up_damaged)
    for gone in place.remove(named, with_recipes=recipes):
        output.records([{"removed": gone.id, "name": gone.name}])
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
    output.records({"removed": str(path)} for path in gone)
    output.result(f"removed {len(gone)} files and folders" + "".join(f"\n  {path}" for path in gone))
