"""``wisepatch finetune``."""

from __future__ import annotations

from wisepatch.cli import options as o
from wisepatch.config import DEFAULT_ALPHAS, TrainConfig
from wisepatch.tasks import RunTasks


@o.with_settings
def command(
    task: o.OneTaskOption,
    train: o.TrainOptions,
    model: o.ModelOptions,
    names: o.ClassOptions,
    machine: o.Machine,
    common: o.Common,
    supported: o.SupportedOption = [],  # noqa: B006 -- Typer copies defaults
    name: o.NameOption = "",
    fresh: o.FreshOption = False,
) -> None:
    """Fine-tune on one task; saves the zero-shot parent and the fine-tuned checkpoint.

    Trains on the training split less the tenth that is held out for validation. The same command goes on where it was
    interrupted.

    With 50 to 200 images, measured with the embedded model: `--batch-size 32 --steps 300 --lr 2e-4`. A larger rate needs fewer
    steps and costs other tasks more.

    Example: `wisepatch finetune --task MNIST --supported CIFAR10,STL10`
    """
    (config, tasks), published = training(task, supported, names, train), model.config(train["start"])
    output = common.output
    store, data = common.open_store(), common.data_folder()
    from wisepatch.analysis.selection import BEST_MEAN
    from wisepatch.store.checkpoints import describe
    from wisepatch.workflows.patching import finetune_watched

    done = finetune_watched(config, published, store, data, output.progress(), tasks=tasks, run_name=name, fresh=fresh)
    output.records([describe(done.zeroshot), describe(done.finetuned)], "checkpoint")
    output.table(
        ("checkpoint", "id", "kind"),
        [(checkpoint.name, checkpoint.id, checkpoint.kind) for checkpoint in (done.zeroshot, done.finetuned)],
    )
    output.say(f"loss {done.losses[0]:.3f} at the start, {done.losses[-1]:.3f} at the end")
    select = ["--select", BEST_MEAN] if "val" in tasks.patching.dataset.available_splits else []
    words = ("--checkpoint", done.finetuned.id, "--alpha", DEFAULT_ALPHAS, *select)
    output.say(f"next: {common.again('interpolate', *words)}")


def training(
    task: str, supported: list[str], names: o.ClassOptions, train: o.TrainOptions
) -> tuple[TrainConfig, RunTasks]:
    """Return the settings, with the defaults of the paper, and the tasks, which are looked up here and nowhere else."""
    classnames, templates = names.names(), names.templates()
    tasks = RunTasks.find(names.task_word(task), names.task_words(supported), classnames, templates, train["limit"])
    specs = tuple(other.spec for other in tasks.supported)
    config = TrainConfig.with_defaults(
        tasks.patching.spec, supported=specs, classnames=classnames, templates=templates, **train
    )
    return config, tasks
