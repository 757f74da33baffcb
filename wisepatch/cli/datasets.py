"""``wisepatch datasets``: the tasks known by name, and whether their data is whole."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from wisepatch.cli import options as o
from wisepatch.cli.output import Output

app = typer.Typer(
    help="List the tasks known by name; `check` opens one.\n\nExample: `wisepatch datasets`, `wisepatch datasets check Digits`"
)


@app.callback(invoke_without_command=True)
def listing(
    ctx: typer.Context,
    _store: o.StoreOption = o.DEFAULT_STORE,
    _data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """List the tasks known by name, with classes, splits, prompts, metric, and who provides them.

    Example: `wisepatch datasets`
    """
    if ctx.invoked_subcommand is not None:
        return
    from wisepatch.plugins import registry

    known = registry()
    output = Output(as_json=as_json, quiet=quiet)
    records: list[dict[str, Any]] = [
        {
            "name": d.name, "family": d.family, "classes": len(d.classes), "splits": list(d.offered), "templates": len(d.templates),
            "metric": d.metric, "plugin": known.owners[d.name], "source": d.source,
        }
        for d in sorted(known.datasets.values(), key=lambda d: (d.family.lower(), d.name.lower()))
    ]  # fmt: skip
    output.records(records)
    output.table(
        ("task", "family", "classes", "splits", "templates", "metric", "from"),
        [
            (r["name"], r["family"], r["classes"], " ".join(r["splits"]), r["templates"], r["metric"], r["plugin"])
            for r in records
        ],
    )
    output.result("A folder of images or a CSV is a task too: --task path/to/folder")


@app.command("list", hidden=True)
def listing_too(
    ctx: typer.Context,
    store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """The same as `wisepatch datasets`.

    Example: `wisepatch datasets list`
    """
    ctx.invoked_subcommand = None
    listing(ctx, store, data, as_json=as_json, quiet=quiet)


@app.command("check")
def check(
    task: Annotated[list[str], typer.Argument(metavar="TASK...", help="Known names, folders or CSVs.")],
    _store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Open every split of a task and decode its first image.

    Example: `wisepatch datasets check Digits path/to/folder`
    """
    from wisepatch.plugins import find_tasks

    output = Output(as_json=as_json, quiet=quiet)
    folder = o.data_folder(data)
    records = []
    for found in find_tasks(o.split_list(task)):
        for name in [found.split] if found.split else found.dataset.offered:
            split = found.dataset.split(name, folder)
            image, label = split[0]
            records.append({
                "task": found.name, "split": name, "images": len(split), "classes": len(split.classes), "metric": split.metric,
                "first": f"{image.width} x {image.height}, {split.classes[label]}",
            })  # fmt: skip
    output.records(records)
    output.table(
        ("task", "split", "images", "classes", "metric", "first image"), [tuple(record.values()) for record in records]
    )
