"""``wisepatch plugins``: list the installed plugins, and hold one to the contract."""

from __future__ import annotations

from typing import Annotated

import typer

from wisepatch.cli import options as o
from wisepatch.counting import count
from wisepatch.errors import PluginError

app = typer.Typer(help="List the installed plugins; `check` holds one to the contract.\n\nExample: `wisepatch plugins`")


@app.callback(invoke_without_command=True)
@o.with_settings
def listing(
    ctx: typer.Context,
    common: o.Common,
) -> None:
    """List the installed plugins, what each registers, and why any was skipped.

    Example: `wisepatch plugins`
    """
    if ctx.invoked_subcommand is not None:
        return
    from wisepatch.plugins import registry

    output = common.output
    plugins = registry().plugins
    output.records(
        (
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "datasets": list(plugin.names("register_datasets")),
                "registered": {hook: plugin.names(hook) for hook in plugin.registered if plugin.names(hook)},
                "problem": plugin.problem,
            }
            for plugin in plugins
        ),
        "plugin",
    )
    if not plugins:
        output.result("no plugins installed; the README shows how to write one")
        return
    output.table(
        ("plugin", "distribution", "registers", "state"),
        [
            (
                plugin.name,
                plugin.distribution,
                " ".join(name for hook in plugin.registered for name in plugin.names(hook)) or "-",
                f"skipped: {plugin.problem}" if plugin.problem else "loaded",
            )
            for plugin in plugins
        ],
    )


@app.command("check")
@o.with_settings
def check(
    common: o.Common,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plugin (its entry point), or its distribution.")],
    task: Annotated[
        list[str], typer.Option("--task", "-t", help="A name with a scheme that it has to find, such as hf:./path.")
    ] = [],  # noqa: B006 -- Typer copies it
) -> None:
    """Hold a plugin to the contract; with --data, open every split of its tasks too. Exit code 1 for a problem.

    Example: `wisepatch plugins check usps --data ~/data`
    """
    from wisepatch.testing import inspect_plugin

    output = common.output
    report = inspect_plugin(name, None if common.data is None else common.data_folder(), o.split_list(task))
    output.records(
        (
            {"plugin": report.plugin, "subject": f.subject, "check": f.check, "ok": not f.problem, "problem": f.problem}
            for f in report.findings
        ),
        "finding",
    )
    output.table(
        ("plugin or task", "check", "state"), [(f.subject, f.check, f.problem or "passed") for f in report.findings]
    )
    if common.data is None and report.datasets:
        output.say("note: no split was opened; name the folder of the data with --data")
    if report.problems:
        raise PluginError(
            f"the plugin {report.plugin} has {count(len(report.problems), 'problem')}",
            "mend what the table says, then check again",
        )
