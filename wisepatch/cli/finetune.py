"""``wisepatch finetune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wisepatch.alphas import DEFAULT_ALPHAS
from wisepatch.cli import options as o
from wisepatch.cli.objectives import objective_names
from wisepatch.errors import UsageError
from wisepatch.plugins import find_objective
from wisepatch.task_roles import RunTasks
from wisepatch.train_config import Balance, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wisepatch.training.finetuning import Finetuned


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
    seeds: o.SeedsOption = None,
    fresh: o.FreshOption = False,
) -> None:
    """Fine-tune on one task; saves the zero-shot parent and the fine-tuned checkpoint.

    Trains on the training split less the tenth that is held out for validation. The same command goes on where it was
    interrupted.

    With 50 to 200 images, measured with the embedded model: `--batch-size 32 --steps 300 --lr 2e-4`. A larger rate needs fewer
    steps and costs other tasks more. With 1,000 images `--steps 1000 --lr 2e-4` or `--steps 300 --lr 1e-3`:
    which of them is better depends on the task.

    Example: `wisepatch finetune --task MNIST --supported CIFAR10,STL10`, `wisepatch finetune --task MNIST --seeds 0,1,2`
    """
    from dataclasses import replace

    from wisepatch.analysis.seeds import parse_seeds

    if len(objective_names(train["objective"])) > 1:
        reason = f"finetune trains with one objective, and --objective {train['objective']} names several"
        raise UsageError(reason, "`wisepatch patch` trains with each and compares them")
    several = parse_seeds(seeds) if seeds is not None else ()
    (config, tasks), published = training(task, supported, names, train), model.config(train["start"])
    output = common.output
    store, data = common.open_store(), common.data_folder()
    from wisepatch.analysis.selection import BEST_MEAN
    from wisepatch.store.checkpoints import describe
    from wisepatch.workflows.patching import finetune_watched

    finished = []
    for seed in several or (config.seed,):
        finished.append(
            finetune_watched(
                replace(config, seed=seed), published, store, data, output.progress(), tasks=tasks, run_name=name, fresh=fresh,
            )
        )  # fmt: skip
    done = finished[-1]
    output.records(
        map(describe, {each.id: each for run in finished for each in (run.zeroshot, run.finetuned)}.values()),
        "checkpoint",
    )
    if several:
        show_trained(common, several, finished)
        return
    output.table(
        ("checkpoint", "id", "kind"),
        [(checkpoint.name, checkpoint.id, checkpoint.kind) for checkpoint in (done.zeroshot, done.finetuned)],
    )
    output.say(f"loss {done.losses[0]:.3f} at the start, {done.losses[-1]:.3f} at the end")
    select = ["--select", BEST_MEAN] if "val" in tasks.patching.dataset.available_splits else []
    words = ("--checkpoint", done.finetuned.id, "--alpha", DEFAULT_ALPHAS, *select)
    output.say(f"next: {common.again('interpolate', *words)}")


def show_trained(common: o.Common, seeds: Sequence[int], finished: Sequence[Finetuned]) -> None:
    """Print the checkpoint of each seed, mean and spread of the last losses, and how to measure all of them."""
    from statistics import mean, stdev

    output, losses = common.output, [run.losses[-1] for run in finished]
    output.table(
        ("checkpoint", "id", "seed", "loss at the end"),
        [
            (run.finetuned.name, run.finetuned.id, seed, f"{loss:.3f}")
            for seed, run, loss in zip(seeds, finished, losses, strict=True)
        ],
    )
    output.result(f"loss {mean(losses):.3f} at the end, standard deviation {stdev(losses):.3f} over {len(seeds)} seeds")
    output.say(f"next: {common.again('eval', finished[0].zeroshot.id, *(run.finetuned.id for run in finished))}")


def training(
    task: str | list[str],
    supported: list[str],
    names: o.ClassOptions,
    train: o.TrainOptions,
    balance: Balance = "examples",
) -> tuple[TrainConfig, RunTasks]:
    """Return the settings, with the defaults of the paper, and the tasks, which are looked up here and nowhere else."""
    classnames, templates = names.names(), names.templates()
    words = [names.task_word(task)] if isinstance(task, str) else names.task_words(task)
    tasks = RunTasks.find(words, names.task_words(supported), classnames, templates, train["limit"], balance)
    specs = tuple(other.spec for other in tasks.supported)
    head = train["head"] or find_objective(train["objective"]).head or None
    config = TrainConfig.with_defaults(
        [each.spec for each in tasks.patching.each], supported=specs, classnames=classnames, templates=templates,
        balance=balance, **train | {"head": head},
    )  # fmt: skip
    return config, tasks
