"""A sweep as it is asked for: which tasks on which splits, and whether alpha can be chosen as asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wisepatch.alphas import AUTO, DEFAULT_ALPHAS, GRID_ALPHAS, parse_alphas
from wisepatch.analysis.racing import can_be_raced
from wisepatch.analysis.selection import BEST_MEAN, Rule, missing_for_rule, parse_rule
from wisepatch.config import listed
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.hookspecs import MergeMethod
from wisepatch.plugins import find_merge_method, find_metric
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.task_roles import MEASURE_AFTERWARDS
from wisepatch.tasks import Task
from wisepatch.terminal import pasted
from wisepatch.weights.parameters import params_problem
from wisepatch.workflows.preflight import preflight

VAL, TEST = "val", "test"
TOP1 = "top1"
JOINT, SEQUENTIAL, PARALLEL = STRATEGIES = ("joint", "sequential", "parallel")  # for several tasks
LINEAR = "linear"
LEARNED = "learned"  # scales of blocks that are found on validation data
EVALUATIONS = 100  # of a search for them
LINES = "0.5:1"  # LiNeS of one end (Wang et al. 2025, arXiv 2410.17146): 1 - beta to 1, beta 0.5


@dataclass(frozen=True)
class SweepPlan:
    """A sweep as it is asked for, to be checked before anything is trained or measured."""

    patching: Task
    others: tuple[Task, ...]
    alphas: tuple[float, ...]
    method: MergeMethod
    rule: Rule | None
    select_on: str
    metrics: tuple[str, ...]
    auto: bool = False  # the alphas are a grid to be raced
    reports: bool = True  # test data; without it, only what the choice needs is measured
    strategy: str = ""  # how several tasks are patched
    also: tuple[Task, ...] = ()  # tasks that are measured at the end, and have no part in the choice
    layers: str = ""  # scales of blocks: learned, or 0.2:1 from the first to the last, or NAME=SCALE
    evaluations: int = EVALUATIONS  # of mixes, to learn them
    candidates: int = 0  # where coefficients are chosen, their number, and that of the mixes on test data
    reported: int = 0

    def judges(self, split: str) -> list[Task]:
        """Return the supported tasks that are measured on ``split``."""
        return self.tasks_on(split)[len(self.patching.each) :]

    def mixes_on(self, split: str) -> int:
        """Return how many mixes are measured on ``split``."""
        return (self.candidates if split == self.select_on else self.reported) or len(self.alphas)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits to measure: with a rule, test data once and after the choice, unless the choice is made on it."""
        if not self.alphas:
            return ()
        return ((VAL, TEST) if self.reports else (VAL,)) if self.rule and self.select_on == VAL else (TEST,)

    def tasks_on(self, split: str) -> list[Task]:
        """Return the tasks that are measured on ``split``, those that are patched first."""
        return [
            task for task, splits in self.task_splits().items() if split in splits or (task.split and split == TEST)
        ]

    def task_splits(self) -> Mapping[Task, list[str]]:
        """Return the splits that each task is measured on: those that are patched on all, others on those that they have."""
        on = {task: list(self.splits) for task in self.patching.each}
        for task in self.others:
            available = [split for split in self.splits if split in task.dataset.available_splits]
            on[task] = [task.split] if task.split else available or [self.splits[-1]]
        return on

    def command(
        self, finetuned: Checkpoint, store: Store, data: Path, *, fisher_examples: int, run_name: str, precision: str
    ) -> str:
        """Return the command that carries out this plan for a fine-tuned checkpoint, with every option that decides its results."""
        options = {
            "--checkpoint": finetuned.id,
            "--alpha": AUTO if self.auto else ",".join(f"{alpha!r}" for alpha in self.alphas),
            "--method": self.method.name,
            "--layers": self.layers,
            "--evaluations": str(self.evaluations) if self.layers == LEARNED else "",
            "--fisher-examples": str(fisher_examples) if self.method.needs_fisher else "",
            "--select": str(self.rule) if self.rule else "",
            "--select-on": self.select_on,
            "--metric": ",".join(self.metrics),
            "--limit": str(self.patching.each[0].dataset.limit or ""),
            "--mixed-precision": precision,
            "--name": run_name,
            "--store": str(store.root),
            "--data": str(data) if data.is_dir() else "",  # a folder that is named must be there
        }
        return pasted(["wisepatch", "interpolate", *(f"{key}={value}" for key, value in options.items() if value)])

    def check(
        self,
        data: Path,
        training: Iterable[tuple[Task, Iterable[str]]] = (),
        problems: Iterable[WisepatchError] = (),
        *,
        store: Store | None = None,
        measured_fisher: bool = True,
    ) -> None:
        """Open all data, that of ``training`` first, and raise all problems at once, as :func:`preflight` does.

        Fisher information is measured on training images, unless it is given (``measured_fisher``).
        """
        fisher = [(self.patching, ["train"])] if self.method.needs_fisher and measured_fisher else []
        problems = [*self._problems(), *problems]
        measured = [*self.task_splits().items(), *((task, [task.split or TEST]) for task in self.also)]
        preflight(measured, data, self.metrics, problems, read=[*training, *fisher], store=store)

    def _problems(self) -> Iterator[UsageError]:
        """Yield why alpha cannot be chosen as it is asked for."""
        if self.select_on not in (VAL, TEST):
            yield UsageError(
                f"alpha is selected on val or test, not {self.select_on!r}", "--select-on takes val or test"
            )
        for task in (*self.patching.each, *(self.others if self.rule else ())):
            if task.split:
                hint = f"write {task.name}: its splits are used as needed"
                if task.is_own_split:
                    hint = MEASURE_AFTERWARDS.format(task.spec)
                    hint += f", or at once with patch --also {task.spec}" if task in self.others else ""
                yield UsageError(f"{task.spec} names a split, and alpha is to be chosen on {self.select_on}", hint)
        if self.auto:
            yield from self._auto_problems()
        if not self.rule:
            if self.select_on == TEST:
                yield UsageError("without --select no alpha is chosen, on test data or any", "add --select best-mean")
            return
        judges = self.judges(self.select_on)
        patched = [task.name for task in self.patching.each]
        missing = missing_for_rule(self.rule, self.alphas, patched, [task.name for task in judges])
        if missing and self.others and not judges:
            names = ", ".join(task.name for task in self.others)
            missing = (
                f"{self.rule.name} needs a supported task with a {self.select_on} split, and there is none: {names}"
            )
        if missing:
            yield UsageError(missing, "add what is missing, or use --select best-mean")
        if self.rule.is_certified:
            yield from self._unpaired(
                judges, f"{self.rule} certifies", "leave @ and the confidence out, or give --metric top1"
            )

    def _auto_problems(self) -> Iterator[UsageError]:
        """Yield why alphas cannot be raced."""
        if not self.rule:
            yield UsageError("--alpha auto races alphas by a rule, and there is none", f"add --select {BEST_MEAN}")
            return
        judges = self.judges(self.select_on)
        if self.patching.parts:
            yield UsageError("--alpha auto races alphas of one patching task", "name the alphas, such as 0:1:0.05")
        if self.rule.is_certified:
            yield UsageError(
                f"--alpha auto looks at alphas that depend on the answers, and {self.rule} tests alphas in a fixed order",
                "name the alphas, such as 0:1:0.05, or leave @ and the confidence out",
            )
        elif not can_be_raced(self.rule):
            yield UsageError(
                f"--alpha auto cannot race by {self.rule.name}",
                "use best-mean, max-drop or weights, or name the alphas",
            )
        yield from self._unpaired(
            [*self.patching.each, *judges], "--alpha auto compares", "name the alphas, or give --metric top1"
        )

    def _unpaired(self, tasks: Iterable[Task], what: str, hint: str) -> Iterator[UsageError]:
        """Yield which tasks have no accuracy that is a fraction of images, answer by answer."""
        for task in tasks:
            metric = (*self.metrics, task.dataset.metric)[0]
            if metric != TOP1:
                yield UsageError(
                    f"{what} what is right or wrong image by image, and {task.name} is measured by {metric}", hint
                )


