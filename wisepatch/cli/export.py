"""``wisepatch export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wisepatch.cli.completion import checkpoints
from wisepatch.cli.options import CHECKPOINT_HELP, Common, with_settings
from wisepatch.counting import count


@with_settings
def command(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP, autocompletion=checkpoints),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    common: Common,
) -> None:
    """Write a checkpoint as a folder that open_clip loads: `--model local-dir:DIR`.

    A trained head is no part of such a model and goes into files beside it.

    Example: `wisepatch export patched my-model`
    """
    from wisepatch.models.exporting import HEAD, HEAD_WEIGHTS, MODEL_WEIGHTS, export

    output, store = common.output, common.open_store()
    done = export(store, store.find(checkpoint), folder)
    output.records([{
        "exported": str(done.folder), "checkpoint": done.checkpoint.id, "name": done.checkpoint.name,
        "model": done.checkpoint.model, "alpha": done.checkpoint.alpha, "files": done.files, "head": done.checkpoint.head,
    }], "export")  # fmt: skip
    output.result(f"exported {done.checkpoint.name} ({done.checkpoint.id}) to {done.folder}")
    if done.checkpoint.head:
        classes = count(len(done.checkpoint.head["classes"]), "class", "classes")
        output.result(
            f"its trained head of {classes} is in {HEAD_WEIGHTS} and {HEAD}: {MODEL_WEIGHTS} is the CLIP alone"
        )
    output.say(f'in Python: open_clip.create_model_and_transforms("local-dir:{done.folder}")')
    config = done.checkpoint.config
    prompts = [f"--template={template}" for template in config.get("templates") or ()]
    words = ("--model", f"local-dir:{done.folder}", "--task", config.get("task") or "Shapes", *prompts)
    output.say(f"next: {common.again('zeroshot', *words)}")
