"""``wisepatch import``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.config import ModelConfig, setting
from wisepatch.errors import UsageError


@dataclass(frozen=True)
class ImportOptions:
    """Say of models from elsewhere what their files do not."""

    name: str = setting("", "What to call it. (default: MODEL/FILE)", None)
    parent: str | None = setting(
        None,
        "The checkpoint that it was fine-tuned from; gives a text tower back that is gone.",
        None,
        complete=completion.checkpoints,
    )
    model: str = setting(
        "",
        "Its architecture, an open_clip name; published weights give back a text tower that is gone.",
        None,
        complete=completion.models,
    )
    pretrained: str = setting("", "Which published weights of --model those are. (default: openai)", None)
    activation: Literal["quickgelu", "gelu"] | None = setting(
        None, "For weights, which do not tell it: quickgelu (OpenAI's) or gelu.", None
    )
    task: str = setting(
        "",
        "What it was fine-tuned on; names the classes of its head.",
        None,
        flags=("--task", "-t"),
        complete=completion.tasks,
    )

    def published(self) -> ModelConfig | None:
        """Return the model whose weights give what is missing. Raises :class:`UsageError` for weights of no model."""
        if self.pretrained and not self.model:
            raise UsageError("--pretrained says which weights of a model give what is missing", "name it with --model")
        return ModelConfig(self.model, self.pretrained) if self.model else None


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
    told: ImportOptions,
    names: o.ClassOptions,
    machine: o.Machine,
    common: o.Common,
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
    from wisepatch.store.checkpoints import describe
    from wisepatch.tasks import find_task
    from wisepatch.workflows.importing import import_checkpoints

    output, classnames, templates = common.output, names.names(), names.templates()
    published = told.published()
    task = find_task(names.task_word(told.task), classnames, templates) if told.task else None
    done = import_checkpoints(
        common.open_store(), files, name=told.name, parent=told.parent, model=published, activation=told.activation or "",
        task=task, classnames=classnames, templates=templates,
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
    last = done.checkpoints[-1]
    if done.can_be_measured:
        several, known = len(done.checkpoints) > 1, "task" in last.config
        words = ("interpolate", "--checkpoint", last.id) if several else ("eval", last.id)
        tasks = () if known else ("--eval" if several else "--task", "Shapes")
        output.say(f"next: {common.again(*words, *tasks)}")
