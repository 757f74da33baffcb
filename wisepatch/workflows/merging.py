"""Merge several checkpoints into one by a method: candidates from its parameters, measured in one pass, one of them chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from wisepatch.analysis.selection import Rule, check_without_order, choose_candidate, parse_rule
from wisepatch.analysis.sweep_frame import PATCHING, SUPPORTED, Point, sweep_frame
from wisepatch.config import EvalConfig, listed
from wisepatch.errors import UsageError
from wisepatch.evaluation.output_ensembles import SPACES, WEIGHTS
from wisepatch.files import expanded
from wisepatch.hookspecs import Choice, MergeMethod
from wisepatch.plugins import find_merge_method, find_metric
from wisepatch.process_group import on_main
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.tasks import Task
from wisepatch.weights.parameters import label
from wisepatch.workflows.choosing import Measured, RightAnswers, measure_and_choose
from wisepatch.workflows.merge_candidates import MERGED, Candidate, Candidates, candidate_params
from wisepatch.workflows.merge_parents import Parents, merge_parents, own_task, tasks_of, with_information
from wisepatch.workflows.preflight import preflight
from wisepatch.workflows.run import Run, new_run
from wisepatch.workflows.sweep_plan import VAL, SweepPlan


@dataclass(frozen=True)
class Merged:
    """Hold what a merge has measured: candidates, rows as written, the points of each split by number, and what was chosen."""

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
    materialize: bool = False,
    limit: int | None = None,
    run: str | None = None,
    run_name: str = "",
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Merge checkpoints by ``method`` with each combination of ``params`` (``"scale=0:1:0.1"``), and measure all in one pass.

    Methods of task vectors need the start that all ends were trained from, which is found or named as ``start``. ``layers`` scales
    what is added to it: ``0.2:1`` from the first block to the last, or ``NAME=SCALE``. With ``rule`` a candidate is chosen on
    the ``val`` splits and stored as ``run_name``: as a recipe, which is merged each time it is loaded, or as weights with
    ``materialize``. The start, the ends and the choice see the ``test`` splits then. ``tasks`` are measured besides those that the
    ends were trained on, by default the supported ones of their runs. ``space="output"`` measures ensembles of logits and of
    probabilities too, of which no checkpoint comes. Without ``measure`` the merge is only stored.

    Raises all that is missing before any work: :class:`StoreError` for ends that do not fit together, :class:`UsageError`.
    """
    data, own = expanded(data), find_merge_method(method)
    found = [store.find(each) if isinstance(each, str) else each for each in listed(checkpoints)]
    parents = merge_parents(store, own, found, start)
    grid = candidate_params(own, parents, params, layers)
    rule = parse_rule(rule) if isinstance(rule, str) else rule
    _check_choice(rule, len(grid), space, measure=measure)
    reads = own.needs_fisher or own.needs_grams
    train = [(own_task(own, end, limit), ["train"]) for end in parents.ends] if reads else []
    plan: SweepPlan | None = None
    if measure:
        patching, others = tasks_of(parents.ends, tasks, limit)
        plan = merge_plan(own, parents, grid, patching, others, rule, select_on, listed(metrics))
        plan.check(data, train, store=store)
    else:
        preflight([], data, read=train, store=store)
    grid = with_information(own, parents, grid, store, data, limit=limit, settings=settings, progress=progress)
    candidates, run = Candidates(store, own, parents, run_name, materialize), run or new_run("merge")
    if plan:
        return MergeJob(candidates, Run(store, data, run, run_name, settings, progress)).measure(plan, grid, space)
    merged = on_main(partial(candidates.save, MERGED, grid[0]))
    return Merged(run, method, (), (), (Candidate(1, MERGED, label(grid[0]), merged, grid[0]),), [], {}, chosen=merged)


def _check_choice(rule: Rule | None, candidates: int, space: str, *, measure: bool) -> None:
    """Raise :class:`UsageError` where so many candidates cannot be measured, or chosen from, as it is asked for."""
    if space not in SPACES:
        raise UsageError(f"there is no space {space!r}", f"--space takes {' or '.join(SPACES)}")
    if rule:
        check_without_order(rule)
    if not measure and (rule or candidates > 1):
        raise UsageError(
            f"{'a choice' if rule else f'{candidates} candidates'} cannot go without measurements",
            "leave --no-eval out" if rule else "leave --no-eval out, or give each parameter one value",
        )


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
    """A merge that was checked: what is merged and where it is stored, and the run that measures it."""

    candidates: Candidates
    run: Run

    def measure(self, plan: SweepPlan, grid: Sequence[Mapping[str, Any]], space: str) -> Merged:
        """Measure all candidates in one pass a split, choose one as planned, store it, and record all rows."""
        final = len(grid) == 1 and plan.rule is None
        every = on_main(partial(self.candidates.all, grid, space, final=final))
        by_number = {each.number: each for each in every}

        def measure(split: str, choice: Choice | None) -> Measured:
            shown = [each for each in every if choice is None or each.kind != MERGED or each.number == choice.alpha]
            return self.measure_on(plan, split, shown)

        def save(choice: Choice) -> Checkpoint:
            picked = by_number[int(choice.alpha)]
            selected = {"select": str(plan.rule), "select_on": plan.select_on}
            return self.candidates.save(MERGED, picked.params, selected) if picked.kind == MERGED else picked.checkpoint

        chosen = measure_and_choose(plan, self.run.store, measure, choose_candidate, save, lambda row: row["candidate"])
        return Merged(
            self.run.id, self.candidates.method.name, *names_of(plan), tuple(every), chosen.rows, chosen.points,
            plan.rule, plan.select_on if plan.rule else None, by_number[int(chosen.choice.alpha)] if chosen.choice else None,
            by_number[1].checkpoint if final else chosen.checkpoint,
        )  # fmt: skip

    def measure_on(self, plan: SweepPlan, split: str, shown: Sequence[Candidate]) -> Measured:
        """Measure candidates on a split; return the rows, and the frame of those that are numbered."""
        by_id = {each.checkpoint.id: each for each in reversed(shown)}
        unique = list({each.checkpoint.id: each.checkpoint for each in shown}.values())
        right = RightAnswers()

        def fields(checkpoint: Checkpoint, task: Task) -> dict[str, Any]:
            own = by_id[checkpoint.id]
            role = PATCHING if task in plan.patching.each else SUPPORTED
            # No sweep over alpha: no task is patched along it.
            return {"alpha": own.alpha, "candidate": own.number, "role": role, "patching": None}

        measured = self.run.measure(
            unique, plan.tasks_on(split), split, plan.metrics, extra_fields=fields, watch=right.keep
        )
        ids = [each.id for each in unique]
        start = next((ids.index(each.checkpoint.id) for each in shown if each.number == 0), None)
        counted = right.counted(measured, ids, start)
        numbered = [row | {"alpha": row["candidate"]} for row in counted if row["candidate"] is not None]
        names = [task.name for task in plan.patching.each]
        return counted, sweep_frame(numbered, names, [task.name for task in plan.judges(split)])


def names_of(plan: SweepPlan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the tasks that the ends were trained on, and of the others."""
    return tuple(task.name for task in plan.patching.each), tuple(task.name for task in plan.others)
