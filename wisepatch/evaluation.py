"""Many checkpoints x many tasks in one pass over the data: a batch is decoded once and seen by every checkpoint.

Of each line only the two ends are held in memory, and one working copy of the image tower into which every mix is written in
place; text towers are not carried along. What is held does not grow with the number of alphas or images (but for a head an
alpha where the text towers of the two ends differ).
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.config import FISHER, ModelConfig
from wisepatch.datasets.loading import checked, loader
from wisepatch.encoder import load_encoder
from wisepatch.errors import UsageError
from wisepatch.features import precision_of, split_features
from wisepatch.files import hash_tensors, write_durably
from wisepatch.head import features, logits, zeroshot_head
from wisepatch.interpolation import check_same, load_weights, mix, pair
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

    Tensors = Mapping[str, torch.Tensor]

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


@dataclass
class Line:
    """The two ends that some checkpoints are mixed from, on the device, image tower and trained head alone."""

    encoder: Encoder
    start: dict[str, torch.Tensor]
    end: dict[str, torch.Tensor]
    text_differs: bool
    parents: tuple[Checkpoint, Checkpoint]
    members: list[tuple[int, float]] = field(default_factory=list)  # (index of the checkpoint, alpha)
    fishers: tuple[Tensors, Tensors] | None = None  # of the two ends, by name, where mixes are weighed by them

    def mixed(self, name: str, alpha: float, out: torch.Tensor | None = None) -> torch.Tensor:
        """The tensor ``name`` at ``alpha``, written into ``out`` where given."""
        return mix(self.start[name], self.end[name], alpha, out, pair(self.fishers, name))

    @cached_property
    def is_fixed(self) -> bool:
        """Whether the image tower is the same at both ends, and so at every alpha."""
        return all(
            torch.equal(tensor, self.end[name]) for name, tensor in self.start.items() if name.startswith("visual.")
        )

    @property
    def is_linear(self) -> bool:
        """Whether this is the line of a linear classifier: two ends that differ in their heads alone."""
        return self.is_fixed and self.parents[0].id != self.parents[1].id


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
            if all(line.is_linear for line in mine):  # the features once and for all, also for later runs
                set_weights(encoder.model.visual, mine[0], 0)
                source = split_features(
                    encoder, opened, store, device, batch_size=batch_size, workers=workers, precision=precision,
                    progress=progress,
                )  # fmt: skip
            progress.start(f"{task.name} ({name}), {len(checkpoints)} checkpoints", len(opened))
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
                done += sum(sizes)
                progress.advance(sum(sizes))
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


def answers(line: Line, batches: Sequence[torch.Tensor], head: Heads) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield ``(index of the checkpoint, number of the batch, logits (n, classes))`` for every checkpoint of a line.

    Where the image tower is the same at every alpha, the images (or their features ``(n, dim)``) pass it once; a trained head is
    linear in alpha then (unless it is weighed by Fisher information), and so are its logits: two products give those of every
    alpha.
    """
    visual = line.encoder.model.visual
    if not line.is_fixed:
        for index, alpha in line.members:
            set_weights(visual, line, alpha)
            weight, bias = head.at(alpha)
            for part, images in enumerate(batches):
                yield index, part, logits(visual, images, weight, bias)
        return
    if batches[0].ndim > 2:
        set_weights(visual, line, 0)
    for part, images in enumerate(batches):
        seen = features(visual, images) if images.ndim > 2 else images
        if not head.trained or line.fishers:
            for index, alpha in line.members:
                yield index, part, F.linear(seen, *head.at(alpha))
            continue
        start, end = (F.linear(seen, *head.at(alpha)) for alpha in (0.0, 1.0))
        for index, alpha in line.members:
            yield index, part, mix(start, end, alpha)


