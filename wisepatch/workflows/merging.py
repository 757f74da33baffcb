"""Merge several checkpoints into one by a method: candidates from its parameters, measured in one pass, one of them chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.selection import Rule, check_without_order, choose_candidate, parse_rule
from wisepatch.analysis.sweep_frame import PATCHING, SUPPORTED, Point, paired_counts, points, sweep_frame
from wisepatch.config import EvalConfig, ModelConfig, listed
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.evaluation.measurement import evaluate
from wisepatch.evaluation.output_ensembles import SPACES, WEIGHTS, ensembles, output_weights
from wisepatch.evaluation.prediction import Predictions
from wisepatch.files import expanded
from wisepatch.hookspecs import Choice, MergeMethod
from wisepatch.plugins import find_merge_method, find_metric
from wisepatch.process_group import on_main
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Checkpoint, Recipe, Store
from wisepatch.store.recipes import merged_head
from wisepatch.store.results import append
from wisepatch.tasks import Task
from wisepatch.training.start import checkpoint_prefix
from wisepatch.weights.depth import read_layers
from wisepatch.weights.parameters import LAYERS, described, label, params_problem, read_params
from wisepatch.workflows.merge_parents import Parents, information_for, merge_parents, own_task, tasks_of
from wisepatch.workflows.preflight import preflight
from wisepatch.workflows.run_tasks import patched_words
from wisepatch.workflows.sweep import new_run
from wisepatch.workflows.sweep_plan import VAL, SweepPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

START, END, MERGED, ENSEMBLE = "start", "end", "merged", "ensemble"


@dataclass(frozen=True)
class Candidate:
    """A model that is measured: the start or an end, a merge with its parameters, or an ensemble of outputs (no checkpoint)."""

    number: int | None
    kind: str
    label: str
    checkpoint: Checkpoint
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Merged:
    """What a merge has measured: candidates, rows as written, the points of each split by number, and what was chosen."""

    run: str
    method: str
    patching: tuple[str, ...]
    supported: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    rows: list[dict[str, Any]]
    points: dict[str, list[Point]]
    rule: Rule | None = None
    selected_on: str | None = None
    choice: Candidate | None = None
    chosen: Checkpoint | None = None
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the method, the number of candidates and the choice."""
        number = sum(each.kind == MERGED for each in self.candidates)
        return f"Merged({self.method!r}, {number} candidates{f', chosen {self.choice.label!r}' if self.choice else ''})"


