"""``wisepatch finetune``, and the training options that it shares with ``wisepatch patch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch.cli import options as o
from wisepatch.cli.output import Output
from wisepatch.config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

TRAINING = "Training"

HeadOption = Annotated[
    str,
    typer.Option(
        "--head",
        help="frozen (PAINT: image encoder only) or trained (WiSE-FT: encoder and head).",
        rich_help_panel=TRAINING,
    ),
]
FreezeOption = Annotated[
    bool,
    typer.Option(
        "--freeze-encoder", help="Train the head alone, on fixed features (WiSE-FT).", rich_help_panel=TRAINING
    ),
]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Steps.  [PAINT: 2000]", rich_help_panel=TRAINING)]
EpochsOption = Annotated[
    float | None, typer.Option("--epochs", help="Epochs, for steps.  [WiSE-FT: 10]", rich_help_panel=TRAINING)
]
LrOption = Annotated[
    float | None,
    typer.Option("--lr", help="Peak learning rate.  [1e-5; WiSE-FT: 3e-5; head alone: 1e-3]", rich_help_panel=TRAINING),
]
BatchOption = Annotated[
    int | None, typer.Option("--batch-size", help="Images a step.  [128; WiSE-FT: 512]", rich_help_panel=TRAINING)
]
WarmupOption = Annotated[
    int | None,
    typer.Option(
        "--warmup", help="Warm-up steps.  [200; WiSE-FT: 500; at most a tenth of the run]", rich_help_panel=TRAINING
    ),
]
WdOption = Annotated[float, typer.Option("--wd", help="Weight decay.", rich_help_panel=TRAINING)]
SmoothingOption = Annotated[float, typer.Option("--label-smoothing", help="Label smoothing.", rich_help_panel=TRAINING)]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of everything random.", rich_help_panel=TRAINING)]
AccumulationOption = Annotated[
    int,
    typer.Option(
        "--grad-accumulation", help="Batches a step; the learning rate sees their sum.", rich_help_panel=TRAINING
    ),
]
EveryOption = Annotated[
    float | None,
    typer.Option("--eval-every", help="Measure on validation data each so many epochs.", rich_help_panel=TRAINING),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", help="Start from this checkpoint of the store, not from the published model.", rich_help_panel=o.MODEL
    ),
]
OneTaskOption = Annotated[
    str, typer.Option("--task", "-t", help="The task to learn: a known name, a folder, or a CSV.")
]


def command(
    task: OneTaskOption,
    supported: o.SupportedOption = [],  # noqa: B006 -- Typer copies defaults
    model: o.ModelOption = None,
    pretrained: o.PretrainedOption = None,
    start: FromOption = None,
    classnames: o.ClassnamesOption = None,
    template: o.TemplateOption = [],  # noqa: B006
    head: HeadOption = "frozen",
    freeze_encoder: FreezeOption = False,
    steps: StepsOption = None,
    epochs: EpochsOption = None,
    lr: LrOption = None,
    batch_size: BatchOption = None,
    warmup: WarmupOption = None,
    wd: WdOption = 0.1,
    label_smoothing: SmoothingOption = 0.0,
    grad_accumulation: AccumulationOption = 1,
    seed: SeedOption = 0,
    eval_every: EveryOption = None,
    store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    workers: o.WorkersOption = None,
    mixed_precision: o.PrecisionOption = "no",
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Fine-tune on one task; saves the zero-shot parent and the fine-tuned checkpoint.

    Trains on the training split less the tenth that is held out for validation.

    Example: `wisepatch finetune --task MNIST --supported CIFAR10,STL10`
    """
    from wisepatch.store.checkpoints import Store, describe

    output = Output(as_json=as_json, quiet=quiet)
    config = training_config(
        task, supported, classnames, template, start=start, head=head, freeze_encoder=freeze_encoder, steps=steps,
        epochs=epochs, lr=lr, batch_size=batch_size, warmup=warmup, wd=wd, label_smoothing=label_smoothing,
        grad_accumulation=grad_accumulation, seed=seed, eval_every=eval_every, workers=workers, mixed_precision=mixed_precision,
    )  # fmt: skip
    folder = o.data_folder(data)
    from wisepatch.workflows.patching import finetune_watched

    done = finetune_watched(
        config,
        o.model_config(model, pretrained, start),
        Store(store),
        folder,
        output.progress(),
    )
    output.records([describe(done.zeroshot), describe(done.finetuned)])
    output.table(
        ("checkpoint", "id", "kind"),
        [(c.name, c.id, c.kind) for c in (done.zeroshot, done.finetuned)],
    )
    output.say(
        f"loss {done.losses[0]:.3f} at the start, {done.losses[-1]:.3f} at the end; next: wisepatch interpolate --alpha 0:1:0.1"
    )


def training_config(
    task: str, supported: list[str], classnames: Path | None, template: list[str], **given: Any
) -> TrainConfig:
    """Settings from options, with the defaults of the paper; all tasks are looked up, so that typing errors show at once."""
    from wisepatch.datasets.prompts import templates
    from wisepatch.plugins import find_task, find_tasks

    names, prompts = o.read_classnames(classnames), templates(template) or None
    patching, others = find_task(task, names, prompts), find_tasks(o.split_list(supported))
    return TrainConfig.with_defaults(
        patching.spec, supported=tuple(other.spec for other in others), classnames=names, templates=prompts, **given
    )
