"""Pass over images with the checkpoints of one model: each chunk of batches is seen by every mix in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.config import EvalConfig, ModelConfig
from wisepatch.counting import count as things
from wisepatch.datasets.loading import MAX_IMAGES_PER_PIECE, Batch, batches_on, worker_count
from wisepatch.datasets.samples import Samples, Split, Transform, labels_of
from wisepatch.errors import ModelError
from wisepatch.evaluation.endpoints import Endpoints, Mix, check_mixes, mixes_of
from wisepatch.evaluation.features import PRECISIONS, split_features
from wisepatch.evaluation.heads import Heads
from wisepatch.evaluation.output_ensembles import Ensemble, is_ensemble
from wisepatch.evaluation.pixels import cached_pixels
from wisepatch.models.clip import Clip
from wisepatch.models.tower import Tower
from wisepatch.process_group import add_up, from_all, rows_of_all
from wisepatch.progress import Progress
from wisepatch.ranks import size
from wisepatch.store.checkpoints import Checkpoint
from wisepatch.tasks import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGES_PER_MIX = 256  # images that see a mix before the next is written, at least
ANSWER_TYPES = (torch.int64, torch.float32, torch.int32, torch.float32)  # predicted class, and the fields of Scores
GPU_BATCHES_PER_MIX = 4  # at least: to mix starts as many kernels on a GPU as a batch does


def new_pass(checkpoints: Sequence[Checkpoint], endpoints: Endpoints, settings: EvalConfig, progress: Progress) -> Pass:
    """Return a pass with checkpoints of one model.

    The members of an ensemble are always computed, and have rows of their own only where they are among ``checkpoints``.
    """
    if not any(map(is_ensemble, checkpoints)):
        return Pass(mixes_of(checkpoints, endpoints), endpoints, settings, progress)
    computed = {each.id: each for each in checkpoints if not is_ensemble(each)}
    members = {each.id: endpoints.store.parents(each) for each in checkpoints if is_ensemble(each)}
    computed |= {parent.id: parent for parents in members.values() for parent in parents}
    places = {identity: place for place, identity in enumerate(computed)}
    rows = [
        Ensemble(each, tuple(places[parent.id] for parent in members[each.id]))
        if is_ensemble(each)
        else places[each.id]
        for each in checkpoints
    ]
    return Pass(mixes_of(list(computed.values()), endpoints), endpoints, settings, progress, rows)


class Pass:
    """Passes over images with the checkpoints of one model."""

    def __init__(
        self,
        mixes: list[Mix],
        endpoints: Endpoints,
        settings: EvalConfig,
        progress: Progress,
        rows: Sequence[int | Ensemble] | None = None,
    ) -> None:
        """Take mixes whose checkpoints name one model; nothing is read yet.

        A row of answers is that of a mix, or of an ensemble of them; without ``rows`` each mix has one.
        """
        self.mixes, self.endpoints, self.settings, self.progress = mixes, endpoints, settings, progress
        rows = range(len(mixes)) if rows is None else rows
        self.checkpoints = [mixes[row].checkpoint if isinstance(row, int) else row.checkpoint for row in rows]
        self.ensembles = {index: row for index, row in enumerate(rows) if isinstance(row, Ensemble)}
        self.rows_of: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            if isinstance(row, int):
                self.rows_of.setdefault(row, []).append(index)
        self.precision = PRECISIONS[settings.mixed_precision]
        self._tower: Tower | None = None
        self._batch_size = settings.batch_size or 0

    @property
    def clip(self) -> Clip:
        """Return the working CLIP of the model."""
        return self.endpoints.clip(self.mixes[0].parents[0])

    @property
    def tower(self) -> Tower:
        """Return the working copy of the image tower; all endpoints are read by now, and of one architecture."""
        if self._tower is None:
            self.endpoints.read([parent for mix in self.mixes for parent in mix.parents])
            check_mixes(self.mixes, self.endpoints)
            visual = self.clip.model.visual
            self._tower = Tower(visual, self.endpoints.device, self.precision, compiled=self.settings.compiled)
        return self._tower

    @torch.inference_mode()
    def run(self, group: Sequence[tuple[Task, Split]], data: Path) -> tuple[NDArray[np.int64], list[NDArray[Any]]]:
        """Return labels ``(n,)`` of the first task, and predicted classes and scores, ``(tasks, checkpoints, n)`` each."""
        (first, opened), device = group[0], self.endpoints.device
        shape = (len(group), len(self.checkpoints), len(opened))
        answers = [torch.zeros(shape, dtype=kind, device=device) for kind in ANSWER_TYPES]
        others = [torch.tensor(labels_of(split.samples) or (), device=device) for _, split in group[1:]]
        labels: dict[int, torch.Tensor] = {}
        source, batch_size, workers = self._source(partial(first.dataset.split, opened.name, data))
        names = " and ".join(f"{task.name} ({split.name})" for task, split in group)
        what = f"{names}, {things(len(self.mixes), 'checkpoint')}"
        for held, found in self.logits(source, [task for task, _ in group], what, batch_size, workers):
            truths = {batch.first: batch.labels.to(device) for batch in held}
            for batch, number, index, logits in found:
                place = slice(batch.first, batch.first + len(logits))
                labels_of_task = others[number - 1][place] if number else truths[batch.first]
                for kept, values in zip(answers, answer(logits, labels_of_task), strict=True):
                    kept[number, index, place] = values
            labels |= {batch.first: batch.labels for batch in held}
        answers = [each.cpu() for each in answers]
        add_up(*answers)
        self._check_numbers(answers[1], names)
        return rows_of_all(labels, len(opened)).numpy(), [each.numpy() for each in answers]

    def logits(
        self, source: Samples, tasks: Sequence[Task], what: str, batch_size: int, workers: int
    ) -> Iterator[tuple[list[Batch], Iterator[tuple[Batch, int, int, torch.Tensor]]]]:
        """Yield the batches of each chunk of ``source``, which holds images or features, with an iterator over their logits.

        The iterator yields a batch, the number of the task, the number of the row, and the logits ``(n, classes)``; read it before
        the next chunk. ``what`` names the work in the progress. Every process yields its own batches.
        """
        device = self.endpoints.device
        heads = [Heads(task, self.endpoints, self.progress.note) for task in tasks]
        to_classes = [class_logits(task.dataset.label_map, device) for task in tasks]
        for head in heads:
            head.prepare(self.mixes)

        def answers(held: Sequence[Batch]) -> Iterator[tuple[Batch, int, int, torch.Tensor]]:
            totals: dict[tuple[int, int, int], torch.Tensor] = {}  # of ensembles: row, place of the batch, task
            for place, features in self._features([self._prepared(batch.images) for batch in held]):
                weights = [head.of(self.mixes[place]) for head in heads]
                shares = {row: each.shares[place] for row, each in self.ensembles.items() if place in each.shares}
                for batch, part in zip(held, features, strict=True):
                    for number, (weight, bias) in enumerate(weights):
                        logits = F.linear(part, weight, bias)
                        for row in self.rows_of.get(place, ()):
                            yield batch, number, row, to_classes[number](logits)
                        for row, share in shares.items():
                            added = share * self.ensembles[row].contribution(logits)
                            key = row, batch.first, number
                            totals[key] = totals[key] + added if key in totals else added
                    self.progress.advance(len(part))
            for batch in held:
                for number in range(len(tasks)):
                    for row, ensemble in self.ensembles.items():
                        yield batch, number, row, to_classes[number](ensemble.logits(totals[row, batch.first, number]))

        self.progress.start(what, len(source) * len(self.mixes) // size())
        min_batches = 1 if device.type == "cpu" else GPU_BATCHES_PER_MIX
        batches = batches_on(source, batch_size, device, workers=workers)
        for held in _chunks(batches, max(IMAGES_PER_MIX // batch_size, min_batches)):
            yield held, answers(held)
        self.progress.finish()

    def _check_numbers(self, confidence: torch.Tensor, names: str) -> None:
        """Raise :class:`ModelError` where the logits of an image hold NaN: its class would be any."""
        for checkpoint, broken in zip(self.checkpoints, confidence.isnan().any(0).sum(1).tolist(), strict=True):
            if broken:
                raise not_a_number(checkpoint, broken, f"{confidence.shape[2]} images of {names}")

    def _features(self, images: Sequence[torch.Tensor]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """Yield the number of each mix and its features of every batch; mixes with the same image tower share them."""
        order = sorted(range(len(self.mixes)), key=lambda index: self.mixes[index].visual)
        for _, indices in groupby(order, key=lambda index: self.mixes[index].visual):
            members = list(indices)
            if images[0].ndim == 2:
                features = list(images)
            else:
                self.mixes[members[0]].set_weights(self.tower.visual)
                features = [self.tower.features(batch) for batch in images]
            for index in members:
                yield index, features

    def _prepared(self, images: torch.Tensor) -> torch.Tensor:
        return images if images.ndim == 2 else self.tower.take(self.clip.normalise(images))

    def _source(self, open_split: Callable[[Transform | None], Split]) -> tuple[Samples, int, int]:
        """Return the samples (features of linear probes, cached pixels, or images), batch size and number of workers."""
        first = self.mixes[0]
        if any(mix.is_probe for mix in self.mixes) and len({mix.visual for mix in self.mixes}) == 1:
            source: Samples = split_features(
                open_split, self.endpoints.store, first.visual, ModelConfig.from_json(first.checkpoint.model),
                self._clip_of_probes, self.endpoints.device, self.settings, self.progress,
            )  # fmt: skip
            return source, IMAGES_PER_MIX, 0
        images = open_split(self.clip.pixels)
        batch_size, workers = self.loading(len(images))
        if self.settings.cache_images:
            pixels = cached_pixels(self.clip, images, self.endpoints.store, workers=workers, progress=self.progress)
            return pixels, batch_size, self.settings.workers or 0
        return images, batch_size, workers

    def loading(self, images: int) -> tuple[int, int]:
        """Return the batch size, and the number of processes that load so many images."""
        if not self._batch_size:
            self._batch_size = min(from_all(self.tower.largest_batch(*self.clip.image_size, held=GPU_BATCHES_PER_MIX)))
        piece = self.clip.batch_bytes(min(self._batch_size, MAX_IMAGES_PER_PIECE))
        return self._batch_size, worker_count(self.settings.workers, images, piece)

    def _clip_of_probes(self) -> Clip:
        """Return the CLIP with the image tower that all mixes share: the first endpoint's, and no other is read."""
        first = self.mixes[0].parents[0]
        Mix(first, (first,), self.endpoints).set_weights(self.clip.model.visual)
        return self.clip


