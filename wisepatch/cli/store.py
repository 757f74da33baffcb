"""``wisepatch store``: what is in it, whether it is whole, and clearing up."""

from __future__ import annotations

from typing import Annotated

import typer

from wisepatch.cli import options as o
from wisepatch.cli.output import Output

CachesOption = Annotated[
    bool, typer.Option("--caches", help="Remove kept pixels and features too; they are made again when needed.")
]

app = typer.Typer(help="Checkpoints: list, verify, rm, gc.", no_args_is_help=True)


@app.command("list")
def listing(
    store: o.StoreOption = o.DEFAULT_STORE,
    _data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """List the checkpoints, oldest first.

    Example: `wisepatch store list`
    """
    from wisepatch.store.checkpoints import Store, describe

    output = Output(as_json=as_json, quiet=quiet)
    place = Store(store)
    checkpoints = place.everything()
    output.records(describe(checkpoint) for checkpoint in checkpoints)
    output.table(
        ("name", "id", "kind", "alpha", "method", "parents", "weights", "created"),
        [
            (
                c.name, c.id, c.kind, "-" if c.alpha is None else f"{c.alpha:g}", c.method or "-", " ".join(c.parents) or "-",
                "recipe" if c.is_recipe else f"{place.size(c) / 1e6:.1f} MB", c.created[:19].replace("T", " "),
            )
            for c in checkpoints
        ],
    )  # fmt: skip
    if not checkpoints:
        output.result(f"no checkpoints in {store}")


@app.command("verify")
def verify(
    store: o.StoreOption = o.DEFAULT_STORE,
    _data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Hash every file and compare it with its manifest; exit code 1 if one differs.

    Example: `wisepatch store verify`
    """
    from wisepatch.errors import StoreError
    from wisepatch.store.checkpoints import Store

    output = Output(as_json=as_json, quiet=quiet)
    place = Store(store)
    if not place.root.is_dir():
        raise StoreError(f"there is no store at {store}", "name one with --store or WISEPATCH_STORE")
    found = [(checkpoint, place.problem(checkpoint)) for checkpoint in place.everything()]
    unreadable = [error.message for error in place.unreadable()]
    output.records({"id": c.id, "name": c.name, "ok": not problem, "problem": problem} for c, problem in found)
    output.table(("name", "id", "state"), [(c.name, c.id, problem or "whole") for c, problem in found])
    damaged = [problem for _, problem in found if problem] + unreadable
    if damaged:
        raise StoreError(
            f"{len(damaged)} of {len(found) + len(unreadable)} checkpoints are damaged: {damaged[0]}",
            "remove them with `wisepatch store rm`",
        )


@app.command("rm")
def remove(
    checkpoint: Annotated[list[str], typer.Argument(metavar="CHECKPOINT...", help="Names or ids.")],
    recipes: Annotated[bool, typer.Option("--recipes", help="Also remove the recipes that are mixed from it.")] = False,
    store: o.StoreOption = o.DEFAULT_STORE,
    _data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Remove checkpoints.

    Example: `wisepatch store rm demo/Digits/finetuned --recipes`
    """
    from wisepatch.store.checkpoints import Store

    output = Output(as_json=as_json, quiet=quiet)
    place = Store(store)
    for found in o.find_checkpoints(place, checkpoint):
        for gone in place.remove(found, with_recipes=recipes):
            output.records([{"removed": gone.id, "name": gone.name}])
            output.result(f"removed {gone.name} ({gone.id})")


@app.command("gc")
def collect(
    caches: CachesOption = False,
    store: o.StoreOption = o.DEFAULT_STORE,
    _data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Remove what interrupted writes left behind, and recipes whose parents are gone; with --caches what can be made again.

    Example: `wisepatch store gc`
    """
    from wisepatch.store.checkpoints import Store

    output = Output(as_json=as_json, quiet=quiet)
    gone = Store(store).collect_garbage(caches=caches)
    output.records({"removed": str(path)} for path in gone)
    output.result(f"removed {len(gone)} files and folders" + "".join(f"\n  {path}" for path in gone))