def merged(
    merges: Sequence[Sequence[int]], device: torch.device | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from the head's logits ``(n, head classes)`` to the task's ``(n, classes)``: the largest of those that merge.

    Without ``merges`` it changes nothing; a class that none merge into has ``-inf`` (WiSE-FT section 3, ObjectNet and others).
    """
    if not merges:
        return lambda said: said
    most = max(len(indices) for indices in merges)
    columns = torch.tensor([[*indices, *[-1] * (most - len(indices))] for indices in merges], device=device)

    def merge(said: torch.Tensor) -> torch.Tensor:
        return said[:, columns].masked_fill(columns < 0, -torch.inf).amax(-1)

    return merge


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


def gather_lines(checkpoints: Sequence[Checkpoint], store: Store, device: torch.device) -> list[Line]:
    """Group checkpoints by the two ends they are mixed from; each end is read once."""
    if not checkpoints:
        raise UsageError("no checkpoint to evaluate", "name at least one")
    read: dict[str, dict[str, torch.Tensor]] = {}
    encoders: dict[str, Encoder] = {}
    lines: dict[tuple[str, str, str], Line] = {}
    # The longest lines first, so that an end that is also asked for alone joins its line.
    ends = [_ends(checkpoint, store) for checkpoint in checkpoints]
    for index in sorted(range(len(ends)), key=lambda i: ends[i][0].id == ends[i][1].id):
        start, end, alpha = ends[index]
        joined = next((key for key in lines if start.id == end.id and start.id in key), None)
        if joined:
            lines[joined].members.append((index, float(joined.index(start.id))))
            continue
        for each in (start, end):
            if each.id not in read:
                read[each.id] = load_weights(store, each)
        key = (start.id, end.id, str(_fishers_of(checkpoints[index])))
        if key not in lines:
            if start.id != end.id:
                check_same(read[start.id], read[end.id])
            if start.id not in encoders:
                encoders[start.id] = load_encoder(ModelConfig.from_json(start.model), read[start.id])
                encoders[start.id].model.visual.to(device)
            texts = {hash_tensors(_text_side(read[each.id])) for each in (start, end)}
            lines[key] = Line(
                encoders[start.id],
                _tower_side(read[start.id], device),
                _tower_side(read[end.id], device),
                len(texts) > 1,
                (start, end),
                fishers=_to_device(store.read_fishers(checkpoints[index]), device),
            )
        lines[key].members.append((index, alpha))
    for line in lines.values():
        line.members.sort()
    return list(lines.values())


def _ends(checkpoint: Checkpoint, store: Store) -> tuple[Checkpoint, Checkpoint, float]:
    if not checkpoint.is_recipe:
        return checkpoint, checkpoint, 0.0
    start, end = store.parents(checkpoint)
    assert checkpoint.alpha is not None
    return start, end, checkpoint.alpha


def _fishers_of(checkpoint: Checkpoint) -> Any:
    """What tells a mix that is weighed by Fisher information from others of the same ends."""
    return checkpoint.config["fisher"]["files"] if checkpoint.is_recipe and checkpoint.method == FISHER else None


def _to_device(fishers: tuple[Tensors, Tensors] | None, device: torch.device) -> tuple[Tensors, Tensors] | None:
    return (_tower_side(fishers[0], device), _tower_side(fishers[1], device)) if fishers else None


def _tower_side(tensors: Tensors, device: torch.device) -> dict[str, torch.Tensor]:
    return {k: v.to(device) for k, v in tensors.items() if k.startswith(("visual.", "classifier."))}


def _text_side(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {k: v for k, v in tensors.items() if not k.startswith(("visual.", "classifier."))}


def set_weights(visual: torch.nn.Module, line: Line, alpha: float) -> None:
    """Write the mix at ``alpha`` into the working copy of the image tower, in place."""
    for name, tensor in visual.state_dict(keep_vars=True).items():
        line.mixed(f"visual.{name}", alpha, out=tensor.data)


class Heads:
    """The head of a task at any alpha: a trained classifier is mixed, a text-derived one comes from the (mixed) text tower."""

    def __init__(self, line: Line, task: Task, store: Store) -> None:
        """Prepare the head of ``task`` for a line."""
        self.line, self.task, self.store = line, task, store
        trained = line.parents[1].head
        self.trained = trained is not None and trained["classes"] == list(task.dataset.head_names)
        self.fixed: dict[float, torch.Tensor] = {}

    def at(self, alpha: float) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight ``(classes, dim)`` and bias ``(classes,)`` at ``alpha``."""
        line = self.line
        if self.trained:
            return line.mixed("classifier.weight", alpha), line.mixed("classifier.bias", alpha)
        key = alpha if line.text_differs else 0.0
        if key not in self.fixed:
            encoder = line.encoder
            if line.text_differs:
                ends = [load_weights(self.store, parent) for parent in line.parents]
                mixed = {k: mix(v, ends[1][k], alpha) for k, v in ends[0].items()}
                encoder = load_encoder(encoder.config, mixed)
            classes, templates = self.task.dataset.head_names, self.task.dataset.templates
            device = next(line.encoder.model.visual.parameters()).device
            self.fixed[key] = zeroshot_head(encoder, classes, templates, self.store).to(device)
        return self.fixed[key], None


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
