"""Look at validation data while a model is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wisepatch.analysis.metrics import measurements
from wisepatch.config import EvalConfig
from wisepatch.datasets.loading import batches_on, same_for_all, worker_count
from wisepatch.datasets.samples import Split
from wisepatch.evaluation.passes import answer, class_logits
from wisepatch.hookspecs import Scores
from wisepatch.models.classifier import Classifier, logits
from wisepatch.models.clip import Clip
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.plugins import find_metric
from wisepatch.process_group import rows_of_all
from wisepatch.store.checkpoints import Store
from wisepatch.tasks import Task


@dataclass(frozen=True)
class Validation:
    """A look at validation data: a line for people, top-1 accuracy by task, and a score of the first task, higher is better."""

    text: str
    values: Mapping[str, float]
    score: float | None = None


def watcher(
    tasks: Sequence[Task], store: Store, data: Path, settings: EvalConfig | None = None, metric: str | None = None
) -> Callable[[Clip, Classifier, float], Validation]:
    """Return a function for :func:`~wisepatch.training.finetuning.finetune` to call, which looks at the validation splits.

    The first task is the one that is trained; where its head is trained too, that head is used, and ``metric`` scores it (of
    several that are trained together, the mean of their scores counts). Tasks without a validation split are left out.
    Raises :class:`UnknownNameError` for a metric that there is not.
    """
    settings = settings or EvalConfig()
    scoring = find_metric(metric) if metric else None
    patched = tasks[0].each
    watched = [task for task in (*patched, *tasks[1:]) if "val" in task.dataset.available_splits]

    def watch(clip: Clip, classifier: Classifier, epoch: float) -> Validation:
        values: dict[str, float] = {}
        scores_of: list[float] = []
        noted = ""
        for task in watched:
            split = same_for_all(task.dataset.split("val", data, clip.transform))
            head = None
            if patched != (task,):  # the classifier's own head has the classes of all tasks
                head = zeroshot_head(clip, task.dataset.head_names, task.dataset.templates, store)
            answers, labels, scores = _answer(split, task, clip, classifier, head, settings)
            values[task.name] = float((answers == labels).mean())
            if scoring and task in patched:
                classes = len(task.dataset.classes)
                measured = dict(measurements(scoring, labels, answers, classes, split.annotations, scores))
                value = measured[scoring.name].value
                scores_of.append(value if scoring.higher_is_better else -value)
                noted += "" if scoring.name == "top1" else f", {task.name} {scoring.name} {value:.3f}"
        shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in values.items())
        score = sum(scores_of) / len(scores_of) if scores_of else None
        return Validation(f"epoch {epoch:.1f} (val): {shown}{noted}", values, score)

    return watch


@torch.inference_mode()
def _answer(
    split: Split, task: Task, clip: Clip, classifier: Classifier, head: torch.Tensor | None, settings: EvalConfig
) -> tuple[Any, Any, Scores]:
    """Return answers, labels and scores, ``(n,)`` each; without ``head`` by the classifier's own. Processes share the images."""
    classifier.eval()
    device = classifier.weight.device
    weight, bias = (classifier.weight, classifier.bias) if head is None else (head.to(device), None)
    to_classes = class_logits(task.dataset.label_map, device)
    batch_size = settings.batch_size or 64
    workers = worker_count(settings.workers, len(split), clip.batch_bytes(batch_size, pixel=4))
    columns: list[dict[int, torch.Tensor]] = [{} for _ in range(len(Scores._fields) + 2)]
    for first, images, truth in batches_on(split, batch_size, device, workers=workers):
        values = answer(to_classes(logits(classifier.visual, images, weight, bias)), truth.to(device))
        for column, value in zip(columns, (truth, *values), strict=True):
            column[first] = value.cpu()
    labels, answers, *scores = (rows_of_all(column, len(split)).numpy() for column in columns)
    return answers, labels, Scores(*scores)
