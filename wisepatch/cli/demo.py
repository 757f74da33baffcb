"""``wisepatch demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wisepatch.analysis.selection import parse_rule
from wisepatch.cli import options as o
from wisepatch.cli.output import Output
from wisepatch.cli.patch import run_patch
from wisepatch.config import DEFAULT_ALPHAS, ModelConfig, TrainConfig, parse_alphas

TASK, SUPPORTED = "Digits", ("Shapes", "Colors", "Textures")
TRAINING: dict[str, Any] = {"steps": 300, "batch_size": 64, "lr": 2e-4}  # gentle: a small move mixes well
RULE = "max-drop=0.02"


def command(
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The picture: a .png, .svg or .pdf.")] = Path(
        "wisepatch-demo.png"
    ),
    store: o.StoreOption = o.DEFAULT_STORE,
    _data: o.DataOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the fine-tuning.")] = 0,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Patch the embedded model on real handwritten digits: about a minute, no download.

    Fine-tunes on Digits with Shapes, Colors and Textures as supported tasks, sweeps alpha, and takes the best digits
    that cost the others at most two points, by validation data.

    Example: `wisepatch demo`
    """
    from wisepatch.reports.plots import check_picture_path
    from wisepatch.store.checkpoints import Store

    output = Output(as_json=as_json, quiet=quiet)
    check_picture_path(output_path)
    config = TrainConfig.with_defaults(TASK, supported=SUPPORTED, seed=seed, **TRAINING)
    run_patch(
        config, ModelConfig("demo", ""), Store(store), o.data_folder(None), alphas=parse_alphas(DEFAULT_ALPHAS),
        rule=parse_rule(RULE), select_on="val", picture=output_path, output=output,
    )  # fmt: skip
    output.say("next: wisepatch patch --model demo --task YOUR_FOLDER --supported Shapes,Colors,Textures")
