"""Sweep alpha: mix a fine-tuned checkpoint with its zero-shot parent, measure all mixes in one pass, choose one."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.analysis.racing import GRID, objective_for
from wisepatch.analysis.selection import Rule, choose, choose_candidate
from wisepatch.analysis.sweep_frame import Point, sweep_frame
from wisepatch.config import EvalConfig
from wisepatch.counting import count
from wisepatch.errors import StoreError, UsageError
from wisepatch.files import expanded
from wisepatch.hookspecs import Choice
from wisepatch.process_group import on_main
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.runs import names_of_trainings
from wisepatch.tasks import Task
from wisepatch.training.fisher_information import EXAMPLES, given_fishers, line_fishers
from wisepatch.weights.parameters import LAYERS
from wisepatch.workflows.adaptive_sweep import Raced, race_alphas
from wisepatch.workflows.choosing import Measured, RightAnswers, measure_and_choose
from wisepatch.workflows.layers import check_layers, layer_problems, layer_scales
from wisepatch.workflows.mixes import save_mixes, save_patched
from wisepatch.workflows.run import Run, new_run
from wisepatch.workflows.sweep_plan import LEARNED, VAL, SweepPlan, plan_sweep
from wisepatch.workflows.tasks_of_run import tasks_of_run

ZEROSHOT = "zeroshot"


@dataclass(frozen=True)
class Sweep:
    """A sweep over alpha: all rows as written, the points of each split, and what was chosen, if a rule was given."""

    run: str
    patching: str
    supported: tuple[str, ...]
    rows: list[dict[str, Any]]
    points: dict[str, list[Point]]
    checkpoints: dict[float, Checkpoint]
    rule: Rule | None = None
    selected_on: str | None = None
    choice: Point | None = None
    chosen: Checkpoint | None = None
    judges: tuple[str, ...] = ()  # the supported tasks that had a part in the choice
    start: str = ZEROSHOT  # the name of the checkpoint at alpha 0, where that is not a zero-shot one
    note: str = ""  # what the rule says of its choice
    facts: Mapping[str, Any] = field(default_factory=dict)  # the same for programs
    patched: tuple[str, ...] = ()  # the tasks that ``patching`` stands for, where these are several
    coefficients: Mapping[float, tuple[float, ...]] = field(default_factory=dict)  # of candidates that are numbered

    @property
    def patching_tasks(self) -> tuple[str, ...]:
        """Return the names of what is patched, one or several."""
        return self.patched or (self.patching,)

    def __repr__(self) -> str:
        """Return the task, the number of alphas and the choice."""
        chosen = f", chosen {self.choice.alpha:g}" if self.choice else ""
        return f"Sweep({self.patching!r}, {count(len(self.checkpoints), 'alpha')}{chosen})"

    @property
    def start_words(self) -> str:
        """Return what people call the model at alpha 0."""
        return "zero-shot" if self.start == ZEROSHOT else f"the start, {self.start}"

    def at(self, split: str, alpha: float) -> Point:
        """Return the point of a split at an alpha of the sweep."""
        return next(point for point in self.points[split] if point.alpha == alpha)


def sweep(
    store: Store,
    data: Path | str,
    *,
    checkpoint: Checkpoint | str = "finetuned",
    tasks: Sequence[Task | str] | Task | str | None = None,
    alphas: Sequence[float] | float | str | None = None,
    method: str = "linear",
    fisher_examples: int = EXAMPLES,
    fishers: Sequence[Path | str] = (),
    rule: Rule | str | None = None,
    select_on: str = VAL,
    metrics: Sequence[str] | str = (),
    layers: str = "",
    evaluations: int | None = None,
    materialize: bool = False,
    limit: int | None = None,
    run: str | None = None,
    run_name: str = "",
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Mix a fine-tuned checkpoint with its zero-shot parent at every alpha and measure all mixes in one pass.

    With ``rule``, alpha is chosen on the ``val`` splits and the ``test`` splits are measured once, after the choice
    (``select_on="test"`` chooses on test data, and every row says so). Supported tasks without a validation split are measured
    and reported, and not used to choose. ``tasks`` defaults to the run's supported ones. Mixes are stored as recipes, as weights
    with ``materialize``; the chosen one as ``<model>/<task>/patched``. ``limit`` is the number of images of each split at most.

    ``layers`` multiply alpha by a scale for each block: ``lines`` (from 0.5 in the first to 1 in the last, LiNeS), another such
    line (``0.2:1``), or ``NAME=SCALE``; alpha 1 is not the fine-tuned model then. ``learned`` scales are searched for on the data
    of the choice, by the rule, among at most ``evaluations`` mixes (100).

    With the method ``fisher`` each parameter is weighed by its Fisher information at both ends, measured with the seed of the
    fine-tuning on up to ``fisher_examples`` images of its training split, or read from the two files ``fishers``, ours or
    WiSE-FT's. Without ``run_name`` the run is called as the training was. Raises all that is missing before any work.
    """
    data = expanded(data)
    end = store.find(checkpoint) if isinstance(checkpoint, str) else checkpoint
    if end.kind != "finetuned" or not end.parents:
        raise StoreError(
            f"{end.name} ({end.id}) is not a fine-tuned checkpoint", "name one; `wisepatch store list` lists them"
        )
    store.check_own(end)
    patching, others = tasks_of_run(end, tasks, limit)
    plan = plan_sweep(
        patching, others, alphas=alphas, method=method, rule=rule, select_on=select_on, metrics=metrics, layers=layers,
        evaluations=evaluations,
    )  # fmt: skip
    if layers:  # a layer that there is not is said before any work
        check_layers(plan, end, store)
    if fishers and not plan.method.needs_fisher:
        raise UsageError(f"the method {method} takes no Fisher information", "add --method fisher")
    plan.check(data, problems=layer_problems(plan), store=store, measured_fisher=not fishers)
    run_name = run_name or names_of_trainings(store.root).get(end.id, "")
    own = Run(store, data, run or new_run("interpolate"), run_name, settings, progress)
    return run_sweep(plan, end, own, fisher_examples=fisher_examples, fishers=fishers, materialize=materialize)


