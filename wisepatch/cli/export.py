"""``wisepatch export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wisepatch.cli.completion import checkpoints, tasks
from wisepatch.cli.options import CHECKPOINT_HELP, Common, NameOptions, with_settings
from wisepatch.counting import count


@with_settings
def command(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP, autocompletion=checkpoints),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    names: NameOptions,
    common: Common,
    kind: Annotated[
        Literal["open_clip", "transformers", "classifier"],
        typer.Option("--format", help="For open_clip (every model), transformers (a CLIPModel), or with a head."),
    ] = "open_clip",
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Classes of a classifier's head.", autocompletion=tasks)
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", metavar="OWNER/NAME", help="Also upload it to the Hugging Face Hub.")
    ] = None,
) -> None:
    """Write a checkpoint as a folder that open_clip or transformers load, with a model card.

    `--format classifier` adds a head: the trained one, or one from text for --task or --classnames; the card has the lines to
    run it. A trained head goes beside the other formats too.

    Examples: `wisepatch export patched my-model`

    `wisepatch export patched my-model --format transformers --push me/my-model`

    `wisepatch export patched my-classifier --format classifier --classnames "cat,dog"`
    """
    from wisepatch.models.exporting import HEAD, HEAD_WEIGHTS, MODEL_WEIGHTS
    from wisepatch.reports.publishing import export

    output, store = common.output, common.open_store()
    done = export(
        store, store.find(checkpoint), folder, format=kind, task=task, classnames=names.names(), templates=names.templates(),
        push_to=push, quiet=output.quiet,
    )  # fmt: skip
    output.records([{
        "exported": str(done.folder), "checkpoint": done.checkpoint.id, "name": done.checkpoint.name, "format": done.format,
        "model": done.checkpoint.model, "alpha": done.checkpoint.alpha, "files": done.files, "head": done.head,
        "address": done.address or None,
    }], "export")  # fmt: skip
    output.result(f"exported {done.checkpoint.name} ({done.checkpoint.id}) to {done.folder}")
    if done.head:
        classes = count(len(done.head["classes"]), "class", "classes")
        what = f"head from text of {classes}" if "templates" in done.head else f"trained head of {classes}"
        alone = f": {MODEL_WEIGHTS} is the CLIP alone" if kind != "transformers" else ""
        output.result(f"its {what} is in {HEAD_WEIGHTS} and {HEAD}{alone}")
    if done.address:
        output.result(f"pushed to {done.address}")
    if kind == "transformers":
        output.say(f'in Python: transformers.CLIPModel.from_pretrained("{done.folder}")')
        return
    output.say(f'in Python: open_clip.create_model_and_transforms("local-dir:{done.folder}")')
    config = done.checkpoint.config
    prompts = [f"--template={template}" for template in config.get("templates") or ()]
    words = ("--model", f"local-dir:{done.folder}", "--task", config.get("task") or "Shapes", *prompts)
    output.say(f"next: {common.again('zeroshot', *words)}")