def not_a_number(checkpoint: Checkpoint, broken: int, images: str) -> ModelError:
    """Return the error for a checkpoint that gives NaN for ``broken`` of some images."""
    return ModelError(
        f"{checkpoint.name} ({checkpoint.id}) gives NaN for {broken} of {images}",
        "with --mixed-precision fp16 try bf16 or no; otherwise its weights are broken",
    )


def _chunks(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    chunk = []
    for batch in batches:
        chunk.append(batch)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def answer(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the class with the largest of some logits ``(n, classes)``, and the fields of ``Scores`` by ``labels``, ``(n,)`` each.

    Of equal logits the first counts as larger. A label that is no class has the last rank.
    """
    probabilities, number = logits.float().softmax(1), logits.shape[1]
    predicted = logits.argmax(1, keepdim=True)
    confidence = probabilities.gather(1, predicted).flatten()
    is_class = (labels >= 0) & (labels < number)
    place = labels.clamp(0, number - 1)[:, None]
    own, before = logits.gather(1, place), torch.arange(number, device=logits.device) < place
    rank = ((logits > own) | ((logits == own) & before)).sum(1).where(is_class, number)
    of_label = probabilities.gather(1, place).flatten().where(is_class, 0)
    brier = ((probabilities**2).sum(1) - 2 * of_label + 1).clamp_min(0)
    return predicted.flatten(), confidence, rank.int(), brier


def class_logits(
    label_map: Sequence[Sequence[int]], device: torch.device | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from the head's logits ``(n, head classes)`` to the task's ``(n, classes)``.

    A class has the largest logit of the head's classes that it stands for, ``-inf`` where there is none (WiSE-FT section 3,
    ObjectNet and others). Without a ``label_map`` nothing changes.
    """
    if not label_map:
        return lambda logits: logits
    widest = max(len(indices) for indices in label_map)
    columns = torch.tensor([[*indices, *[-1] * (widest - len(indices))] for indices in label_map], device=device)
    return lambda logits: logits[:, columns].masked_fill(columns < 0, -torch.inf).amax(-1)
