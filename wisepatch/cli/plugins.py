"""``wisepatch plugins``."""

from __future__ import annotations

from wisepatch.cli import options as o
from wisepatch.cli.output import Output


def command(
    _store: o.StoreOption = o.DEFAULT_STORE,
    _data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """List the installed plugins, what each registers, and why any was skipped.

    Example: `wisepatch plugins`
    """
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
