"""``wisepatch plot``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.counting import count
from wisepatch.errors import UsageError
from wisepatch.files import in_utf8

if TYPE_CHECKING:
    from collections.abc import Sequence

ResultsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RESULTS", help="Files of results, also the papers' wide records. (default: the store's)"),
]
PictureOption = Annotated[Path, typer.Option("--output", "-o", help="A .png, .svg or .pdf.")]
RunsOption = Annotated[
    list[str],
    typer.Option(
        "--run",
        help="Runs to draw, by id or name, or all. (default: the newest of the store, all of a file)",
        autocompletion=completion.runs,
    ),
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
    kind: Annotated[
        Literal["sweep", "alpha", "training"],
        typer.Option("--kind", help="sweep, alpha (as --over-alpha), or training: losses, rates and validation."),
    ] = "sweep",
    title: Annotated[
        str | None, typer.Option("--title", help="A title of your own.", callback=lambda text: text and in_utf8(text))
    ] = None,
) -> None:
    """Draw sweeps: supported accuracy across, patching accuracy up, one curve a run; or every task over alpha.

    With --kind training, what the trainings of the store have logged; --run takes their names, their ids or their fine-tuned
    checkpoints.

    Example: `wisepatch plot --output plot.png`, `wisepatch plot --kind training`
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
    over_alpha = over_alpha or kind == "alpha"
    if kind == "training":
        if results or over_alpha or patching or supported or metric:
            raise UsageError(
                "--kind training draws what trainings of the store have logged",
                "give --run, --title and --output alone",
            )
        draw_trainings(common, o.split_list(run) or ["newest"], output_path, title)
        return
    runs = [in_utf8(each) for each in o.split_list(run)] or ([] if results else ["newest"])
    frame, problems = read_runs(results or [common.open_store().results], runs)
    for problem in problems:
        output.say(f"warning: {problem}")
    if over_alpha:
        if patching or supported:
            raise UsageError("--over-alpha draws every task of a run", "leave --patching and --supported out")
        table = alpha_table(frame, split=split, metric=metric)
        save_figure(draw_over_alpha(table, title), output_path)
        output.records(({str(k): v for k, v in row.items()} for row in table.to_dict("records")), "point")
        tasks, alphas = count(table["task"].nunique(), "task"), count(table["alpha"].nunique(), "alpha")
        output.result(f"drew {tasks} at {alphas} to {output_path}")
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
    output.records(({str(k): v for k, v in row.items()} for row in table.to_dict("records")), "point")
    points, drawn = count(len(table), "point"), count(table["run"].nunique(), "run")
    output.result(f"drew {points} of {drawn} to {output_path}")


def draw_trainings(common: o.Common, runs: Sequence[str], output_path: Path, title: str | None) -> None:
    """Draw trainings by id, name, fine-tuned checkpoint (as checkpoints are named), ``newest`` or ``all``."""
    from wisepatch.reports.plots import save_figure
    from wisepatch.reports.training_curves import draw_training, load_trainings

    output = common.output
    table = load_trainings(common.open_store(), runs)
    save_figure(draw_training(table, title), output_path)
    output.records(({str(k): v for k, v in row.items()} for row in table.to_dict("records")), "point")
    output.result(f"drew {count(table['training'].nunique(), 'training')} to {output_path}")
