"""Mix several ends of one start, a coefficient each: ``theta = theta_0 + sum_i alpha_i (theta_i - theta_0)`` (PAINT section 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from wisepatch.analysis.coefficients import (
    PACKAGE,
    Candidate,
    can_be_searched,
    equal,
    grid,
    in_order,
    missing_package,
    scores,
    searched,
)
from wisepatch.analysis.selection import Rule
from wisepatch.analysis.sweep_frame import sweep_frame
from wisepatch.config import ModelConfig
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.hookspecs import Choice
from wisepatch.process_group import on_main
from wisepatch.progress import QuietNotes, Silent
from wisepatch.store.checkpoints import Checkpoint, Recipe
from wisepatch.training.finetuning import Finetuned
from wisepatch.training.start import checkpoint_prefix
from wisepatch.workflows.mixes import chosen_by
from wisepatch.workflows.patch_job import PatchJob
from wisepatch.workflows.sweep import Sweep, measure_mixes, name_of_start, zeroshot_below
from wisepatch.workflows.sweep_plan import TEST, SweepPlan

EQUAL, GRID, SEARCH = CANDIDATES = ("equal", "grid", "search")
EVALUATIONS = 100  # of a search, unless told otherwise
METHOD = "task-arithmetic"


@dataclass(frozen=True)
class Coefficients:
    """Say how the coefficients of the ends are found: ``equal``, on a ``grid``, or by a ``search`` of so many ``evaluations``."""

    how: str = EQUAL
    evaluations: int = EVALUATIONS

    @property
    def are_free(self) -> bool:
        """Tell whether the ends may have different ones."""
        return self.how != EQUAL


def coefficient_problems(asked: Coefficients, plan: SweepPlan) -> Iterator[WisepatchError]:
    """Yield why coefficients cannot be found as they are asked for."""
    ends = len(plan.patching.each)
    if asked.how == GRID:
        try:
            grid(plan.alphas, ends)
        except UsageError as error:
            yield error
    if asked.how == SEARCH:
        if find_spec(PACKAGE) is None:
            yield missing_package()
        least = len({*plan.alphas, 0.0}) + 1
        if asked.evaluations < least:
            yield UsageError(
                f"{asked.evaluations} evaluations are no search: it begins with the {least - 1} equal coefficients",
                f"give --evaluations {least} or more, or fewer with --alpha",
            )
    rule = plan.rule or Rule()
    if asked.are_free and rule.is_certified:
        yield UsageError(
            f"{rule} tests alphas in a fixed order, and {asked.how} coefficients have none",
            "leave @ and the confidence out, or use --coefficients equal",
        )
    elif asked.are_free and rule.name == "alpha":
        yield UsageError(
            f"{rule} names one alpha, and {asked.how} coefficients are several", "use --coefficients equal"
        )
    elif asked.how == SEARCH and not can_be_searched(rule):
        yield UsageError(
            f"a search cannot go by {rule.name}, for which a candidate alone has no score",
            "use best-mean, max-drop or weights",
        )
    if asked.are_free and plan.select_on == TEST:
        yield UsageError(
            f"{asked.how} coefficients would be fitted to test data", "choose on validation data: leave --select-on out"
        )


@dataclass(frozen=True)
class Mixer:
    """Makes the checkpoint of a candidate from the ends of one start."""

    job: PatchJob
    start: Checkpoint
    ends: tuple[Checkpoint, ...]

    def mix(self, candidate: Candidate) -> Checkpoint:
        """Return the start or an end where the candidate is one, else save the recipe."""
        if not any(candidate):
            return self.start
        if sorted(candidate) == [0.0] * (len(candidate) - 1) + [1.0]:
            return self.ends[candidate.index(1.0)]
        words = ",".join(f"{alpha:g}" for alpha in candidate)
        name = f"alpha={candidate[0]!r}" if len(set(candidate)) == 1 else f"alphas={words}"
        return self._save("interpolated", f"parallel-{name}", candidate, {})

    def patched(self, candidate: Candidate, asked: Coefficients) -> Checkpoint:
        """Save the patched model, with how its coefficients were found."""
        found = {"found": asked.how} | ({"evaluations": asked.evaluations} if asked.how == SEARCH else {})
        each = dict(zip(self.tasks, candidate, strict=True))
        return self._save("patched", "patched", candidate, chosen_by(self.job.plan) | {"coefficients": each, **found})

    @property
    def tasks(self) -> list[str]:
        """Return the words of the tasks in the order of their ends."""
        return [each.base_spec for each in self.job.plan.patching.each]

    def _save(self, kind: str, name: str, candidate: Candidate, config: dict[str, Any]) -> Checkpoint:
        one = len(set(candidate)) == 1
        params = {"alpha": candidate[0]} if one else {"alphas": list(candidate)}
        recipe = Recipe(METHOD, (self.start.id, *(end.id for end in self.ends)), params)
        prefix, patching = checkpoint_prefix(ModelConfig.from_json(self.start.model)), self.job.plan.patching
        # A candidate names no rule: another one measures nothing anew.
        several = {"task": patching.base_spec, "tasks": self.tasks, "strategy": self.job.plan.strategy}
        return self.job.run.store.save(
            None, kind=kind, name=f"{prefix}/{patching.name}/{name}", model=self.ends[0].model,
            training=self.ends[0].training, recipe=recipe, config=self.ends[0].config | several | config,
        )  # fmt: skip


def run_parallel(job: PatchJob, asked: Coefficients, runs: Sequence[Finetuned]) -> Sweep:
    """Choose a coefficient for each end by validation data, and store the patched model.

    Equal coefficients are a sweep over alpha. Of a grid or a search, equal coefficients, the ends and the choice see test data.
    """
    plan, run = job.plan, job.run
    start, ends = runs[0].zeroshot, tuple(run.finetuned for run in runs)
    mixer, number = Mixer(job, start, ends), len(runs)
    line = {"training": ends[0].training, "method": METHOD, "start": name_of_start(run.store, start)}
    published = zeroshot_below(run.store, start)
    if asked.how == SEARCH:  # its answers are recalled
        run = replace(run, progress=QuietNotes(run.progress or Silent()))
    options: dict[str, Any] = {}
    if not asked.are_free:
        candidates = {alpha: (alpha,) * number for alpha in plan.alphas}
    elif asked.how == GRID:
        candidates = in_order(grid(plan.alphas, number))
    else:
        candidates = in_order(search(mixer, asked.evaluations, published))
    mixes = on_main(lambda: {key: mixer.mix(candidate) for key, candidate in candidates.items()})
    if asked.are_free:
        options = {
            "coefficients": candidates,
            "reported": {key for key, each in candidates.items() if len(set(each)) == 1 or mixes[key] in ends},
        }  # fmt: skip

    def save(choice: Choice) -> Checkpoint:
        return mixer.patched(candidates[choice.alpha], asked)

    return measure_mixes(plan, mixes, published, line, save, run, **options)


def search(mixer: Mixer, evaluations: int, published: Sequence[Checkpoint]) -> list[Candidate]:
    """Return the candidates of a search on the data of the choice, at most so many, measured round by round in one pass each.

    It begins with equal coefficients, goes on around the best of them, and is never worse than they are on this data.
    """
    job = mixer.job
    plan, ends = job.plan, len(mixer.ends)
    rule = plan.rule or Rule()

    def measure(asked: Sequence[Candidate]) -> Mapping[Candidate, float]:
        zero = (0.0,) * ends  # what a drop is measured from
        by_key = dict(enumerate(dict.fromkeys([zero, *asked])))
        mixes = on_main(lambda: {key: mixer.mix(each) for key, each in by_key.items()})
        key_of = {mix.id: float(key) for key, mix in mixes.items()}
        rows = job.run.measure(
            [*mixes.values(), *published], plan.tasks_on(plan.select_on), plan.select_on, plan.metrics, notes=False,
            extra_fields=lambda mix, _: {"alpha": key_of.get(mix.id)},
        )  # fmt: skip
        patched, judges = (
            [each.name for each in plan.patching.each],
            [each.name for each in plan.judges(plan.select_on)],
        )
        of_round = scores(sweep_frame(rows, patched, judges), rule)
        return {each: float(of_round[float(key)]) for key, each in by_key.items()}

    known = searched(measure, equal(sorted({0.0, *plan.alphas}), ends), evaluations, job.config.seed)
    if job.run.progress:
        job.run.progress.note(f"search: {len(known)} candidates measured, of {evaluations}")
    return list(known)
