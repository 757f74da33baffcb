"""Many checkpoints x many tasks in one pass over the data: a batch is decoded once and seen by every checkpoint."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wisepatch.datasets.loading import checked, loader
from wisepatch.features import precision_of, split_features
from wisepatch.files import write_durably
from wisepatch.head import logits, zeroshot_head
from wisepatch.lines import Heads, answers, gather_lines, merged, set_weights
from wisepatch.metrics import find_metric, measurements
from wisepatch.progress import Progress, Silent
from wisepatch.results import append

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wisepatch.datasets.base import Context
    from wisepatch.encoder import Encoder
    from wisepatch.finetuning import Watcher
    from wisepatch.head import Classifier
    from wisepatch.plugins import Task
    from wisepatch.store import Checkpoint, Store

BATCH_SIZE = 64
HELD = 256  # images that are held while every mix sees them: weights are written once for all of them


@dataclass(frozen=True)
class Predictions:
    """What some checkpoints said of one split.

    ``predicted`` and ``confidence`` (the probability of what was predicted) are ``(checkpoints, n)``, ``labels`` is ``(n,)``.
    """

    task: Task
    split: str
    checkpoints: tuple[Checkpoint, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    context: Context


def evaluate(
    checkpoints: Sequence[Checkpoint],
    tasks: Sequence[Task],
    store: Store,
    data: Path,
    *,
    split: str = "test",
    metrics: Sequence[str] = (),
    batch_size: int = BATCH_SIZE,
    workers: int = 0,
    mixed_precision: str = "no",
    run: str = "",
    labels: Callable[[Checkpoint, Task], Mapping[str, Any]] | None = None,
    record: bool = True,
    watch: Callable[[Predictions], object] | None = None,
    progress: Progress | None = None,
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
    for found in predict(
        checkpoints, tasks, store, data, split=split, batch_size=batch_size, workers=workers,
        mixed_precision=mixed_precision, progress=progress,
    ):  # fmt: skip
        dataset = found.task.dataset
        rows_of_task = []
        for checkpoint, predicted in zip(found.checkpoints, found.predicted, strict=True):
            for asked in metrics or (dataset.metric, *dataset.also):
                for metric, value in measurements(asked, found.labels, predicted, len(dataset.classes), found.context):
                    rows_of_task.append({
                        "run": run, "checkpoint": checkpoint.id, **checkpoint.model, "method": checkpoint.method,
                        "alpha": position(checkpoint), "task": found.task.name, "split": found.split, "metric": metric,
                        "value": value.value, "n": value.n, "ci_low": value.low, "ci_high": value.high,
                        "seed": checkpoint.config.get("seed"),
                        **(labels(checkpoint, found.task) if labels else {}),
                    })  # fmt: skip
        save_predictions(store, found, run)
        if watch:
            watch(found)
        rows += append(store.results, rows_of_task) if record else rows_of_task
    return rows


def position(checkpoint: Checkpoint) -> float | None:
    """The alpha of a checkpoint on its line: 0 for a zero-shot one, 1 for a fine-tuned one."""
    return {"zeroshot": 0.0, "finetuned": 1.0}.get(checkpoint.kind, checkpoint.alpha)


@torch.inference_mode()
def predict(
    checkpoints: Sequence[Checkpoint],
    tasks: Sequence[Task],
    store: Store,
    data: Path,
    *,
    split: str = "test",
    batch_size: int = BATCH_SIZE,
    workers: int = 0,
    mixed_precision: str = "no",
    progress: Progress | None = None,
) -> Iterator[Predictions]:
    """Yield each task's predictions of all checkpoints after one pass over its images.

    Checkpoints of different models may be mixed; each model then gets its own pass, with its own preprocessing.
    """
    progress = progress or Silent()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = precision_of(mixed_precision)
    lines = gather_lines(checkpoints, store, device)
    for task in tasks:
        name = task.split or split
        predicted: NDArray[np.int64] | None = None
        truth: list[NDArray[np.int64]] = []
        choice = merged(task.dataset.merges, device)
        for model in dict.fromkeys(line.encoder.config for line in lines):
            mine = [line for line in lines if line.encoder.config == model]
            encoder = mine[0].encoder
            opened = task.dataset.split(name, data, encoder.pixels)
            if predicted is None:
                predicted = np.full((len(checkpoints), len(opened)), -1, dtype=np.int64)
                confidence = np.zeros(predicted.shape, dtype=np.float32)
            heads = {id(line): Heads(line, task, store) for line in mine}
            truth = []
            source: Any = opened
            if all(line.is_linear and line.shares_tower(mine[0]) for line in mine):
                # The features once and for all, also for later runs.
                set_weights(encoder.model.visual, mine[0], 0)
                source = split_features(
                    encoder, opened, store, device, batch_size=batch_size, workers=workers, precision=precision,
                    progress=progress,
                )  # fmt: skip
            total = len(opened) * sum(len(line.members) for line in mine)
            progress.start(f"{task.name} ({name}), {len(checkpoints)} checkpoints", total)
            done = 0
            batches = loader(source, batch_size, workers=workers if source is opened else 0)
            for held in _held(batches, encoder, device, max(HELD // batch_size, 1)):
                sizes = [len(labels) for _, labels in held]
                truth += [labels.numpy() for _, labels in held]
                for line in mine:
                    with torch.autocast(device.type, precision) if precision else nullcontext():
                        for index, part, said in answers(line, [images for images, _ in held], heads[id(line)]):
                            said = choice(said)
                            answer = said.argmax(1, keepdim=True)
                            sure = said.float().softmax(1).gather(1, answer)
                            begin = done + sum(sizes[:part])
                            predicted[index, begin : begin + sizes[part]] = answer.flatten().cpu().numpy()
                            confidence[index, begin : begin + sizes[part]] = sure.flatten().cpu().numpy()
                            progress.advance(sizes[part])
                done += sum(sizes)
            progress.finish()
        assert predicted is not None
        yield Predictions(task, name, tuple(checkpoints), np.concatenate(truth), predicted, confidence, opened.context)


def _held(
    batches: Iterable[Any], encoder: Encoder, device: torch.device, most: int
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Batches on the device, normalised, ``most`` at a time: weights are mixed once for all that are held."""
    held = []
    for batch in batches:
        images, labels = checked(batch)
        held.append((encoder.normalise(images.to(device, non_blocking=True)), labels))
        if len(held) == most:
            yield held
            held = []
    if held:
        yield held


def watcher(
    tasks: Sequence[Task], store: Store, data: Path, *, batch_size: int = BATCH_SIZE, workers: int = 0
) -> Watcher:
    """A function for :func:`~wisepatch.finetuning.finetune` to call: top-1 accuracy on the validation splits, as a line.

    The first task is the one that is trained; where its head is trained too, that head is used.
    """

    @torch.inference_mode()
    def watch(encoder: Encoder, classifier: Classifier, epoch: float) -> str:
        classifier.eval()
        device = classifier.weight.device
        said = []
        for task in tasks:
            weight: torch.Tensor = classifier.weight
            bias: torch.Tensor | None = classifier.bias
            if task is not tasks[0]:
                weight = zeroshot_head(encoder, task.dataset.head_names, task.dataset.templates, store).to(device)
                bias = None
            hits, total, choice = 0, 0, merged(task.dataset.merges, device)
            for batch in loader(task.dataset.split("val", data, encoder.transform), batch_size, workers=workers):
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