def run_sweep(
    plan: SweepPlan,
    end: Checkpoint,
    run: Run,
    *,
    fisher_examples: int = EXAMPLES,
    fishers: Sequence[Path | str] = (),
    materialize: bool = False,
) -> Sweep:
    """Carry out a plan that was checked, for the fine-tuned checkpoint ``end``."""
    store, patching = run.store, plan.patching
    (start,) = store.parents(end)
    published = zeroshot_below(store, start)
    start_name = name_of_start(store, start)
    params: dict[str, Any] = {}
    if fishers:
        params["fisher"] = given_fishers(fishers, start, end, store)
    elif plan.method.needs_fisher:
        params["fisher"] = line_fishers(
            start, end, patching, store, run.data, examples=fisher_examples, seed=end.config.get("seed") or 0,
            workers=run.settings.workers if run.settings else None, progress=run.progress,
        )  # fmt: skip
    if plan.layers:
        params[LAYERS] = layer_scales(plan, end, run)
    plan, raced = _race(plan, start, end, published, params, run)
    mixes = on_main(lambda: save_mixes(store, start, end, plan, params, materialize=materialize))
    line = {"training": end.training, "method": plan.method.name, "start": start_name}
    if raced or plan.layers == LEARNED:  # no certified rule may judge these by the same images
        line["fitted_on"] = plan.select_on
    swept = measure_mixes(plan, mixes, published, line, partial(save_patched, store, start, end, plan, params), run)
    return replace(swept, note=raced.note, facts=raced.facts) if raced else swept


