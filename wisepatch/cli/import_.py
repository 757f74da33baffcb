"""``wisepatch import``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.config import ModelConfig
from wisepatch.errors import UsageError


@o.with_settings
def command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Files of weights, folders, or hf-hub:OWNER/NAME: the zero-shot one first.",
            show_default=False,
        ),
    ],
    names: o.ClassOptions,
    machine: o.Machine,
    common: o.Common,
    name: Annotated[str, typer.Option("--name", help="What to call it. (default: MODEL/FILE)")] = "",
    parent: Annotated[
        str | None,
        typer.Option(
            "--parent",
            help="The checkpoint that it was fine-tuned from; gives a text tower back that is gone.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Its architecture, an open_clip name; published weights give back a text tower that is gone.",
            autocompletion=completion.models,
        ),
    ] = "",
    pretrained: Annotated[
        str, typer.Option("--pretrained", help="Which published weights of --model those are. (default: openai)")
    ] = "",
    activation: Annotated[
        Literal["quickgelu", "gelu"] | None,
        typer.Option("--activation", help="For weights, which do not tell it: quickgelu (OpenAI's) or gelu."),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            "-t",
            help="What it was fine-tuned on; names the classes of its head.",
            autocompletion=completion.tasks,
        ),
    ] = "",
) -> None:
    """Take in checkpoints from elsewhere: a model, or a zero-shot one and what was fine-tuned from it.

    Files of WiSE-FT and PAINT (whole modules), state dicts, checkpoints of open_clip's training, OpenAI's archives, folders of
    transformers, PEFT and open_clip. Nothing in a file is run.

    Examples:
    `wisepatch import zeroshot.pt finetuned.pt --task ImageNet`

    `wisepatch import checkpoint_0.pt checkpoint_5.pt head_MNIST.pt --task MNIST --model ViT-B-32`

    `wisepatch import epoch_10.pt --activation gelu`

    `wisepatch import hf-hub:openai/clip-vit-base-patch32 hf-hub:tanganke/clip-vit-base-patch32_mnist --task MNIST`

    `wisepatch import my-lora-adapter --parent zeroshot`
    """
    from wisepatch.tasks import find_task

    output, store = common.output, common.open_store()
    classnames, templates = names.names(), names.templates()
    if pretrained and not model:
        raise UsageError("--pretrained says which weights of a model give what is missing", "name it with --model")
    published = ModelConfig(model, pretrained) if model else None
    trained_on = find_task(names.task_word(task), classnames, templates) if task else None
    from wisepatch.store.checkpoints import describe
    from wisepatch.workflows.importing import import_checkpoints

    done = import_checkpoints(
        store, files, name=name, parent=parent, model=published, activation=activation or "", task=trained_on,
        classnames=classnames, templates=templates,
    )  # fmt: skip
    output.records([describe(checkpoint) for checkpoint in done.checkpoints], "checkpoint")
    output.table(
        ("checkpoint", "id", "kind", "model", "trained head"),
        [
            (each.name, each.id, each.kind, each.model["model"], len(each.head["classes"]) if each.head else "-")
            for each in done.checkpoints
        ],
    )
    for note in done.notes:
        output.say(f"note: {note}")
    last, known = done.checkpoints[-1], "task" in done.checkpoints[-1].config
    if done.can_be_measured and len(done.checkpoints) > 1:
        output.say(
            f"next: {common.again('interpolate', '--checkpoint', last.id, *(() if known else ('--eval', 'Shapes')))}"
        )
    elif done.can_be_measured:
        output.say(f"next: {common.again('eval', last.id, *(() if known else ('--task', 'Shapes')))}")
