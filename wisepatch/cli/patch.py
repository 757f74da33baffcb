"""``wisepatch patch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch.analysis.selection import parse_rule
from wisepatch.cli import finetune as f
from wisepatch.cli import options as o
from wisepatch.cli.output import Output, percent, show_sweep
from wisepatch.config import DEFAULT_ALPHAS, LINEAR, ModelConfig, TrainConfig, check_mix, parse_alphas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wisepatch.analysis.selection import Rule
    from wisepatch.store.checkpoints import Store
    from wisepatch.workflows.patching import Sweep

PictureOption = Annotated[Path | None, typer.Option("--output", "-o", help="Draw the sweep: a .png, .svg or .pdf.")]


def command(
    task: f.OneTaskOption,
    supported: o.SupportedOption = [],  # noqa: B006 -- Typer copies defaults
    alpha: o.AlphaOption = [DEFAULT_ALPHAS],  # noqa: B006
    method: o.MethodOption = LINEAR,
    fisher_examples: o.FisherExamplesOption = 1000,
    select: o.SelectOption = "best-mean",
    select_on: o.SelectOnOption = "val",
    output_path: PictureOption = None,
    model: o.ModelOption = None,
    pretrained: o.PretrainedOption = None,
    start: f.FromOption = None,
    classnames: o.ClassnamesOption = None,
    template: o.TemplateOption = [],  # noqa: B006
    head: f.HeadOption = "frozen",
    freeze_encoder: f.FreezeOption = False,
    steps: f.StepsOption = None,
    epochs: f.EpochsOption = None,
    lr: f.LrOption = None,
    batch_size: f.BatchOption = None,
    warmup: f.WarmupOption = None,
    wd: f.WdOption = 0.1,
    label_smoothing: f.SmoothingOption = 0.0,
    grad_accumulation: f.AccumulationOption = 1,
    seed: f.SeedOption = 0,
    eval_every: f.EveryOption = None,
    store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    workers: o.WorkersOption = None,
    mixed_precision: o.PrecisionOption = "no",
    cache_images: o.CacheOption = False,
    fast_decode: o.FastDecodeOption = False,
    compiled: o.CompileOption = False,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Fine-tune, sweep alpha, choose it on validation data, report test data: the whole way.

    Example: `wisepatch patch --task MNIST --supported CIFAR10,STL10 --output mnist.png`
    """
    from wisepatch.reports.plots import check_picture_path
    from wisepatch.store.checkpoints import Store

    output = Output(as_json=as_json, quiet=quiet)
    if output_path is not None:
        check_picture_path(output_path)
    check_mix(method)
    alphas, rule = parse_alphas(alpha), parse_rule(select or "best-mean")
    config = f.training_config(
        task, supported, classnames, template, start=start, head=head, freeze_encoder=freeze_encoder, steps=steps,
        epochs=epochs, lr=lr, batch_size=batch_size, warmup=warmup, wd=wd, label_smoothing=label_smoothing,
        grad_accumulation=grad_accumulation, seed=seed, eval_every=eval_every, workers=workers, mixed_precision=mixed_precision,
    )  # fmt: skip
    place, folder = Store(store), o.data_folder(data)
    run_patch(
        config,
        o.model_config(model, pretrained, start),
        place,
        folder,
        alphas=alphas,
        rule=rule,
        select_on=select_on,
        picture=output_path,
        output=output,
        method=method,
        fisher_examples=fisher_examples,
        cache_images=cache_images,
        fast_decode=fast_decode,
        compiled=compiled,
    )


def run_patch(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path,
    *,
    alphas: Sequence[float],
    rule: Rule,
    select_on: str,
    picture: Path | None,
    output: Output,
    **options: Any,
) -> None:
    """Patch, print the sweep, draw it, and say in one line what happened; ``options`` go to the sweep."""
    from wisepatch.workflows.patching import finetune_watched, patch

    if output.helps:  # trains with the main process, which sweeps
        finetune_watched(config, model, store, data)
        return
    done = patch(
        config, model, store, data, alphas=alphas, rule=rule, select_on=select_on, progress=output.progress(), **options
    )
    show_sweep(output, done.sweep)
    if picture is not None:
        from wisepatch.reports.plots import draw_sweep, save_figure, sweep_table
        from wisepatch.store.results import pick_runs, read

        save_figure(draw_sweep(sweep_table(pick_runs(read(store.results)[0], [done.sweep.run]))), picture)
    output.result(summary(done.sweep, picture))


def summary(sweep: Sweep, picture: Path | None) -> str:
    """One line: what happened, and what to do next."""
    assert sweep.choice is not None
    assert sweep.chosen is not None
    after = sweep.at("test", sweep.choice.alpha)
    before = min(sweep.points["test"], key=lambda point: point.alpha)
    start = "zero-shot" if before.alpha == 0 else f"alpha {before.alpha:g}"
    kept = ""
    if after.supported is not None:
        kept = f", supported tasks from {percent(before.supported)} to {percent(after.supported)} %"
    drawn = f"the picture is {picture}" if picture else "draw it with: wisepatch plot --output plot.png"
    on = "validation" if sweep.selected_on == "val" else "TEST"
    return (
        f"{sweep.patching} from {percent(before.patching)} % ({start}) to {percent(after.patching)} %{kept}, "
        f"at alpha {sweep.choice.alpha:g} chosen on {on} data; "
        f"the patched model is {sweep.chosen.name} ({sweep.chosen.id}); {drawn}"
    )