def measure_mixes(
    plan: SweepPlan,
    mixes: Mapping[float, Checkpoint],
    published: Sequence[Checkpoint],
    line: Mapping[str, Any],
    save: Callable[[Choice], Checkpoint],
    run: Run,
    *,
    coefficients: Mapping[float, tuple[float, ...]] | None = None,
    reported: Container[float] | None = None,
) -> Sweep:
    """Measure mixes by their alpha in one pass a split, choose one as planned, ``save`` it, and record all rows with ``line``.

    Mixes of several ends have ``coefficients`` in place of alpha, and are numbered, the start 0: the number stands in for alpha,
    and rows have an alpha only where all coefficients are the same. Of these, those ``reported`` and the chosen one see test data.
    """
    patching, coefficients = plan.patching, coefficients or {}
    key_by_id = {mix.id: key for key, mix in mixes.items()}

    def fields(mix: Checkpoint, task: Task) -> dict[str, Any]:
        """Say of endpoints too which line they are measured on."""
        role = "patching" if task in patching.each else "supported"
        key, own = key_by_id.get(mix.id), {}
        alpha = key
        if coefficients and key is not None:
            own = {"candidate": int(key), "params": {"alphas": list(coefficients[key])}}
            alpha = coefficients[key][0] if len(set(coefficients[key])) == 1 else None
        return {"alpha": alpha, "patching": patching.name, "role": role, **line, **own}

    def measure(split: str, choice: Choice | None) -> Measured:
        of_split = {
            key: mix for key, mix in mixes.items()
            if reported is None or choice is None or key in reported or key == choice.alpha
        }  # fmt: skip
        tasks, right = plan.tasks_on(split), RightAnswers()
        measured = run.measure(
            [*of_split.values(), *published], tasks, split, plan.metrics, extra_fields=fields, watch=right.keep
        )
        start = list(of_split).index(0) if 0 in of_split else None
        counted = right.counted(
            measured, [mix.id for mix in of_split.values()], start, len(of_split) if published else None
        )
        keyed = [row | {"alpha": key_by_id.get(row["checkpoint"])} for row in counted]
        left_out = [task.name for task in plan.others if task not in tasks]
        if plan.rule and split == plan.select_on and left_out and run.progress:
            run.progress.note(f"without a {split} split, and so not used to choose alpha: {', '.join(left_out)}")
        judges = [task.name for task in plan.judges(split)]
        return counted, sweep_frame(keyed, [each.name for each in patching.each], judges)

    chosen = measure_and_choose(
        plan, run.store, measure, choose_candidate if coefficients else choose, save,
        lambda row: key_by_id.get(row["checkpoint"]),
    )  # fmt: skip
    choice, judging = chosen.choice, chosen.points.get(plan.select_on, [])
    return Sweep(
        run.id, patching.name, tuple(task.name for task in plan.others), chosen.rows, chosen.points, dict(mixes), plan.rule,
        plan.select_on if plan.rule else None,
        next((point for point in judging if point.alpha == choice.alpha), None) if choice else None, chosen.checkpoint,
        tuple(task.name for task in plan.judges(plan.select_on)) if plan.rule else (), line["start"],
        choice.note if choice else "", choice.facts if choice else {}, tuple(each.name for each in patching.parts), coefficients,
    )  # fmt: skip


def _race(
    plan: SweepPlan,
    start: Checkpoint,
    end: Checkpoint,
    published: Sequence[Checkpoint],
    params: Mapping[str, Any],
    run: Run,
) -> tuple[SweepPlan, Raced | None]:
    """Return the plan with the alphas that a race leaves; a linear classifier's grid costs next to nothing."""
    if not plan.auto or plan.rule is None or end.training.startswith("linear-probe"):
        return plan, None
    tasks = plan.tasks_on(plan.select_on)
    objective = objective_for(plan.rule, [task.name for task in tasks], [0, *([GRID] if published else [])])
    raced = race_alphas(
        tasks, objective,
        lambda alpha: on_main(lambda: save_mixes(run.store, start, end, replace(plan, alphas=(alpha,)), params))[alpha],
        run, baselines=published, split=plan.select_on,
    )  # fmt: skip
    return replace(plan, alphas=raced.alphas), raced


def name_of_start(store: Store, start: Checkpoint) -> str:
    """Return what results call the checkpoint at alpha 0; a start is another checkpoint without its head."""
    begun = store.parents(start)[0] if start.kind == "start" else start
    return ZEROSHOT if start.kind == ZEROSHOT else f"{begun.name} ({begun.id})"


def zeroshot_below(store: Store, start: Checkpoint) -> list[Checkpoint]:
    """Return the zero-shot checkpoint that a start of another kind comes from; none where it is one itself."""
    root = start
    while root.kind != ZEROSHOT and root.parents:
        root = store.parents(root)[0]
    return [] if root is start else [root]
