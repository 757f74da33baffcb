"""Gather what an objective is given before the first step, and check that settings go with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.datasets.training_batches import TrainingBatch
from wisepatch.errors import UsageError
from wisepatch.evaluation.features import Features
from wisepatch.hookspecs import Objective
from wisepatch.models.classifier import Classifier, features
from wisepatch.models.clip import Clip
from wisepatch.models.tower import prepare_training
from wisepatch.plugins import find_objective
from wisepatch.tasks import Task
from wisepatch.train_config import TrainConfig
from wisepatch.training.joint_loss import by_task

Loss = Callable[[Any, TrainingBatch], torch.Tensor]


@dataclass(frozen=True)
class TrainingStart:
    """CLIP and classifier before the first step, and all that an objective may build on.

    ``classifier`` holds the image tower of ``clip``; both are where they were loaded, and training goes to ``device``, in the
    precision of ``autocast()``. ``params`` are the objective's settings, ``others`` the supported tasks, ``fixed_features()`` the
    training images' features by the start. ``class_weights`` ``(classes,)`` weigh images where that is asked for.
    """

    clip: Clip
    classifier: Classifier
    task: Task
    config: TrainConfig
    params: Mapping[str, Any]
    device: torch.device
    others: Sequence[Task] = ()
    class_weights: torch.Tensor | None = None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    fixed_features: Callable[[], Features] | None = field(default=None, repr=False)

    def cross_entropy(self, logits: torch.Tensor, batch: TrainingBatch) -> torch.Tensor:
        """Return this process's share of the mean cross entropy of logits ``(n, classes)``, smoothed and weighed as asked for."""
        sizes = [len(each.dataset.head_names) for each in self.task.each]
        return loss_of(logits, batch.labels, self.config.label_smoothing, self.class_weights, sizes) * batch.weight

    def placed(self, head: torch.Tensor) -> torch.Tensor:
        """Return a head from text on the device, in the type of the classifier's."""
        return head.to(self.device, self.classifier.weight.dtype)

    def teacher(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a function to features ``(n, dim)`` by a copy of the image tower as it is now, which is never trained."""
        visual = copy.deepcopy(self.clip.model.visual).requires_grad_(requires_grad=False).to(self.device).eval()
        prepare_training(visual)

        def teach(images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), self.autocast():
                return features(visual, images)

        return teach


def loss_of(
    logits: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float,
    weights: torch.Tensor | None,
    tasks: Sequence[int] = (),
) -> torch.Tensor:
    """Return the mean cross entropy of logits ``(n, classes)``, each image weighed by its class.

    Of several ``tasks``, with so many classes each, an image is judged among the classes of its own (PAINT section 5, joint).
    The mean divides by the number of images and not by the sum of weights: batches and processes then add up to the whole.
    """
    if len(tasks) > 1:
        parts = [
            (each, weights if weights is None else weights[each.classes]) for each in by_task(logits, labels, tasks)
        ]
        return torch.stack([loss_of(p.logits, p.labels, smoothing, own) * p.share for p, own in parts]).sum()
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return (F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none") * weights[labels]).mean()


def training_name(config: TrainConfig) -> str:
    """Return how a training is called in results: the papers' procedure, with the objective where that is another one."""
    objective = find_objective(config.objective)
    if objective.name == TrainConfig.objective:
        return config.training
    return objective.name if objective.head else f"{config.training}+{objective.name}"


def objective_params(config: TrainConfig) -> dict[str, Any]:
    """Return the objective's settings, given ones over its defaults, of whose types they are.

    ``OBJECTIVE.NAME=VALUE`` of another objective is passed over. Raises :class:`UsageError` for a name that it has not, or a value
    of another type.
    """
    objective = find_objective(config.objective)
    params = dict(objective.params)
    for word in config.objective_param:
        name, _, value = word.partition("=")
        owner_name, dot, short = name.strip().rpartition(".")
        owner = find_objective(owner_name) if dot else objective
        if short not in owner.params:
            has = f"it has {', '.join(owner.params)}" if owner.params else "it has none"
            raise UsageError(
                f"the objective {owner.name} has no setting {short!r}", f"{has}; `OBJECTIVE.NAME=VALUE` is for one"
            )
        if owner.name != objective.name:
            continue
        kind: Any = type(objective.params[short])
        try:
            read: Any = kind(value.strip())
        except ValueError as error:
            word_for = {int: "a whole number", float: "a number"}.get(kind, kind.__name__)
            reason = f"the setting {short} of {objective.name} is {word_for}, not {value!r}"
            raise UsageError(reason, f"its default is {objective.params[short]}") from error
        if kind is not str and not 0 <= read < float("inf"):
            raise UsageError(f"the setting {short} of {objective.name} must not be {value}", "give a number from 0 on")
        params[short] = read
    return params


def objective_problems(config: TrainConfig) -> list[UsageError]:
    """Return what in the settings does not go with the objective, before anything is loaded.

    Raises :class:`UnknownNameError` for an objective that there is not.
    """
    objective = find_objective(config.objective)
    problems = [UsageError(reason, hint) for reason, hint in _misfits(objective, config)]
    try:
        objective_params(config)
        reason = objective.check(config) if objective.check else ""
    except UsageError as error:
        return [*problems, error]
    return [*problems, UsageError(reason, "leave one of the two out")] if reason else problems


def _misfits(objective: Objective, config: TrainConfig) -> Iterable[tuple[str, str]]:
    name = objective.name
    if config.freeze_encoder and not objective.on_features:
        yield f"{name} trains the image encoder, and --freeze-encoder leaves it as it is", "leave one of the two out"
    elif objective.head and config.head != objective.head:
        needs = {
            "trained": "trains the head", "frozen": "takes the head from the text tower",
        }[objective.head]  # fmt: skip
        yield (
            f"{name} {needs}, and the head is to be {config.head}",
            f"add --head {objective.head}, or leave --head out",
        )
    if config.tasks and not objective.several_tasks and config.head != "trained":  # which no strategy takes
        yield f"{name} trains on one task, and here are {len(config.tasks)}", "add --strategy sequential or parallel"
    if objective.replaces_decay and config.wd not in (0, TrainConfig.wd):
        yield f"{name} takes the place of weight decay, and --wd is {config.wd:g}", "leave --wd out"
    if config.distill_on and not objective.unlabelled:
        yield f"{name} takes no unlabelled images", "leave --distill-on out, or add --objective distill"
