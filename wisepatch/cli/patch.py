"""``wisepatch patch``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch.alphas import AUTO, DEFAULT_ALPHAS
from wisepatch.cli import options as o
from wisepatch.cli.finetune import training
from wisepatch.cli.model_table import show_patched, summary_of_table
from wisepatch.cli.objectives import objective_names, of_one, run_objectives
from wisepatch.cli.plan import show_plan
from wisepatch.cli.results import show_seeds, show_sweep
from wisepatch.config import EvalConfig, ModelConfig
from wisepatch.errors import UsageError
from wisepatch.reports.numbers import percent
from wisepatch.task_roles import RunTasks
from wisepatch.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wisepatch.errors import WisepatchError
    from wisepatch.workflows.model_table import Table
    from wisepatch.workflows.sweep import Sweep


@o.with_settings
def command(
    task: o.PatchTaskOption,
    train: o.TrainOptions,
    evaluation: EvalConfig,
    model: o.ModelOptions,
    names: o.ClassOptions,
    machine: o.Machine,
    several: o.SeveralOptions,
    common: o.Common,
    supported: o.SupportedOption = [],  # noqa: B006 -- Typer copies defaults
    alpha: o.AlphaOption = [DEFAULT_ALPHAS],  # noqa: B006
    method: o.MethodOption = "linear",
    fisher_examples: o.FisherExamplesOption = 1000,
    also: o.AlsoOption = [],  # noqa: B006
    select: o.SelectOption = "best-mean",
    select_on: o.SelectOnOption = "val",
    name: o.NameOption = "",
    seeds: o.SeedsOption = None,
    fresh: o.FreshOption = False,
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw the sweep: a .png, .svg or .pdf.")
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say what it will read, compute and keep, and do none of it: a short measurement."),
    ] = False,
    form: o.FormatOption = "table",
) -> None:
    """Fine-tune, sweep alpha, choose it on validation data, report test data: the whole way.

    With --seeds the whole way once a seed: mean and spread of every accuracy, and a picture with a band from the smallest to the
    largest.

    --select max-drop=0.01@95 promises: the drop of the supported mean is certified, with 95 % confidence, to be at most a point,
    or alpha 0 is kept.
    --alpha auto has the resolution of 0:1:0.01 for about a tenth of its evaluations.

    With 50 to 200 images, measured with the embedded model: `--batch-size 32 --steps 300 --lr 2e-4`. A larger rate needs fewer
    steps and costs other tasks more. With 1,000 images `--steps 1000 --lr 2e-4` or `--steps 300 --lr 1e-3`:
    which of them is better depends on the task.

    Several objectives by comma are compared after mixing: `--objective cross-entropy,lipsum --select max-drop=0.02@95`.

    Example: `wisepatch patch --task MNIST --supported CIFAR10,STL10 --output mnist.png`

    Several tasks are patched into one model (PAINT): --strategy joint, sequential or parallel, with a coefficient for each end.

    Example: `wisepatch patch --task MNIST,SVHN,GTSRB --supported CIFAR10,STL10 --strategy parallel --coefficients search`

    Example: `wisepatch patch --task photos --supported CIFAR10,corrupt:photos --limit 500 --plan`

    Example: `wisepatch patch --task MNIST --supported CIFAR10,STL10 --alpha auto --select max-drop=0.01`
    """
    from wisepatch.analysis.seeds import parse_seeds
    from wisepatch.analysis.selection import parse_rule

    common = common.printing(form)
    seeded = parse_seeds(seeds) if seeds is not None else ()
    objectives = objective_names(train["objective"])
    trainings = {
        each: training(task, supported, names, of_one(train, each, objectives), several.balance) for each in objectives
    }
    config, tasks = next(iter(trainings.values()))
    alphas, rule, published = o.alphas(alpha), parse_rule(select or "best-mean"), model.config(train["start"])
    if len(objectives) > 1:
        run_objectives(
            common, {each: one for each, (one, _) in trainings.items()}, published, picture=output_path, method=method, plan=plan,
            several=several, tasks=tasks, alphas=alphas, rule=rule, select_on=select_on, run_name=name, settings=evaluation,
            fresh=fresh, seeds=seeded or None, also=also,
        )  # fmt: skip
        return
    if plan:
        options = {"alphas": alphas, "method": method, "rule": rule, "select_on": select_on}
        show_plan(common, config, published, tasks, evaluation, output_path, names.task_words(also), several, **options)
        return
    run = partial(run_seeds, seeds=seeded) if seeded else run_patch
    run(
        common, config, published, picture=output_path, tasks=tasks, alphas=alphas, method=method,
        fisher_examples=fisher_examples, rule=rule, select_on=select_on, run_name=name, settings=evaluation, fresh=fresh,
        also=names.task_words(also), **several.asked(),
    )  # fmt: skip


def run_patch(
    common: o.Common,
    config: TrainConfig,
    model: ModelConfig,
    *,
    picture: Path | None,
    tasks: RunTasks | None = None,
    fresh: bool = False,
    problems: Sequence[WisepatchError] = (),
    **options: Any,
) -> Sweep:
    """Patch, print the sweep, draw it, and say in one line what happened; ``options`` go to :func:`wisepatch.patch`."""
    from wisepatch.reports.plots import draw_sweep, picture_problems, save_figure, sweep_table
    from wisepatch.store.results import pick_runs, read
    from wisepatch.workflows.cautions import cautions
    from wisepatch.workflows.patching import patch

    output, store, data = common.output, common.open_store(), common.data_folder()
    problems = [*problems, *(picture_problems(picture) if picture else [])]
    patched = patch(
        config, model, store, data, tasks=tasks, fresh=fresh, problems=problems, progress=output.progress(), **options
    )
    sweep = patched.sweep
    draw = common.again("plot", "--run", sweep.run, "--output", "plot.png")
    try:
        show_patched(output, patched)
        if picture is not None and not output.helps:
            save_figure(draw_sweep(sweep_table(pick_runs(read(store.results)[0], [sweep.run]))), picture)
    except BaseException as error:
        assert sweep.chosen is not None
        error.add_note(f"the patched model is stored as {sweep.chosen.name} ({sweep.chosen.id}); draw it with: {draw}")
        raise
    for note in filter(None, [sweep.note, *(f"note: {caution}" for caution in cautions(sweep))]):
        output.result(note)
    output.result(summary(sweep, patched.table if sweep.patched else None))
    output.result(f"the picture is {picture}" if picture else f"next: {draw}")
    return sweep


def run_seeds(
    common: o.Common,
    config: TrainConfig,
    model: ModelConfig,
    *,
    seeds: Sequence[int],
    picture: Path | None,
    **options: Any,
) -> None:
    """Patch once a seed, print mean and spread, and draw them over alpha; ``options`` go to :func:`wisepatch.patch`."""
    from wisepatch.analysis.seeds import plus_minus
    from wisepatch.reports.plots import alpha_table, draw_over_alpha, picture_problems, save_figure
    from wisepatch.store.results import pick_runs, read
    from wisepatch.workflows.cautions import cautions
    from wisepatch.workflows.patching import patch

    output, store, data = common.output, common.open_store(), common.data_folder()
    if options["tasks"].patching.parts or options["also"]:
        raise UsageError("--seeds patches one task, and measures nothing besides", "run each seed with --seed")
    problems = picture_problems(picture) if picture else []
    if options.get("alphas") == AUTO:
        reason = "--alpha auto leaves other alphas for each seed, and several seeds are averaged at the same ones"
        problems.append(UsageError(reason, "name the alphas, such as 0:1:0.1, or one seed"))
    sweeps: list[Sweep] = []
    for seed in seeds:
        output.say(f"seed {seed} ({len(sweeps) + 1} of {len(seeds)})")
        seeded = replace(config, seed=seed)
        sweeps.append(patch(seeded, model, store, data, problems=problems, progress=output.progress(), **options).sweep)
        show_sweep(output, sweeps[-1], tables=False)
    show_seeds(output, [row for sweep in sweeps for row in sweep.rows])
    points = []
    for seed, sweep in zip(seeds, sweeps, strict=True):
        assert sweep.choice is not None
        points.append(sweep.at("test", sweep.choice.alpha))
        output.result(f"seed {seed}: {' '.join(filter(None, [summary(sweep), sweep.note]))}")
    several = sweeps[0].rule.of_several(len(sweeps)) if sweeps[0].rule else ""
    notes = dict.fromkeys([*filter(None, [several]), *(caution for sweep in sweeps for caution in cautions(sweep))])
    for note in notes:
        output.result(f"note: {note}")
    supported = [point.supported for point in points if point.supported is not None]
    mean = f", {supported_words(sweeps[0])} {plus_minus(supported)} %" if supported else ""
    output.result(
        f"chosen on {len(seeds)} seeds: {sweeps[0].patching} {plus_minus(p.patching for p in points)} %{mean}"
    )
    runs = [sweep.run for sweep in sweeps]
    if picture is None:
        output.result(f"next: {common.again('plot', '--over-alpha', '--run', ','.join(runs), '--output', 'plot.png')}")
    elif not output.helps:
        save_figure(draw_over_alpha(alpha_table(pick_runs(read(store.results)[0], runs))), picture)
        output.result(f"the picture is {picture}")


def summary(sweep: Sweep, table: Table | None = None) -> str:
    """Say in one line what happened; of several tasks by the ``table`` of all models."""
    assert sweep.choice is not None
    assert sweep.chosen is not None
    alpha = f"alpha {sweep.choice.alpha:g}"
    if sweep.coefficients:
        each = zip(sweep.patching_tasks, sweep.coefficients[sweep.choice.alpha], strict=True)
        alpha = f"the coefficients {', '.join(f'{value:g} ({task})' for task, value in each)}"
    on = "validation data" if sweep.selected_on == "val" else "TEST data"
    if sweep.supported and not sweep.judges:
        on += f" of {', '.join(sweep.patching_tasks)} alone, as no supported task has a {sweep.selected_on} split"
    changes = summary_of_table(table) if table else change_at(sweep, sweep.choice.alpha)
    return f"{changes}, at {alpha} chosen on {on}; the patched model is {sweep.chosen.name} ({sweep.chosen.id})"


def change_at(sweep: Sweep, alpha: float) -> str:
    """Say from what to what the accuracies go on test data."""
    after, before = sweep.at("test", alpha), min(sweep.points["test"], key=lambda point: point.alpha)
    start = sweep.start_words if before.alpha == 0 else f"alpha {before.alpha:g}"
    supported = ""
    if after.supported is not None:
        change = f"from {percent(before.supported)} to {percent(after.supported)} %"
        supported = f", {supported_words(sweep)} {change}"
    return f"{sweep.patching} from {percent(before.patching)} % ({start}) to {percent(after.patching)} %{supported}"


def supported_words(sweep: Sweep) -> str:
    """Say what the supported accuracy is the mean of."""
    measured = {row["task"] for row in sweep.rows if row["split"] == "test"}
    names = [name for name in sweep.supported if name in measured] or list(sweep.supported)
    return f"the supported task {names[0]}" if len(names) == 1 else f"the mean of {', '.join(names)}"
