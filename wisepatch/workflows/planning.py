"""Plan a patch (``patch --plan``): what will be read, computed and kept, by a short measurement; nothing is trained."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wisepatch.config import EvalConfig, ModelConfig
from wisepatch.datasets.prompts import prompts
from wisepatch.datasets.samples import Split
from wisepatch.datasets.training_batches import Plan
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.files import expanded
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import Clip, load_clip
from wisepatch.models.zeroshot_head import head_key, mean_text_head
from wisepatch.plugins import find_objective
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import size
from wisepatch.store.checkpoints import Store
from wisepatch.store.recipes import load_weights
from wisepatch.task_roles import RunTasks
from wisepatch.tasks import Task
from wisepatch.train_config import TrainConfig
from wisepatch.training.rates import Images, measure_rates
from wisepatch.training.resume import room_for_training
from wisepatch.training.start import check_trainable, head_of
from wisepatch.training.unlabelled import open_unlabelled
from wisepatch.workflows.patching import training_problems, training_splits
from wisepatch.workflows.several_tasks import Strategy
from wisepatch.workflows.sweep_plan import TEST, SweepPlan

IMAGES_READ = 16  # of each split, to see how long one takes
TEXTS_ENCODED = 64  # of each head
IN_TRAINING, UNLABELLED = "validation in training", "training, unlabelled"
ROW_BYTES, ANSWER_BYTES = 500, 24  # of a result, and of an image in the predictions, as they were measured


@dataclass(frozen=True)
class Reading:
    """A split that will be read: for what, how many images, how often each is computed, seconds to read one."""

    task: str
    split: str
    purpose: str
    images: int
    passes: int
    seconds: float


@dataclass(frozen=True)
class PatchPlan:
    """Hold what a patch will take. Seconds and bytes are estimates from a short measurement on this machine, of one process.

    Seconds are those of images and of the texts of heads, which a trained text tower encodes anew at every alpha.
    ``memory`` is the training's (weights, gradients, moments, activations), ``disk`` what the store will grow by at most
    meanwhile, ``kept`` what stays.
    """

    readings: tuple[Reading, ...]
    steps: int
    batch_size: int
    epochs: float
    train_seconds: float
    eval_seconds: float
    memory: int
    disk: int
    kept: int
    free: int
    mixes: int

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return asdict(self)


def plan_patch(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path | str,
    sweep: SweepPlan,
    *,
    tasks: RunTasks,
    settings: EvalConfig | None = None,
    asked: Strategy | None = None,
    problems: Iterable[WisepatchError] = (),
    progress: Progress | None = None,
) -> PatchPlan:
    """Check all data as :func:`~wisepatch.workflows.patching.patch` does, then measure reading, a training step and evaluation.

    Of several tasks, patched as ``asked``, all trainings count, also of ends that the store may hold.
    Weights stay as they are; nothing is written but the head's cache. Raises all that is missing at once.
    """
    if size() > 1:
        raise UsageError("--plan measures in one process", "leave --processes and the launcher out")
    progress, data, settings = progress or Silent(), expanded(data), settings or config.evaluation
    trained = asked.of_a_training(config) if asked else config
    problems = [*problems, *training_problems(tasks, trained, data), *(asked.problems(sweep, config) if asked else ())]
    sweep.check(data, training_splits(tasks, config), problems, store=store)
    check_trainable(trained, tasks.patching)
    stages = (asked.stages(config, tasks, sweep) if asked else []) or [(config, tasks, sweep)]
    models = len(stages) + 2  # that are measured at the end: the start, each end, and what is chosen
    plans = [
        _plan_training(each, model, store, data, replace(part, also=sweep.also if last else ()), of, settings, models, progress)
        for each, of, part, last in ((*stage, stage is stages[-1]) for stage in stages)
    ]  # fmt: skip
    return _sum(plans)


def _plan_training(
    config: TrainConfig,
    model: ModelConfig,
    store: Store,
    data: Path,
    sweep: SweepPlan,
    tasks: RunTasks,
    settings: EvalConfig,
    models: int,
    progress: Progress,
) -> PatchPlan:
    """Measure reading, a training step and evaluation of one training and its sweep, which were checked."""
    progress.start(f"measuring {model}", 2)
    weights = load_weights(store, store.find(config.start)) if config.start else None
    clip = load_clip(ModelConfig.from_json(store.find(config.start).model) if config.start else model, weights)
    dataset = tasks.patching.dataset
    classifier = Classifier(clip.model.visual, head_of(clip, tasks.patching, store, progress.note))
    progress.advance()
    train = dataset.split("train", data, clip.train_pixels)
    batches = Plan(len(train), config.batch_size, config.seed).batches_per_epoch
    per_epoch = math.ceil(batches / config.grad_accumulation)
    steps = config.steps if config.steps is not None else max(round((config.epochs or 0) * per_epoch), 1)
    unlabelled = open_unlabelled(config.distill_on, data, clip.train_pixels) if config.distill_on else None
    rates = measure_rates(config, settings, clip, classifier, Images(train, unlabelled), tasks)
    progress.advance()
    progress.finish()
    images_seen = steps * config.grad_accumulation * min(config.batch_size, len(train))
    swept = _sweeps(sweep, clip, data)
    besides = [_reading(task, task.split or TEST, "the end", models, clip, data) for task in sweep.also]
    computed = [*swept, *besides]
    readings = [*_trainings(config, tasks, clip, data, steps / per_epoch, images_seen), *computed]
    during = [each for each in readings if each.purpose == IN_TRAINING]
    of_training = [each for each in readings if each.purpose == "training"]
    reading = sum(each.seconds * each.images for each in of_training) / sum(each.images for each in of_training)
    beside = sum(each.seconds for each in readings if each.purpose == UNLABELLED)
    train_seconds = rates.preparation
    if rates.needs_features:
        train_seconds += len(train) * (rates.forward + reading)
    if not config.freeze_encoder:
        train_seconds += images_seen * (rates.step + reading + beside)
    train_seconds += sum(each.passes * each.images * (rates.forward + each.seconds) for each in during)
    named = {task.name: task for task in (*tasks.patching.each, *sweep.patching.each, *sweep.others, *sweep.also)}
    trains_text = find_objective(config.objective).trains_text
    if trains_text:
        train_seconds += text_seconds(during, named, clip, store, anew=True)
    eval_seconds = sum(each.images * (each.passes * rates.forward + each.seconds) for each in computed)
    eval_seconds += text_seconds(computed, named, clip, store, anew=trains_text)
    checkpoint, states = room_for_training(
        clip.model, rates.classifier, rates.trained, saves=0 < config.save_every < (config.steps or math.inf)
    )
    answers = sum(each.images * each.passes * ANSWER_BYTES for each in computed)
    kept = 2 * checkpoint + answers + sum(each.passes for each in computed) * ROW_BYTES
    return PatchPlan(
        tuple(readings), steps, config.batch_size, steps / per_epoch, train_seconds, eval_seconds, rates.memory, kept + states,
        kept, _free(store.root), sweep.mixes_on(sweep.select_on) if swept else 0,
    )  # fmt: skip


def _trainings(
    config: TrainConfig, tasks: RunTasks, clip: Clip, data: Path, epochs: float, images_seen: int
) -> list[Reading]:
    """List what the training reads: its images, unlabelled ones beside them, and validation images each ``eval_every`` epochs."""
    looks = math.floor(epochs / config.eval_every) if config.eval_every else 0
    patched = len(tasks.patching.each)
    watched = training_splits(tasks, config)[patched:]
    passes = 1 if config.freeze_encoder else math.ceil(epochs)
    listed = [_reading(task, "train", "training", passes, clip, data) for task in tasks.patching.each]
    if config.distill_on:
        others = open_unlabelled(config.distill_on, data, clip.pixels)
        listed.append(_measured(config.distill_on, others, UNLABELLED, math.ceil(images_seen / len(others))))
    return listed + [_reading(task, "val", IN_TRAINING, looks, clip, data) for task, _ in watched if looks]


def _sweeps(sweep: SweepPlan, clip: Clip, data: Path) -> list[Reading]:
    splits = [(task, split) for split in sweep.splits for task in sweep.tasks_on(split)]
    return [
        _reading(task, task.split or split, "the sweep", sweep.mixes_on(split), clip, data) for task, split in splits
    ]


def text_seconds(
    readings: Sequence[Reading], tasks: Mapping[str, Task], clip: Clip, store: Store, *, anew: bool
) -> float:
    """Estimate what the heads from text of ``tasks``, by name, take: those that the store does not hold, once.

    With ``anew``, where the text tower is trained, all of them, each time that images are computed: those of an alpha are the same
    on validation and on test data.
    """
    times: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
    for each in readings:
        dataset = tasks[each.task].dataset
        head = tuple(dataset.head_names), tuple(dataset.templates)
        times[head] = max(times.get(head, 0), each.passes)
    if not anew:
        times = {head: 1 for head in times if store.cache.find("heads", head_key(clip, *head)) is None}
    return sum(number * _seconds_of_head(clip, *head) for head, number in times.items())


def _seconds_of_head(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> float:
    """Encode some of the texts of a head, to see how long all of them take."""
    texts = list(dict.fromkeys(text for name in classes for text in prompts(name, templates)))
    some = texts[:: max(len(texts) // TEXTS_ENCODED, 1)][:TEXTS_ENCODED]
    mean_text_head(clip, [some[:1]])  # the first text also loads libraries
    began = time.perf_counter()
    mean_text_head(clip, [some])
    return (time.perf_counter() - began) * len(texts) / len(some)


def _sum(plans: Sequence[PatchPlan]) -> PatchPlan:
    """Add up the plans of several trainings: seconds, steps and bytes that stay; the memory is that of the largest."""
    first = plans[0]
    added = ("steps", "epochs", "train_seconds", "eval_seconds", "kept", "mixes")
    sums = {name: sum(getattr(each, name) for each in plans) for name in added}
    kept_before = sums["kept"] - plans[-1].kept
    return replace(
        first, **sums, readings=tuple(reading for each in plans for reading in each.readings),
        memory=max(each.memory for each in plans), disk=kept_before + max(each.disk for each in plans),
    )  # fmt: skip


def _reading(task: Task, split: str, purpose: str, passes: int, clip: Clip, data: Path) -> Reading:
    return _measured(task.name, task.dataset.split(split, data, clip.pixels), purpose, passes)


def _measured(name: str, opened: Split, purpose: str, passes: int) -> Reading:
    """Read some images of a split, to see how long one takes."""
    places = range(0, len(opened), max(len(opened) // IMAGES_READ, 1))[:IMAGES_READ]
    opened[places[0]]  # the first image also loads libraries
    began = time.perf_counter()
    for place in places:
        opened[place]
    seconds = (time.perf_counter() - began) / len(places)
    return Reading(name, opened.name, purpose, len(opened), passes, seconds)


def _free(path: Path) -> int:
    place: Sequence[Path] = [path.absolute(), *path.absolute().parents]
    return shutil.disk_usage(next(each for each in place if each.exists())).free
