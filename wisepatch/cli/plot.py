"""``wisepatch plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wisepatch.cli import options as o
from wisepatch.errors import UsageError

ResultsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RESULTS", help="Files of results, also the papers' wide records. (default: the store's)"),
]
PictureOption = Annotated[Path, typer.Option("--output", "-o", help="A .png, .svg or .pdf.")]
RunsOption = Annotated[
    list[str], typer.Option("--run", help="Runs to draw, or all. (default: the newest of the store, all of a file)")
]
PatchingOption = Annotated[
    str | None, typer.Option("--patching", help="The patching task, where the results do not say it.")
]
SupportedOption = Annotated[
    list[str], typer.Option("--supported", help="The tasks to average across. (default: all but the patching task)")
]
SplitOption = Annotated[str, typer.Option("--split", help="Which split to draw.")]


@o.with_settings
def command(
    common: o.Common,
    results: ResultsArgument = None,
    output_path: PictureOption = Path("plot.png"),
    run: RunsOption = [],  # noqa: B006 -- Typer copies defaults
    patching: PatchingOption = None,
    supported: SupportedOption = [],  # noqa: B006
    split: SplitOption = "test",
    metric: Annotated[str | None, typer.Option("--metric", help="A metric, for the first of each run.")] = None,
    over_alpha: Annotated[
        bool, typer.Option("--over-alpha", help="Draw each task over alpha instead, for one run.")
    ] = False,
    title: Annotated[str | None, typer.Option("--title", help="A title of your own.")] = None,
) -> None:
    """Draw sweeps: supported accuracy across, patching accuracy up, one curve a run; or every task over alpha.

    Example: `wisepatch plot --output plot.png`
    """
    from wisepatch.reports.plots import (
        alpha_table,
        check_picture_path,
        draw_over_alpha,
        draw_sweep,
        save_figure,
        sweep_table,
    )
    from wisepatch.store.results import read_runs

    output = common.output
    check_picture_path(output_path)
    runs = o.split_list(run) or ([] if results else ["newest"])
    frame, problems = read_runs(results or [common.open_store().results], runs)
    for problem in problems:
        output.say(f"warning: {problem}")
    if over_alpha:
        if patching or supported:
            raise UsageError("--over-alpha draws every task of a run", "leave --patching and --supported out")
        table = alpha_table(frame, split=split, metric=metric)
        save_figure(draw_over_alpha(table, title), output_path)
        output.records({str(k): v for k, v in row.items()} for row in table.to_dict("records"))
        output.result(f"drew {table['task'].nunique()} tasks at {table['alpha'].nunique()} alphas to {output_path}")
        return
    table = sweep_table(
        frame, patching=patching, supported=o.split_list(supported) or None, split=split,
        metric=metric,
    )  # fmt: skip
    save_figure(draw_sweep(table, title), output_path)
    if table.attrs.get("left_out"):
        output.say(
            f"warning: runs without supported tasks are not drawn beside others: {', '.join(table.attrs['left_out'])}"
        )
    output.records({str(k): v for k, v in row.items()} for row in table.to_dict("records"))
    counts = {"point": len(table), "run": table["run"].nunique()}
    shown, drawn = (f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
    output.result(f"drew {shown} of {drawn} to {output_path}")
