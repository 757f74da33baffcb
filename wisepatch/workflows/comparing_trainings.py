"""Compare ways to fine-tune after mixing: from the same start and seeds, measured in one pass, paired image by image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from wisepatch.alphas import AUTO
from wisepatch.analysis.seeds import SeedsDifference, paired_over_seeds
from wisepatch.analysis.selection import Rule
from wisepatch.config import EvalConfig, ModelConfig, listed
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.evaluation.prediction import Predictions
from wisepatch.files import expanded
from wisepatch.process_group import on_main
from wisepatch.progress import Progress, Silent
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.task_roles import RunTasks
from wisepatch.train_config import TrainConfig
from wisepatch.training.finetuning import Finetuned
from wisepatch.weights.parameters import LAYERS
from wisepatch.workflows.layers import layer_problems, layer_scales
from wisepatch.workflows.mixes import save_mixes
from wisepatch.workflows.patch_job import finetune_on
from wisepatch.workflows.patching import training_problems, training_splits
from wisepatch.workflows.run import Run, new_run
from wisepatch.workflows.sweep import Sweep, run_sweep
from wisepatch.workflows.sweep_plan import TOP1, VAL, SweepPlan, plan_sweep

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingWay:
    """One way to fine-tune, by its name: a training and a sweep for each seed; ``right`` has the chosen mixes' answers.

    ``right`` ``(seeds, n)`` tells of each test image of the patching task whether the mix of a seed has it right. ``against`` is
    the difference from the first way, ``None`` of that one itself, with the p-value adjusted over the ways.
    """

    name: str
    runs: tuple[Finetuned, ...]
    sweeps: tuple[Sweep, ...]
    right: NDArray[np.bool_]
    against: SeedsDifference | None = None

    @cached_property
    def alphas(self) -> tuple[float, ...]:
        """Return the alpha that was chosen for each seed."""
        return tuple(each.choice.alpha for each in self.sweeps if each.choice)

    @property
    def reaches_the_end(self) -> bool:
        """Tell whether alpha 1, the fine-tuned model, was measured for each seed."""
        return all(1.0 in each.checkpoints for each in self.sweeps)

    def accuracies(self, alpha: float | None = None) -> tuple[list[float], list[float]]:
        """Return test accuracies on the patching task, and supported means, seed by seed: at ``alpha``, or the chosen one."""
        at = [self.alphas[number] if alpha is None else alpha for number in range(len(self.sweeps))]
        points = [each.at("test", a) for each, a in zip(self.sweeps, at, strict=True)]
        supported = [point.supported for point in points if point.supported is not None]
        return [point.patching for point in points], supported

    def record(self) -> dict[str, Any]:
        """Return the row of the table as JSON types; of one seed the deviations are missing."""
        row: dict[str, Any] = {"objective": self.name, "seeds": len(self.sweeps), "alphas": list(self.alphas)}
        row["runs"] = [each.run for each in self.sweeps]
        ends = [("_finetuned", 1.0)] if self.reaches_the_end else []
        for when, alpha in (("", None), *ends):
            for what, values in zip(("patching", "supported"), self.accuracies(alpha), strict=True):
                row[f"{what}{when}"] = mean(values) if values else None
                row[f"{what}{when}_sd"] = stdev(values) if len(values) > 1 else None
        return row | {"against_first": asdict(self.against) if self.against else None}


def compare_trainings(
    ways: Mapping[str, TrainConfig],
    model: ModelConfig,
    store: Store,
    data: Path | str,
    *,
    tasks: RunTasks | None = None,
    seeds: Sequence[int] | int | None = None,
    alphas: Sequence[float] | float | str | None = None,
    rule: Rule | str | None = None,
    select_on: str = VAL,
    layers: Sequence[str] = (),
    settings: EvalConfig | None = None,
    run_name: str = "",
    fresh: bool = False,
    problems: Sequence[WisepatchError] = (),
    progress: Progress | None = None,
) -> list[TrainingWay]:
    """Fine-tune in each of the ``ways`` once a seed, sweep alpha, and choose it by ``rule`` (best-mean unless told otherwise).

    ``layers`` add rows: mixes of the first way's trainings whose blocks are scaled, as ``interpolate`` scales them (``lines``).
    All are of one task and one start. Seeds are those of the settings unless given. Mixes of all trainings are measured in one pass
    over the images of a split. The test accuracy on the patching task is compared with that of the first way: paired image by
    image, each image's mean over seeds, p-values after Holm. Raises all that is missing, in any of the ways, before the first step.
    """
    data, progress = expanded(data), progress or Silent()
    first = next(iter(ways.values()))
    tasks = tasks or RunTasks.of(first)
    plans = {
        word: plan_sweep(
            tasks.patching, tasks.supported, alphas=alphas, rule=rule or Rule(), select_on=select_on, layers=word
        )
        for word in ("", *listed(layers))
    }
    met = [*problems, *_mismatched(ways, plans[""], alphas), *_problems(ways, tasks, plans.values(), data)]
    read = [each for config in ways.values() for each in training_splits(tasks, config)]
    plans[""].check(data, read, met, store=store)
    settings, runs = settings or first.evaluation, dict[str, list[Finetuned]]()
    prefix = f"{run_name}: " if run_name else ""
    for name, config in ways.items():
        for seed in (first.seed,) if seeds is None else listed(seeds):
            progress.note(f"{name}, seed {seed}")
            one = replace(config, seed=seed)
            runs.setdefault(name, []).append(
                finetune_on(one, model, store, data, progress, tasks, prefix + name, fresh=fresh)
            )
    start = next(iter(ways))
    lines = [(name, each, plans[""]) for name, each in runs.items()]
    lines += [(f"{start}, layers {word}", runs[start], plan) for word, plan in plans.items() if word]
    right = _answers(lines, Run(store, data, new_run("patch"), run_name, settings, progress))
    found = []
    for name, of_way, plan in lines:
        sweeps = [
            run_sweep(plan, run.finetuned, Run(store, data, new_run("patch"), prefix + name, settings))
            for run in of_way
        ]
        chosen = [each.checkpoints[each.choice.alpha].id for each in sweeps if each.choice]
        found.append(TrainingWay(name, tuple(of_way), tuple(sweeps), _stacked([right[each] for each in chosen])))
    return _against_the_first(found)


def _problems(
    ways: Mapping[str, TrainConfig], tasks: RunTasks, plans: Iterable[SweepPlan], data: Path
) -> Iterator[WisepatchError]:
    """Yield what keeps scales of layers from being found, and a way from being trained; of several ways each is named."""
    for plan in plans:
        yield from layer_problems(plan)
    for name, config in ways.items():
        for problem in training_problems(tasks, config, data):
            if len(ways) > 1:
                problem.message = f"{name}: {problem.message}"
                problem.args = (problem.message,)
            yield problem


def _mismatched(ways: Mapping[str, TrainConfig], plan: SweepPlan, alphas: Any) -> list[UsageError]:
    """Return why ways cannot be compared."""
    found = []
    if alphas == AUTO or list(listed(alphas or ())) == [AUTO]:
        reason = "--alpha auto leaves other alphas for each training, and ways to train are compared at the same ones"
        found.append(UsageError(reason, "name the alphas, such as 0:1:0.1"))
    for name in ("task", "supported", "start", "limit"):
        if len({getattr(config, name) for config in ways.values()}) > 1:
            found.append(
                UsageError(f"the ways to train differ in {name}", "compare ways from one start, on the same tasks")
            )
    if plan.patching.dataset.metric != TOP1:
        reason = f"ways to train are compared by what is right image by image, and {plan.patching.name} by"
        found.append(UsageError(f"{reason} {plan.patching.dataset.metric}", "fine-tune in one way at a time"))
    return found


def _answers(lines: Sequence[tuple[str, Sequence[Finetuned], SweepPlan]], run: Run) -> dict[str, NDArray[np.bool_]]:
    """Measure the mixes of all lines (name, trainings, plan) in one pass a split.

    Return by checkpoint which test images of the patching task are right. The sweeps recall what is answered here.
    """
    mixes: dict[str, Checkpoint] = {}
    plan = lines[0][2]
    for _, runs, own in lines:
        for end in (each.finetuned for each in runs):
            (start,) = run.store.parents(end)
            params = {LAYERS: layer_scales(own, end, run)} if own.layers else {}
            saved = on_main(partial(save_mixes, run.store, start, end, own, params))
            mixes |= {mix.id: mix for mix in saved.values()}
    right: dict[str, NDArray[np.bool_]] = {}

    def keep(answers: Predictions) -> None:
        if answers.task.name == plan.patching.name:
            found = answers.predicted == answers.labels
            right.update(zip(mixes, found, strict=True))

    for split in plan.splits:  # the last is the test data
        run.measure(list(mixes.values()), plan.tasks_on(split), split, watch=keep)
    return right


def _stacked(rows: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    import numpy as np

    return np.stack(list(rows))


def _against_the_first(ways: Sequence[TrainingWay]) -> list[TrainingWay]:
    from wisepatch.analysis.paired import holm

    first, *others = ways
    differences = [paired_over_seeds(first.right, each.right) for each in others]
    adjusted = holm([each.p for each in differences])
    return [
        first,
        *(
            replace(way, against=replace(difference, p=float(p)))
            for way, difference, p in zip(others, differences, adjusted, strict=True)
        ),
    ]
