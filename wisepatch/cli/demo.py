"""``wisepatch demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wisepatch.cli.options import Common, FreshOption, Machine, with_settings
from wisepatch.cli.patch import run_patch
from wisepatch.config import ModelConfig
from wisepatch.train_config import TrainConfig

TASK, SUPPORTED = "Digits", ("Shapes", "Colors", "Textures")
TRAINING: dict[str, Any] = {"steps": 300, "batch_size": 64, "lr": 2e-4}  # gentle: a small move mixes well
RULE = "max-drop=0.02"
SEVERAL = (TASK, "typo:Shapes", "corrupt:Colors:contrast:5")  # digits, shapes with a wrong name on them, faint colours
TRAINING_EACH: dict[str, Any] = {"steps": 120, "batch_size": 32, "lr": 5e-4}


@with_settings
def command(
    machine: Machine,
    common: Common,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The picture: a .png, .svg or .pdf.")] = Path(
        "wisepatch-demo.png"
    ),
    report_path: Annotated[
        Path | None, typer.Option("--report", help="The report: a .html. (default: beside the picture, under its name)")
    ] = None,
    several: Annotated[
        bool,
        typer.Option("--several", help="Patch three tasks in parallel: a few minutes, and one table of all models."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the fine-tuning.")] = 0,
    fresh: FreshOption = False,
) -> None:
    """Patch the embedded model on real handwritten digits: about a minute, no download.

    Fine-tunes on Digits with Shapes, Colors and Textures as supported tasks, sweeps alpha, and takes the best digits
    that cost the others at most two points, by validation data.

    With --several it learns digits, shapes with a wrong name written on them, and colours of low contrast: an end for each
    task, and one coefficient for all.

    It ends with a picture of the sweep and a report, a page that any browser opens.

    Example: `wisepatch demo`, `wisepatch demo --several`
    """
    from wisepatch.analysis.selection import parse_rule
    from wisepatch.reports.page.writing import report_problems, write_report

    page = report_path or output_path.with_suffix(".html")
    tasks, training = (SEVERAL, TRAINING_EACH) if several else (TASK, TRAINING)
    config = TrainConfig.with_defaults(tasks, supported=SUPPORTED, seed=seed, **training)
    sweep = run_patch(
        common, config, ModelConfig("demo", ""), rule=parse_rule(RULE), picture=output_path, fresh=fresh,
        problems=report_problems(page), strategy="parallel" if several else None,
    )  # fmt: skip
    if not common.output.helps:
        write_report(common.open_store(), page, runs=sweep.run, data=common.data_folder())
        common.output.result(f"the report is {page}")
        common.output.records([{"output": str(page)}], "page")
    over_alpha = ("--over-alpha", "--run", sweep.run, "--output", "wisepatch-demo-alpha.png")
    common.output.say(f"next: {common.again('plot', *over_alpha)}")
    own = ("--model", "demo", "--task", "FOLDER", "--supported", ",".join(SUPPORTED))
    common.output.say(f"your own images, a folder a class: {common.again('patch', *own)}")
