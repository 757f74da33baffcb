"""What many checkpoints say of many images, in one pass: a batch is decoded once and seen by every checkpoint."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wisepatch.config import check_speed
from wisepatch.datasets.base import images_of, labels_of
from wisepatch.datasets.loading import PIECE, batches_on, worker_count
from wisepatch.evaluation.endpoints import Heads, answers, gather_mixes, merged, most_likely, set_weights
from wisepatch.evaluation.features import HELD, precision_of, split_features, tower_key
from wisepatch.evaluation.linear import recall, remember
from wisepatch.evaluation.pixels import cached_pixels
from wisepatch.models.tower import Tower
from wisepatch.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Unpack

    from numpy.typing import NDArray

    from wisepatch.config import Speed
    from wisepatch.datasets.base import Annotations, Samples, Split, Transform
    from wisepatch.evaluation.endpoints import Mixes
    from wisepatch.models.clip import Clip
    from wisepatch.plugins import Task
    from wisepatch.store.checkpoints import Checkpoint, Store

    Batches = list[tuple[torch.Tensor, torch.Tensor]]  # images or features on the device, and labels


GPU_HELD = 4  # batches, at least, that every mix sees together on a GPU: to mix starts as many kernels as a batch does
BEHIND = 8  # answers that are on their way from a GPU, which works on the next batches and the next mix meanwhile


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
    annotations: Annotations
    source: Split


@torch.inference_mode()
def predict_many(
    checkpoints: Sequence[Checkpoint],
    tasks: Sequence[Task],
    store: Store,
    data: Path,
    *,
    split: str = "test",
    progress: Progress | None = None,
    **speed: Unpack[Speed],
) -> Iterator[Predictions]:
    """Yield each task's predictions of all checkpoints after one pass over its images.

    Neighbouring tasks with the same images share one pass, and the features. Checkpoints of different models may be mixed; each
    model then gets its own pass, with its own preprocessing. ``speed`` is :class:`~wisepatch.config.Speed`.
    """
    check_speed(speed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recalled = recall(checkpoints, tasks, store, data, split, speed, device)
    if recalled is not None:
        for task, images, truth, predicted, confidence in recalled:
            yield Predictions(
                task, images.name, tuple(checkpoints), truth, predicted, confidence, images.annotations, images
            )  # fmt: skip
        return
    lines = gather_mixes(checkpoints, store, device)
    models = list(dict.fromkeys(line.clip.config for line in lines))
    passes = [
        _Pass([line for line in lines if line.clip.config == model], device, store, speed, progress or Silent())
        for model in models
    ]  # fmt: skip
    for group in _sharing(tasks, split, data, passes):
        found = [
            Predictions(
                task, task.split or split, tuple(checkpoints), np.empty(0, np.int64),
                np.full((len(checkpoints), len(opened[0])), -1, dtype=np.int64),
                np.zeros((len(checkpoints), len(opened[0])), dtype=np.float32), opened[0].annotations, opened[0],
            ) for task, opened in group
        ]  # fmt: skip
        for number, each in enumerate(passes):
            labels = each.run([opened[number] for _, opened in group], found)
        yield from (replace(one, labels=truth) for one, truth in zip(found, labels, strict=True))


def _sharing(
    tasks: Sequence[Task], split: str, data: Path, passes: Sequence[_Pass]
) -> Iterator[list[tuple[Task, list[Split]]]]:
    """The tasks, opened for each model; those that follow each other with the same images together."""
    group: list[tuple[Task, list[Split]]] = []
    for task in tasks:
        opened = [task.dataset.split(task.split or split, data, each.pixels) for each in passes]
        if group:
            before, now = (images_of(splits[0]) for splits in (group[0][1], opened))
            if before is None or before != now or labels_of(opened[0].samples) is None:
                yield group
                group = []
        group.append((task, opened))
    if group:
        yield group


@dataclass
class _Pass:
    """One pass over images with the checkpoints of one model."""

    lines: list[Mixes]
    device: torch.device
    store: Store
    speed: Speed
    progress: Progress
    towers: dict[int, Tower] = field(default_factory=dict)
    batch_size: int = 0  # not known yet
    key: str = ""  # of the tower whose features are kept

    @property
    def clip(self) -> Clip:
        return self.lines[0].clip

    @property
    def fast(self) -> bool:
        return self.speed.get("fast_decode", False)

    @property
    def pixels(self) -> Transform:
        return self.clip.fast_pixels if self.fast else self.clip.pixels

    def run(self, opened: Sequence[Split], found: Sequence[Predictions]) -> list[NDArray[np.int64]]:
        """Fill in what the checkpoints say of the same images under several tasks; return the labels of each task."""
        images, tasks = opened[0], [each.task for each in found]
        source, batch_size = self._source(images)
        heads = {id(line): [Heads(line, task, self.store, self.progress.note) for task in tasks] for line in self.lines}
        choices = [merged(task.dataset.label_map, self.device) for task in tasks]
        members = sum(len(line.members) for line in self.lines)
        name = " and ".join(f"{each.task.name} ({each.split})" for each in found)
        self.progress.start(f"{name}, {len(found[0].checkpoints)} checkpoints", len(images) * members)
        workers = self._workers(images) if source is images else self.speed.get("workers") or 0
        on_cpu = self.device.type == "cpu"
        labels: list[NDArray[np.int64]] = []
        read = batches_on(source, batch_size, self.device, workers=workers)
        held = self._held(read, max(HELD // batch_size, 1 if on_cpu else GPU_HELD))
        said = self._said(held, heads, choices, labels)
        for number, index, place, arrive in _behind(said, 0 if on_cpu else BEHIND):
            answer, sure = arrive()
            found[number].predicted[index, place] = answer
            found[number].confidence[index, place] = sure
            if number == 0:
                self.progress.advance(len(answer))
        self.progress.finish()
        shared = [np.asarray(labels_of(each.samples), dtype=np.int64) for each in opened[1:]]
        return [np.concatenate(labels), *shared]

    def _said(
        self,
        read: Iterable[Batches],
        heads: dict[int, list[Heads]],
        choices: Sequence[Any],
        labels: list[NDArray[np.int64]],
    ) -> Iterator[tuple[int, int, slice, Callable[[], list[Any]]]]:
        """Yield the number of the task, that of the checkpoint, which images, and what gives the classes said and how surely.

        The labels of what is read are added to ``labels``.
        """
        done = 0
        for held in read:
            starts = [done + sum(len(truth) for _, truth in held[:part]) for part in range(len(held))]
            labels += [truth.numpy() for _, truth in held]
            for line in self.lines:
                tower = self.towers.get(id(line.clip))
                for index, part, number, said in answers(line, tower, [batch for batch, _ in held], heads[id(line)]):
                    place = slice(starts[part], starts[part] + len(said))
                    yield number, index, place, _arriving(*most_likely(choices[number](said)))
            done += sum(len(truth) for _, truth in held)
            del held  # while the next are read

    def _source(self, images: Split) -> tuple[Samples, int]:
        """What is read: the features of linear classifiers, cached pixels, or the images; and how many at once."""
        compiled = self.speed.get("compiled", False)
        first, precision = self.lines[0], precision_of(self.speed.get("mixed_precision", "no"))
        if all(line.is_linear and line.shares_tower(first) for line in self.lines):
            # The features once and for all, also for later runs.
            if not self.key:
                set_weights(self.clip.model.visual, first, 0)
                self.key = tower_key(self.clip)
                for line in self.lines:
                    remember(line, self.key, self.store)
            source: Samples = split_features(
                self.clip, images, self.store, self.device, batch_size=self.speed.get("batch_size"),
                workers=self._workers(images), precision=precision, compiled=compiled, fast=self.fast, tower=self.key,
                progress=self.progress,
            )  # fmt: skip
            return source, HELD
        for line in self.lines:
            if id(line.clip) not in self.towers:
                tower = Tower(line.clip.model.visual, self.device, precision, compiled=compiled)
                self.towers[id(line.clip)] = tower
        if not self.batch_size:
            tower = self.towers[id(self.clip)]
            self.batch_size = self.speed.get("batch_size") or tower.largest_batch(*self.clip.image_size, held=GPU_HELD)
        if self.speed.get("cache_images"):
            source = cached_pixels(
                self.clip,
                images,
                self.store,
                fast=self.fast,
                workers=self._workers(images),
                progress=self.progress,
            )
            return source, self.batch_size
        return images, self.batch_size

    def _workers(self, images: Split) -> int:
        piece = self.clip.batch_bytes(min(self.batch_size or PIECE, PIECE))
        return worker_count(self.speed.get("workers"), len(images), piece)

    def _held(self, read: Iterable[tuple[torch.Tensor, torch.Tensor]], most: int) -> Iterator[Batches]:
        """Batches, normalised, ``most`` at a time: weights are mixed once for all that are held."""
        held = []
        for images, labels in read:
            if images.ndim == 4:
                images = self.towers[id(self.clip)].take(self.clip.normalise(images))
            held.append((images, labels))
            if len(held) == most:
                yield held
                held = []
        if held:
            yield held


def _arriving(*tensors: torch.Tensor) -> Callable[[], list[NDArray[Any]]]:
    """Begin to bring tensors from their device; what is returned waits for them, and for nothing that was begun later."""
    if tensors[0].device.type == "cpu":
        return lambda: [tensor.numpy() for tensor in tensors]
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> list[NDArray[Any]]:
        arrived.synchronize()
        return [copy.numpy() for copy in copies]

    return wait


def _behind(items: Iterable[Any], number: int) -> Iterator[Any]:
    """The same items, ``number`` behind those that are begun."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting
