"""Patch several tasks (PAINT section 5): jointly, one after the other, or side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from wisepatch.errors import UsageError, WisepatchError
from wisepatch.task_roles import RunTasks, several_tasks
from wisepatch.tasks import Task
from wisepatch.train_config import TrainConfig
from wisepatch.training.finetuning import Finetuned
from wisepatch.training.start import check_trainable
from wisepatch.workflows.parallel_patching import (
    CANDIDATES,
    GRID,
    SEARCH,
    Coefficients,
    coefficient_problems,
    run_parallel,
)
from wisepatch.workflows.patch_job import PatchJob
from wisepatch.workflows.stored_trainings import held_end
from wisepatch.workflows.sweep import Sweep
from wisepatch.workflows.sweep_plan import JOINT, PARALLEL, SEQUENTIAL, STRATEGIES, SweepPlan

Done = tuple[tuple[Finetuned, ...], tuple[Sweep, ...]]


@dataclass(frozen=True)
class Strategy:
    """Say how several tasks are patched; ``coefficients`` are those of the ends of ``parallel``."""

    name: str = JOINT
    coefficients: Coefficients = field(default_factory=Coefficients)

    def of_a_training(self, config: TrainConfig) -> TrainConfig:
        """Return the settings to check a training by: ``joint`` trains on all tasks, the others on one at a time."""
        return config if self.name == JOINT else replace(config, tasks=())

    def problems(self, plan: SweepPlan, config: TrainConfig) -> Iterator[WisepatchError]:
        """Yield why the tasks cannot be patched in this way."""
        for task in plan.patching.each:
            try:
                check_trainable(self.of_a_training(config), replace(plan.patching, parts=(task,)))
            except WisepatchError as error:
                yield error
        if plan.method.needs_fisher or (self.name == PARALLEL and plan.method.name != "linear"):
            how = "by their task vectors, one coefficient each" if self.name == PARALLEL else "by --method linear"
            yield UsageError(f"{self.name} mixes {how}, and not by {plan.method.name}", "leave --method out")
        chooses = self.name == SEQUENTIAL or (self.name == PARALLEL and self.coefficients.are_free)
        if chooses and plan.rule and plan.others and not plan.judges(plan.select_on):
            names = ", ".join(task.name for task in plan.others)
            what = "alphas task after task" if self.name == SEQUENTIAL else f"{self.coefficients.how} coefficients"
            yield UsageError(
                f"{self.name} chooses {what} on {plan.select_on} data, and no supported task has any: {names}",
                "add a supported task that has a validation split, or use --strategy joint",
            )
        if self.name == PARALLEL:
            yield from coefficient_problems(self.coefficients, plan)

    def stages(
        self, config: TrainConfig, tasks: RunTasks, plan: SweepPlan
    ) -> list[tuple[TrainConfig, RunTasks, SweepPlan]]:
        """Return settings, tasks and sweep of each training, as a plan counts them; none where there is one training."""
        parts, number = tasks.patching.parts, len(tasks.patching.parts)
        if self.name == SEQUENTIAL:
            return [
                (
                    config_of(config, task, (*parts[:place], *tasks.supported), config.start),
                    RunTasks(task, (*parts[:place], *tasks.supported)),
                    replace(plan, patching=several_tasks(parts[: place + 1]), reports=place + 1 == number),
                )
                for place, task in enumerate(parts)
            ]  # fmt: skip
        if self.name != PARALLEL:
            return []
        counted = {GRID: len(plan.alphas) ** number, SEARCH: self.coefficients.evaluations}.get(
            self.coefficients.how, 0
        )
        last = replace(plan, candidates=counted, reported=len(plan.alphas) + number + 1 if counted else 0)
        return [
            (
                config_of(config, task, tasks.supported, config.start), RunTasks(task, tasks.supported),
                last if task is parts[-1] else replace(plan, alphas=()),
            )
            for task in parts
        ]  # fmt: skip

    def carry_out(self, job: PatchJob) -> Done:
        """Train and choose; return all trainings and sweeps, the one that chose the patched model last."""
        if self.name == SEQUENTIAL:
            return one_after_the_other(job)
        if self.name == PARALLEL:
            runs = tuple(held_or_trained(job, task) for task in job.tasks.patching.each)
            try:
                return runs, (run_parallel(job, self.coefficients, runs),)
            except BaseException as error:
                ends = ", ".join(run.finetuned.id for run in runs)
                error.add_note(f"the fine-tuned models are stored ({ends}); the same command goes on from them")
                raise
        finished = job.finetune()
        return (finished,), (job.sweep(finished),)


def strategy_for(
    patching: Task, strategy: str | None, coefficients: str | None, evaluations: int | None, balance: str = "examples"
) -> Strategy | None:
    """Return how the tasks are to be patched, ``joint`` unless told otherwise; ``None`` for one task.

    Raises :class:`UsageError` for an unknown strategy, and for settings of another one, or of several tasks where there is one.
    """
    if strategy is not None and strategy not in STRATEGIES:
        raise UsageError(f"there is no strategy {strategy!r}", f"strategies are {', '.join(STRATEGIES)}")
    if coefficients is not None and coefficients not in CANDIDATES:
        raise UsageError(f"there are no coefficients {coefficients!r}", f"they are {', '.join(CANDIDATES)}")
    name = strategy or JOINT
    given = {
        "--strategy": strategy is not None,
        "--balance": balance != "examples",
        "--coefficients": coefficients is not None,
        "--evaluations": evaluations is not None,
    }
    if not patching.parts:
        if named := next((option for option, there in given.items() if there), ""):
            raise UsageError(f"{named} is about several tasks, and there is one", "name more with --task A,B,C")
        return None
    needs = {"--balance": JOINT, "--coefficients": PARALLEL, "--evaluations": PARALLEL}
    for option, needed in needs.items():
        if given[option] and name != needed:
            raise UsageError(f"{option} is of --strategy {needed}, and this is {name}", f"leave {option} out")
    if evaluations is not None and coefficients != "search":
        raise UsageError("--evaluations counts those of a search", "add --coefficients search")
    chosen = Coefficients(coefficients or "equal")
    return Strategy(name, chosen if evaluations is None else replace(chosen, evaluations=evaluations))


def config_of(config: TrainConfig, task: Task, supported: tuple[Task, ...], start: str | None) -> TrainConfig:
    """Return the settings of a training on one of several tasks, as a patch of this task alone has them."""
    specs = tuple(each.spec for each in supported)
    return replace(config, task=task.spec, tasks=(), balance="examples", supported=specs, start=start)


def held_or_trained(job: PatchJob, task: Task) -> Finetuned:
    """Return the end of a task: the one that the store holds, or a new one; all ends have the same start."""
    config = config_of(job.config, task, job.tasks.supported, job.config.start)
    held = None if job.fresh else held_end(config, job.model, job.run.store, job.run.data, task)
    if held:
        if job.run.progress:
            end = held.finetuned
            job.run.progress.note(
                f"{task.name}: the store holds this end, {end.name} ({end.id}); --fresh trains it again"
            )
        return held
    others = tuple(each for each in job.tasks.patching.each if each is not task)
    return replace(job, config=config, tasks=RunTasks(task, (*job.tasks.supported, *others))).finetune()


def one_after_the_other(job: PatchJob) -> Done:
    """Patch task after task, each from the model patched before (PAINT section 5, sequential).

    After each the alpha is chosen on validation data of all tasks patched until then and of the supported ones, by the rule.
    A patch that stopped goes on: trainings resume, and what the store holds is neither trained nor measured again.
    """
    parts, start = job.tasks.patching.each, job.config.start
    # One false promise spoils all that is built on it.
    rule = job.plan.rule.shared_out(len(parts)) if job.plan.rule else None
    if rule != job.plan.rule and job.run.progress:
        job.run.progress.note(
            f"each of the {len(parts)} choices is made by {rule}, so that {job.plan.rule} holds of all together"
        )
    runs: list[Finetuned] = []
    sweeps: list[Sweep] = []
    for number, task in enumerate(parts, start=1):
        before, rest = parts[: number - 1], parts[number:]
        config = config_of(job.config, task, (*before, *job.tasks.supported), start)
        plan = replace(job.plan, rule=rule, patching=several_tasks(parts[:number]), reports=number == len(parts))
        tasks = RunTasks(task, (*before, *job.tasks.supported, *rest))
        if job.run.progress:
            job.run.progress.note(f"task {number} of {len(parts)}: {task.name}")
        stage = replace(job, config=config, tasks=tasks, plan=plan)
        try:
            runs.append(stage.finetune())
            sweeps.append(stage.sweep(runs[-1]))
        except BaseException as error:
            if sweeps and (patched := sweeps[-1].chosen):
                names = ", ".join(each.name for each in before)
                error.add_note(
                    f"the model patched on {names} is {patched.name} ({patched.id}); the same command goes on from it"
                )
            raise
        assert sweeps[-1].chosen is not None
        start = sweeps[-1].chosen.id
    return tuple(runs), tuple(sweeps)