def plan_sweep(
    patching: Task,
    others: Sequence[Task],
    *,
    alphas: Sequence[float] | float | str | None = None,
    method: str = "linear",
    rule: Rule | str | None = None,
    select_on: str = VAL,
    metrics: Sequence[str] | str = (),
    layers: str = "",
    evaluations: int | None = None,
) -> SweepPlan:
    """Look everything up by name. Raises :class:`UnknownNameError` for an unknown merge method or metric."""
    words = [DEFAULT_ALPHAS] if alphas is None else [str(each) for each in listed(alphas)]
    rule, metrics = parse_rule(rule) if isinstance(rule, str) else rule, listed(metrics)
    if not words:
        raise UsageError("there are no alphas", "give at least one, such as 0:1:0.1")
    auto = words == [AUTO]
    values = parse_alphas(GRID_ALPHAS if auto else words)
    for metric in metrics:
        find_metric(metric)
    found = find_merge_method(method)
    if found.parameters and params_problem(found, 2, {"alpha": 0.5}):
        raise UsageError(
            f"{method} has other parameters than alpha, and a sweep over alpha mixes two models",
            f"use `wisepatch merge --method {method}`",
        )
    if layers and (found.name != LINEAR or auto):
        raise UsageError(
            "--layers scales the blocks of linear mixes at alphas that are named",
            "leave --method out, and name the alphas, such as 0:1:0.1",
        )
    if evaluations is not None and layers != LEARNED:
        raise UsageError("--evaluations counts those of a search", f"add --layers {LEARNED}")
    return SweepPlan(
        patching,
        tuple(others),
        values,
        found,
        rule,
        select_on,
        tuple(metrics),
        auto,
        layers=LINES if layers == "lines" else layers,
        evaluations=EVALUATIONS if evaluations is None else evaluations,
    )
