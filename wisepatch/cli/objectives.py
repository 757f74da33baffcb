"""``wisepatch patch --objective A,B,...``: several objectives from one start, compared after mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.cli import options as o
from wisepatch.config import ModelConfig
from wisepatch.counting import count
from wisepatch.errors import UsageError
from wisepatch.plugins import find_objective
from wisepatch.reports.numbers import percent
from wisepatch.train_config import TrainConfig

if TYPE_CHECKING:
    from wisepatch.task_roles import RunTasks
    from wisepatch.workflows.comparing_trainings import TrainingWay


def objective_names(word: str) -> list[str]:
    """Return the objectives that are named, by comma.

    Raises :class:`UnknownNameError`, and :class:`UsageError` for none or for one twice.
    """
    names = [find_objective(name.strip()).name for name in word.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--objective {word!r} names none", "leave it out for cross-entropy")
    if len(set(names)) < len(names):
        raise UsageError(f"--objective {word} names one twice", "name each once")
    return names


def of_one(train: o.TrainOptions, name: str, names: Sequence[str]) -> o.TrainOptions:
    """Return the training settings for one of several objectives.

    A setting without the name of one goes to all that have it, unlabelled images to all that take them, weight decay to all that
    have not replaced it; what none takes is left in, and said.
    """
    kept = []
    for word in train["objective_param"] or ():
        short = word.partition("=")[0].strip()
        having = [each for each in names if short in find_objective(each).params]
        if "." in short or name in having or not having:  # one that nobody has is said
            kept.append(word)
    takers = [each for each in names if find_objective(each).unlabelled]
    unlabelled = train.get("distill_on") if name in takers or not takers else None
    decayed = [each for each in names if not find_objective(each).replaces_decay]
    decay = train.get("wd") if name in decayed or not decayed else None
    own = {"objective": name, "objective_param": kept or None, "distill_on": unlabelled, "wd": decay}
    return o.TrainOptions(train | own)


def run_objectives(
    common: o.Common,
    ways: dict[str, TrainConfig],
    model: ModelConfig,
    *,
    picture: Path | None,
    method: str,
    plan: bool,
    several: o.SeveralOptions,
    tasks: RunTasks,
    also: Sequence[str],
    **options: Any,
) -> None:
    """Fine-tune with each objective, print one table, draw all curves; ``options`` go to :func:`wisepatch.compare_trainings`."""
    from wisepatch.reports.plots import draw_sweep, mean_over_runs, picture_problems, save_figure, sweep_table
    from wisepatch.store.results import pick_runs, read
    from wisepatch.workflows.comparing_trainings import compare_trainings
    from wisepatch.workflows.several_tasks import strategy_for

    if tasks.patching.parts or also:
        raise UsageError(
            "several objectives are compared on one task, and --also measures nothing then",
            "name one task, and leave --also out",
        )
    strategy_for(tasks.patching, **several.asked(), balance=several.balance)  # refuses what is about several tasks
    if method != "linear":
        raise UsageError(f"objectives are compared after linear mixes, and --method is {method}", "leave --method out")
    if plan:
        raise UsageError("--plan measures one objective", "name one with --objective")
    output, store, data = common.output, common.open_store(), common.data_folder()
    problems = picture_problems(picture) if picture else []
    if unequal := unequal_budgets(ways):
        output.say(unequal)
    found = compare_trainings(
        ways, model, store, data, tasks=tasks, problems=problems, progress=output.progress(), **options
    )
    output.records((row for way in found for sweep in way.sweeps for row in sweep.rows), "result")
    output.records((way.record() for way in found), "objective")
    show_ways(common, found)
    names = {sweep.run: way.name for way in found for sweep in way.sweeps}
    if picture is None:
        output.result(f"next: {common.again('plot', '--run', ','.join(names), '--output', 'plot.png')}")
    elif not output.helps:
        table = sweep_table(pick_runs(read(store.results)[0], list(names)))
        save_figure(draw_sweep(mean_over_runs(table, names)), picture)
        output.result(f"the picture is {picture}")


def unequal_budgets(ways: Mapping[str, TrainConfig]) -> str:
    """Say how long and how fast each objective is trained, where the papers' defaults differ; nothing where they do not."""
    budgets = {
        name: f"{f'{each.steps:,} steps' if each.steps else f'{each.epochs:g} epochs'} of {each.batch_size} images at {each.lr:g}"
        for name, each in ways.items()
    }
    if len(set(budgets.values())) == 1:
        return ""
    words = "; ".join(f"{name}: {budget}" for name, budget in budgets.items())
    return f"note: not all are trained for as long and as fast ({words}); --steps, --batch-size and --lr are for all"


def show_ways(common: o.Common, found: Sequence[TrainingWay]) -> None:
    """Print what each objective reaches at the alphas that were chosen, and whether that differs from the first."""
    output, first = common.output, found[0]
    body = []
    for way in found:
        patching, supported = way.accuracies()
        ends = way.accuracies(1.0) if way.reaches_the_end else ([], [])
        difference = way.against
        change, p = "-", "-"
        if difference is not None:
            change = f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
            p = f"{difference.p:.2g}"
        body.append(
            (
                way.name, ", ".join(f"{alpha:g}" for alpha in way.alphas), _spread(patching), change, p, _spread(supported),
                *map(_spread, ends),
            )
        )  # fmt: skip
    sweep = first.sweeps[0]
    columns = (
        "objective", "alpha", sweep.patching, f"more than {first.name} (95 %)", "p", "supported", f"{sweep.patching} at 1",
        "supported at 1",
    )  # fmt: skip
    output.result(f"test data, per cent; alpha chosen by {sweep.rule} on {sweep.selected_on} data")
    output.table(columns, body)
    if sweep.rule and (note := sweep.rule.of_several(sum(len(way.sweeps) for way in found))):
        output.result(f"note: {note}")
    told = [(way.name, way.against.value > 0) for way in found if way.against and way.against.is_beyond_chance]
    words = [
        f"{word}: {', '.join(names)}"
        for word, sign in (("better", True), ("worse", False))
        if (names := [name for name, better in told if better is sign])
    ]
    seeds = len(first.sweeps)
    over = f" over {count(seeds, 'seed')}, in the same direction in each" if seeds > 1 else ""
    output.result(
        f"than {first.name}, at the alphas that were chosen, {'; '.join(words) or 'none is better or worse beyond chance'} "
        f"(paired by image{over}, p after Holm)"
    )


def _spread(values: Sequence[float]) -> str:
    from wisepatch.analysis.seeds import plus_minus

    if not values:
        return "-"
    return plus_minus(values) if len(values) > 1 else percent(values[0])
