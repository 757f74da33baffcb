"""``wisepatch plugins``: what is installed, and whether a plugin keeps to the contract."""

from __future__ import annotations

from typing import Annotated

import typer

from wisepatch.cli import options as o
from wisepatch.cli.output import Output
from wisepatch.errors import PluginError

app = typer.Typer(help="List the installed plugins; `check` holds one to the contract.\n\nExample: `wisepatch plugins`")


@app.callback(invoke_without_command=True)
def listing(
    ctx: typer.Context,
    _store: o.StoreOption = o.DEFAULT_STORE,
    _data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """List the installed plugins, what each registers, and why any was skipped.

    Example: `wisepatch plugins`
    """
    if ctx.invoked_subcommand is not None:
        return
    from wisepatch.plugins import registry

    output = Output(as_json=as_json, quiet=quiet)
    found = registry().plugins
    output.records(
        {"name": p.name, "distribution": p.distribution, "datasets": list(p.datasets), "problem": p.problem}
        for p in found
    )
    if not found:
        output.result("no plugins installed; the README shows how to write one")
        return
    output.table(
        ("plugin", "distribution", "tasks", "state"),
        [
            (p.name, p.distribution, " ".join(p.datasets) or "-", f"skipped: {p.problem}" if p.problem else "loaded")
            for p in found
        ],
    )


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plugin (its entry point), or its distribution.")],
    task: Annotated[
        list[str], typer.Option("--task", "-t", help="A name with a scheme that it has to find, such as hf:./path.")
    ] = [],  # noqa: B006 -- Typer copies it
    _store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Hold a plugin to the contract; with --data, open every split of its tasks too. Exit code 1 for a problem.

    Example: `wisepatch plugins check usps --data ~/data`
    """
    from wisepatch.testing import inspect_plugin

    output = Output(as_json=as_json, quiet=quiet)
    report = inspect_plugin(name, None if data is None else o.data_folder(data), o.split_list(task))
    output.records(
        {"plugin": report.plugin, "subject": f.subject, "check": f.check, "ok": not f.problem, "problem": f.problem}
        for f in report.findings
    )
    output.table(
        ("plugin or task", "check", "state"), [(f.subject, f.check, f.problem or "passed") for f in report.findings]
    )
    if report.problems:
        count = f"{len(report.problems)} problem{'s' if len(report.problems) > 1 else ''}"
        raise PluginError(f"the plugin {report.plugin} has {count}", "mend what the table says, then check again")
