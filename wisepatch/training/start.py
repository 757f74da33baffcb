"""Start a training: what can be trained, and the checkpoint that it begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from wisepatch.config import ModelConfig
from wisepatch.devices import device, set_up_accelerate
from wisepatch.errors import TrainingError, UsageError
from wisepatch.evaluation.endpoints import check_numbers
from wisepatch.models.classifier import Classifier
from wisepatch.models.clip import Clip, load_clip
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.plugins import find_objective
from wisepatch.process_group import check_size, join, on_main
from wisepatch.progress import Progress
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import load_weights
from wisepatch.tasks import Task
from wisepatch.train_config import TrainConfig
from wisepatch.training.objectives.start import objective_problems
from wisepatch.training.tracking import trackers


def check_trainable(config: TrainConfig, task: Task) -> None:
    """Raise :class:`UsageError` for a task that cannot be trained on, :class:`TrainingError` for a machine that cannot."""
    if task.parts:
        if config.head == "trained":
            trains_one = find_objective(config.objective).head == "trained"
            out = (
                f"take another objective than {config.objective}"
                if trains_one
                else "leave --head trained and --freeze-encoder out"
            )
            raise UsageError(
                "a checkpoint has one trained head, and several tasks have one each",
                f"{out}, or patch one task at a time",
            )
        for each in task.parts:
            check_trainable(config, each)
        return
    if task.split not in (None, "train"):
        raise UsageError(
            f"{task.spec} names the {task.split} split, and training uses train",
            f"write {task.name}: a tenth of train is held out anyway",
        )
    task.dataset.check_split("train")
    for problem in objective_problems(config):
        raise problem
    if task.dataset.label_map:
        raise UsageError(
            f"{task.name} has the head of another task, whose classes merge into its own, and cannot be trained on",
            "fine-tune on the task that has this head, and measure this one",
        )
    if config.mixed_precision == "fp16" and device().type == "cpu":
        raise TrainingError("fp16 trains on a GPU only, and there is none", "use --mixed-precision bf16 or no")


def new_accelerator(config: TrainConfig, store: Store) -> Accelerator:
    """Return what places model and data on devices and processes, as the settings say.

    Trackers that write files do so below ``tracking/`` in the store. Raises :class:`UsageError` for trackers that are not there.
    """
    asked = trackers(config.track)
    join()
    accelerator = Accelerator(
        cpu=set_up_accelerate(),
        mixed_precision=config.mixed_precision,
        # Given as a plugin: a number would give way to what `accelerate launch` was told.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.grad_accumulation),
        step_scheduler_with_optimizer=False,
        log_with=asked or None,
        project_dir=store.root / "tracking" if asked else None,
    )
    check_size(accelerator.num_processes)
    return accelerator


def load_start(
    config: TrainConfig, model: ModelConfig, store: Store, task: Task, progress: Progress
) -> tuple[Clip, Classifier, Checkpoint]:
    """Load the published model or the checkpoint ``config.start``; return CLIP, the classifier to train, and the parent, saved."""
    start = store.find(config.start) if config.start else None
    if start:
        store.check_own(start)
    weights = load_weights(store, start) if start else None
    if start and weights:
        check_numbers(start, weights)
    design = ModelConfig.from_json(start.model) if start else model
    progress.start(f"loading {design}", 1)
    clip = load_clip(design, weights)
    progress.advance()
    progress.finish()
    classifier = Classifier(clip.model.visual, head_of(clip, task, store, progress.note))
    train_head = config.head == "trained"
    if train_head and weights and start and start.head and start.head["classes"] == list(task.dataset.head_names):
        classifier.weight.data, classifier.bias.data = weights["classifier.weight"], weights["classifier.bias"]
    if start and not start.head and not train_head:
        return clip, classifier, start
    parent = on_main(lambda: save_start(store, clip, task, classifier if train_head else None, start))
    return clip, classifier, parent


def head_of(clip: Clip, task: Task, store: Store, note: Callable[[str], object]) -> torch.Tensor:
    """Make the head ``(classes, dim)`` of a task from text; those of several tasks follow each other."""
    parts = (each.dataset for each in task.each)
    return torch.cat([zeroshot_head(clip, part.head_names, part.templates, store, note) for part in parts])


def save_start(
    store: Store,
    clip: Clip,
    task: Task | None = None,
    head: Classifier | None = None,
    start: Checkpoint | None = None,
) -> Checkpoint:
    """Save the checkpoint at alpha 0; ``head`` is the one for ``task`` that training begins with, where it is trained too.

    That is the zero-shot checkpoint of a published model, or a ``start``: the weights of another checkpoint with this head.
    """
    prefix, kind = checkpoint_prefix(clip.config), "start" if start else "zeroshot"
    return store.save(
        {**clip.model.state_dict(), **(classifier_tensors(head) if head else {})},
        kind=kind, name=f"{prefix}/{task.name}/{kind}" if task and (head or start) else f"{prefix}/{kind}",
        model=clip.config.to_json(), trained_from=[start.id] if start else [], training="zeroshot",
        head=head_details(task) if task and head else None,
    )  # fmt: skip


def checkpoint_prefix(model: ModelConfig) -> str:
    """Return the first part of the names of a model's checkpoints, such as ``demo`` or ``ViT-B-32``."""
    schema, colon, rest = model.model.partition(":")
    return rest.rstrip("/").rpartition("/")[2] if colon else schema.replace("/", "-")


def classifier_tensors(classifier: Classifier) -> Mapping[str, torch.Tensor]:
    """Return the head as a checkpoint holds it."""
    return {"classifier.weight": classifier.weight.data, "classifier.bias": classifier.bias.data}


def head_details(task: Task) -> dict[str, Any]:
    """Describe a trained head as a manifest does."""
    return {"task": task.name, "classes": list(task.dataset.head_names)}