def merge(
    store: Store,
    data: Path | str,
    checkpoints: Sequence[Checkpoint | str],
    *,
    method: str = "linear",
    params: Sequence[str] = (),
    layers: Sequence[str] = (),
    start: Checkpoint | str | None = None,
    tasks: Sequence[Task | str] | Task | str | None = None,
    measure: bool = True,
    rule: Rule | str | None = None,
    select_on: str = VAL,
    metrics: Sequence[str] | str = (),
    space: str = WEIGHTS,
    limit: int | None = None,
    run: str | None = None,
    run_name: str = "",
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Merge checkpoints by ``method`` with each combination of ``params`` (``"scale=0:1:0.1"``), and measure all in one pass.

    Methods of task vectors need the start that all ends were trained from, which is found or named as ``start``. ``layers`` scales
    what is added to it: ``0.2:1`` from the first block to the last, or ``NAME=SCALE``. With ``rule`` a candidate is chosen on
    the ``val`` splits and stored as ``run_name``; the start, the ends and the choice see the ``test`` splits then. ``tasks`` are
    measured besides those that the ends were trained on, by default the supported ones of their runs. ``space="output"`` measures
    ensembles of logits and of probabilities too, of which no checkpoint comes. Without ``measure`` the merge is only stored.

    Raises all that is missing before any work: :class:`StoreError` for ends that do not fit together, :class:`UsageError`.
    """
    data, own = expanded(data), find_merge_method(method)
    found = [store.find(each) if isinstance(each, str) else each for each in listed(checkpoints)]
    parents = merge_parents(store, own, found, start)
    grid = candidate_params(own, parents, params, layers)
    if space not in SPACES:
        raise UsageError(f"there is no space {space!r}", f"--space takes {' or '.join(SPACES)}")
    rule = parse_rule(rule) if isinstance(rule, str) else rule
    if rule:
        check_without_order(rule)
    if not measure and (rule or len(grid) > 1):
        raise UsageError(
            f"{'a choice' if rule else f'{len(grid)} candidates'} cannot go without measurements",
            "leave --no-eval out" if rule else "leave --no-eval out, or give each parameter one value",
        )
    reads = own.needs_fisher or own.needs_grams
    train = [(own_task(own, end, limit), ["train"]) for end in parents.ends] if reads else []
    plan: SweepPlan | None = None
    if measure:
        patching, others = tasks_of(parents.ends, tasks, limit)
        plan = merge_plan(own, parents, grid, patching, others, rule, select_on, listed(metrics))
        plan.check(data, train, store=store)
    else:
        preflight([], data, read=train, store=store)
    grid = [
        each | information_for(own, parents, each, store, data, limit=limit, settings=settings, progress=progress)
        for each in grid
    ]
    job = MergeJob(store, data, own, parents, run_name, run or new_run("merge"), settings, progress)
    if plan is None:
        merged = on_main(partial(job.save, MERGED, grid[0]))
        return Merged(
            job.run, method, (), (), (Candidate(1, MERGED, label(grid[0]), merged, grid[0]),), [], {}, chosen=merged
        )
    return job.measure(plan, grid, space)


def candidate_params(
    method: MergeMethod, parents: Parents, words: Sequence[str], layers: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the parameters of each candidate; averages have equal weights unless told otherwise."""
    grid = read_params(method, words, len(parents.ends))
    for params in grid:
        if (
            method.parameters
            and {"alpha", "weights"} <= {each.name for each in method.parameters}
            and not ({"alpha", "weights"} & set(params))
        ):
            params["weights"] = [1.0] * len(parents.ends)
    if layers:
        if not (method.from_start or "alpha" in grid[0]):
            raise UsageError(
                f"{method.name} adds nothing to a start, and --layers scales what is added",
                "use a method of task vectors, such as task-arithmetic",
            )
        scales = read_layers(layers, parents.names)
        grid = [params | {LAYERS: scales} for params in grid]
    for params in grid if method.parameters else ():
        if problem := params_problem(method, len(parents.all), params):
            raise UsageError(f"this would be a merge {problem}", "`wisepatch merge --help` shows the methods")
    return grid


def merge_plan(
    method: MergeMethod,
    parents: Parents,
    grid: Sequence[Mapping[str, Any]],
    patching: Task,
    others: Sequence[Task],
    rule: Rule | None,
    select_on: str,
    metrics: Sequence[str],
) -> SweepPlan:
    """Return what is measured on which splits; candidates are numbered, and the start is number 0."""
    for metric in metrics:
        find_metric(metric)
    first = 0 if parents.start else 1
    numbers = tuple(float(number) for number in range(first, len(grid) + 1))
    plain = replace(method, needs_fisher=False)  # it is measured for each end by itself
    return SweepPlan(patching, tuple(others), numbers, plain, rule, select_on, tuple(metrics))


@dataclass(frozen=True)
class MergeJob:
    """A merge that was checked: where it is stored, what is merged, and how it is measured."""

    store: Store
    data: Path
    method: MergeMethod
    parents: Parents
    name: str
    run: str
    settings: EvalConfig | None = None
    progress: Progress | None = None

    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a candidate."""
        return Recipe(self.method.name, tuple(parent.id for parent in self.parents.all), dict(params))

    def save(self, kind: str, params: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Checkpoint:
        """Store a candidate as a recipe: ``merged``, by the name that was given, or ``interpolated``, by its parameters."""
        ends = self.parents.ends
        prefix = checkpoint_prefix(ModelConfig.from_json(ends[0].model))
        tasks = "+".join(dict.fromkeys(Path(str(end.config.get("task", end.name))).name for end in ends))
        name = f"{prefix}/{tasks}/{self.method.name}"
        if kind == MERGED:
            name = self.name or name
        else:
            name += f"/{described(params)}"
        trainings = {end.training for end in ends}
        first, *rest = (end.config for end in ends)
        shared = {key: value for key, value in first.items() if all(other.get(key) == value for other in rest)}
        shared |= self._tasks()
        return self.store.save(
            None, kind=kind, name=name, model=ends[0].model, training=trainings.pop() if len(trainings) == 1 else "",
            recipe=self.recipe(params), head=merged_head(self.parents.all), config=shared | dict(config or {}),
        )  # fmt: skip

    def _tasks(self) -> dict[str, Any]:
        """Return what the ends were trained on, and what was supported, as the settings of a training of several tasks have it."""
        trained = [end.config for end in self.parents.ends if "task" in end.config]
        words = list(dict.fromkeys(word for config in trained for word in patched_words(config)))
        if not words:
            return {}
        supported = dict.fromkeys(word for config in trained for word in config.get("supported") or ())
        several = {"tasks": words} if len(words) > 1 else {}
        return {"task": ",".join(words), "supported": [word for word in supported if word not in words], **several}

    def candidates(self, grid: Sequence[Mapping[str, Any]], space: str, *, final: bool) -> list[Candidate]:
        """Return the start, the ends, all merges, and the ensembles of outputs, where they are asked for.

        A merge is stored by the name that was given where it is ``final``: the only one, with no choice to come.
        """
        parents = self.parents
        rows = [Candidate(0, START, parents.start.name, parents.start)] if parents.start else []
        rows += [Candidate(None, END, end.name, end) for end in parents.ends if end is not parents.start]
        rows += [
            Candidate(
                number,
                MERGED,
                label(params) or self.method.name,
                self.save(MERGED if final else "interpolated", params),
                params,
            )
            for number, params in enumerate(grid, 1)
        ]
        if space != WEIGHTS:
            weights = {output_weights(self.method, params, len(parents.all)): params for params in grid}
            rows += [
                Candidate(None, ENSEMBLE, f"{each.method}, {described({'weights': list(shares)})}", each, params)
                for shares, params in weights.items()
                for each in ensembles(parents.all, shares)
            ]
        return rows

    def measure(self, plan: SweepPlan, grid: Sequence[Mapping[str, Any]], space: str) -> Merged:
        """Measure all candidates in one pass a split, choose one as planned, store it, and record all rows."""
        final = len(grid) == 1 and plan.rule is None
        every = on_main(partial(self.candidates, grid, space, final=final))
        rows: list[dict[str, Any]] = []
        points_by_split: dict[str, list[Point]] = {}
        choice: Choice | None = None
        chosen = next(each.checkpoint for each in every if each.kind == MERGED) if final else None
        for split in plan.splits:
            shown = [each for each in every if choice is None or each.kind != MERGED or each.number == choice.alpha]
            measured, frame = self.measure_on(plan, split, shown)
            points_by_split[split] = points(frame)
            if plan.rule and split == plan.select_on:
                try:
                    choice = choose_candidate(frame, plan.rule)
                    picked = next(each for each in every if each.number == choice.alpha)
                    selected = {"select": str(plan.rule), "select_on": plan.select_on}
                    chosen = picked.checkpoint
                    if picked.kind == MERGED:
                        chosen = on_main(partial(self.save, MERGED, picked.params, selected))
                except WisepatchError:
                    on_main(partial(append, self.store.results, measured))
                    raise
            if choice:
                measured = [
                    row | {"chosen": row["candidate"] == choice.alpha, "selected_on": plan.select_on}
                    for row in measured
                ]
            rows += on_main(partial(append, self.store.results, measured))
        return self.merged(plan, every, rows, points_by_split, choice, chosen)

    def merged(
        self,
        plan: SweepPlan,
        every: Sequence[Candidate],
        rows: list[dict[str, Any]],
        points_by_split: dict[str, list[Point]],
        choice: Choice | None,
        chosen: Checkpoint | None,
    ) -> Merged:
        """Return what was measured, in the names of the plan."""
        return Merged(
            self.run, self.method.name, tuple(task.name for task in plan.patching.each), tuple(task.name for task in plan.others),
            tuple(every), rows, points_by_split, plan.rule, plan.select_on if plan.rule else None,
            next(each for each in every if each.number == choice.alpha) if choice else None, chosen,
            choice.note if choice else "", choice.facts if choice else {},
        )  # fmt: skip

    def measure_on(self, plan: SweepPlan, split: str, shown: Sequence[Candidate]) -> tuple[list[dict[str, Any]], Any]:
        """Measure candidates on a split; return the rows, and the frame of those that are numbered."""
        by_id = {each.checkpoint.id: each for each in reversed(shown)}
        unique = list({each.checkpoint.id: each for each in shown}.values())
        right: dict[str, NDArray[np.bool_]] = {}

        def fields(checkpoint: Checkpoint, task: Task) -> dict[str, Any]:
            own = by_id[checkpoint.id]
            role = PATCHING if task in plan.patching.each else SUPPORTED
            return {
                "alpha": self._alpha(own),
                "candidate": own.number,
                "role": role,
                "patching": None,
            }  # no sweep over alpha

        measured = evaluate(
            [each.checkpoint for each in unique], plan.tasks_on(split), self.store, self.data, split=split, metrics=plan.metrics,
            run=self.run, run_name=self.name, record=False, progress=self.progress, settings=self.settings, extra_fields=fields,
            watch=partial(_keep_right, right),
        )  # fmt: skip
        places = {each.checkpoint.id: place for place, each in enumerate(unique)}
        reference = next((places[each.checkpoint.id] for each in shown if each.number == 0), None)
        for row in measured:
            if reference is not None and row["metric"] == "top1":
                answers = right[row["task"]]
                row |= paired_counts(answers[places[row["checkpoint"]]], answers[reference])
        numbered = [row | {"alpha": row["candidate"]} for row in measured if row["candidate"] is not None]
        names = [task.name for task in plan.patching.each]
        return measured, sweep_frame(numbered, names, [task.name for task in plan.judges(split)])

    def _alpha(self, candidate: Candidate) -> float | None:
        """Return the alpha of a row: that of the recipe, and 0 for the start of a merge that has one."""
        if candidate.kind == MERGED:
            alpha = candidate.params.get("alpha")
            return None if alpha is None else float(alpha)
        return 0.0 if candidate.kind == START else None


def _keep_right(right: dict[str, NDArray[np.bool_]], answers: Predictions) -> None:
    right[answers.task.name] = answers.predicted == answers.labels
