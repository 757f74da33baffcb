"""``wisepatch plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.cli.plot_options import DataOptions, LookOptions, check_options

ResultsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RESULTS", help="Files of results, also the papers' wide records. (default: the store's)"),
]
PictureOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="A .png, .svg or .pdf. (default: plot.png, with --paper plot.pdf)"),
]
RunsOption = Annotated[
    list[str],
    typer.Option(
        "--run",
        help="Runs to draw, by id or name, or all. (default: the store's newest sweep or, as a frontier, merge; all of a file)",
        autocompletion=completion.runs,
    ),
]
CompareOption = Annotated[
    list[str],
    typer.Option(
        "--compare",
        help="Two runs or more to draw beside each other, by name; also trainings.",
        autocompletion=completion.runs,
    ),
]
Kind = Literal["frontier", "robustness", "alpha", "per-task", "layers", "training", "confusion", "calibration", "sweep"]
KIND_HELP = (
    "frontier: supported across, patching up, of sweeps or of a merge. robustness: shifts on logit axes. alpha: each task over "
    "alpha, per-task: each on its own axes. layers: how far weights moved. training: losses, rates, validation. confusion, "
    "calibration: from stored answers."
)


@o.with_settings
def command(
    data: DataOptions,
    look: LookOptions,
    common: o.Common,
    results: ResultsArgument = None,
    output_path: PictureOption = None,
    kind: Annotated[Kind, typer.Option("--kind", help=KIND_HELP)] = "frontier",
    run: RunsOption = [],  # noqa: B006 -- Typer copies defaults
    compare: CompareOption = [],  # noqa: B006
    over_alpha: Annotated[bool, typer.Option("--over-alpha", help="The same as --kind alpha.")] = False,
) -> None:
    """Draw sweeps, shifts, trainings, weights and answers: eight kinds of picture, from what the store holds.

    Without --kind the frontier: mean accuracy on the supported tasks across, accuracy on the patching task up, one curve a run. The
    table beside it has PAINT's measures, that of --kind robustness the effective robustness of WiSE-FT; --json has every point.

    Example: `wisepatch plot --output plot.png`, `wisepatch plot --kind robustness --paper`

    Example: `wisepatch plot --kind robustness --reference-task CIFAR10 --shift CIFAR10.1,CIFAR10.2`

    Example: `wisepatch plot --compare "slow rate","fast rate" --label "slow rate=1e-5" --title "" --dark`

    Example: `wisepatch plot --kind calibration --checkpoint zeroshot,patched --task MNIST --size 12x9cm`
    """
    from wisepatch.cli import plot_kinds
    from wisepatch.reports.plots import check_picture_path

    drawn = check_options(kind, data, over_alpha=over_alpha, results=bool(results), run=bool(run), compare=compare)
    picture = output_path or Path("plot.pdf" if look.paper else "plot.png")
    check_picture_path(picture)
    request = plot_kinds.Request(common, picture, results or [], o.run_names(run or compare), data, look, bool(compare))
    plot_kinds.DRAW[drawn](request)
