"""Measure many checkpoints on many tasks: rows of results with their intervals, and predictions kept image by image."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from wisepatch.analysis.metrics import find_metric, measurements
from wisepatch.datasets.loading import checked, loader, worker_count
from wisepatch.evaluation.endpoints import merged
from wisepatch.evaluation.prediction import predict_many
from wisepatch.files import write_durably
from wisepatch.models.classifier import logits
from wisepatch.models.tower import BATCH_SIZE
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.store.results import append

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Unpack

    from wisepatch.config import Speed
    from wisepatch.evaluation.prediction import Predictions
    from wisepatch.models.classifier import Classifier
    from wisepatch.models.clip import Clip
    from wisepatch.plugins import Task
    from wisepatch.progress import Progress
    from wisepatch.store.checkpoints import Checkpoint, Store
    from wisepatch.training.finetuning import Watcher


def evaluate(
    checkpoints: Sequence[Checkpoint],
    tasks: Sequence[Task],
    store: Store,
    data: Path,
    *,
    split: str = "test",
    metrics: Sequence[str] = (),
    run: str = "",
    labels: Callable[[Checkpoint, Task], Mapping[str, Any]] | None = None,
    record: bool = True,
    watch: Callable[[Predictions], object] | None = None,
    progress: Progress | None = None,
    **speed: Unpack[Speed],
) -> list[dict[str, Any]]:
    """Measure every checkpoint on every task, append the rows to the store's results, and return them.

    A task that names a split (``NAME@val``) keeps it. ``metrics`` replaces each task's own. ``labels`` gives further fields of
    the rows of a checkpoint and task, or other values. Without ``record`` the rows are returned and not appended.

    Per-image predictions go to ``predictions/``, and to ``watch`` if given, task by task.

    Raises the errors of data, model and store, and :class:`UnknownNameError` for an unknown metric.
    """
    for name in metrics:
        find_metric(name)
    for task in tasks:
        task.dataset.check_split(task.split or split)
    rows: list[dict[str, Any]] = []
    for found in predict_many(
        checkpoints, tasks, store, data, split=split, progress=progress, **speed
    ):  # fmt: skip
        dataset = found.task.dataset
        rows_of_task = []
        for checkpoint, predicted in zip(found.checkpoints, found.predicted, strict=True):
            for asked in metrics or (dataset.metric, *dataset.extra_metrics):
                for metric, value in measurements(
                    asked, found.labels, predicted, len(dataset.classes), found.annotations
                ):
                    rows_of_task.append({
                        "run": run, "checkpoint": checkpoint.id, **checkpoint.model, "method": checkpoint.method,
                        "alpha": alpha_of(checkpoint), "task": found.task.name, "split": found.split, "metric": metric,
                        "value": value.value, "n": value.n, "ci_low": value.low, "ci_high": value.high,
                        "seed": checkpoint.config.get("seed"),
                        **(labels(checkpoint, found.task) if labels else {}),
                    })  # fmt: skip
        save_predictions(store, found, run)
        if watch:
            watch(found)
        rows += append(store.results, rows_of_task) if record else rows_of_task
    return rows


def alpha_of(checkpoint: Checkpoint) -> float | None:
    """The alpha of a checkpoint on its line: 0 for a zero-shot one, 1 for a fine-tuned one."""
    return {"zeroshot": 0.0, "finetuned": 1.0}.get(checkpoint.kind, checkpoint.alpha)


def watcher(
    tasks: Sequence[Task], store: Store, data: Path, *, batch_size: int = BATCH_SIZE, workers: int | None = None
) -> Watcher:
    """A function for :func:`~wisepatch.training.finetuning.finetune` to call: top-1 accuracy on the validation splits, as a line.

    The first task is the one that is trained; where its head is trained too, that head is used.
    """

    @torch.inference_mode()
    def watch(clip: Clip, classifier: Classifier, epoch: float) -> str:
        classifier.eval()
        device = classifier.weight.device
        said = []
        for task in tasks:
            weight: torch.Tensor = classifier.weight
            bias: torch.Tensor | None = classifier.bias
            if task is not tasks[0]:
                weight = zeroshot_head(clip, task.dataset.head_names, task.dataset.templates, store).to(device)
                bias = None
            hits, total, choice = 0, 0, merged(task.dataset.label_map, device)
            split = task.dataset.split("val", data, clip.transform)
            readers = worker_count(workers, len(split), clip.batch_bytes(batch_size, pixel=4))
            for batch in loader(split, batch_size, workers=readers):
                images, labels = checked(batch)
                answers = choice(logits(classifier.visual, images.to(device), weight, bias)).argmax(1).cpu()
                hits, total = hits + int((answers == labels).sum()), total + len(labels)
            said.append(f"{task.name} {100 * hits / total:.1f} %")
        return f"epoch {epoch:.1f} (val): {', '.join(said)}"

    return watch


def save_predictions(store: Store, found: Predictions, run: str) -> Path:
    """Write ``predictions/<hash>.parquet``: a row an image, its label, and a column a checkpoint."""
    import io

    import pandas as pd

    columns = {"label": found.labels} | {c.id: p for c, p in zip(found.checkpoints, found.predicted, strict=True)}
    frame = pd.DataFrame(columns)
    frame.attrs = {"run": run, "task": found.task.spec, "split": found.split}
    digest = hashlib.sha256(f"{run}|{found.task.spec}|{found.split}|{'|'.join(columns)}".encode()).hexdigest()[:16]
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    with store.writing():
        store.predictions.mkdir(parents=True, exist_ok=True)
        path = store.predictions / f"{digest}.parquet"
        write_durably(path, buffer.getvalue())
    return path
