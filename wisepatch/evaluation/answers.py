"""Answer images one by one with many checkpoints: class names with probabilities, while later images are being read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from wisepatch.config import EvalConfig, ModelConfig
from wisepatch.counting import count
from wisepatch.datasets.any_images import UNREADABLE, AnyImages
from wisepatch.datasets.loading import MAX_IMAGES_PER_PIECE
from wisepatch.devices import device as this_device
from wisepatch.errors import UsageError
from wisepatch.evaluation.endpoints import Endpoints, mixes_of
from wisepatch.evaluation.passes import Pass, not_a_number
from wisepatch.process_group import check_seen, to_main
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import size
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.tasks import Task


@dataclass(frozen=True)
class Answer:
    """Hold what a checkpoint answers to an image: the likeliest classes and their probabilities, or why it cannot be read."""

    index: int
    image: str
    checkpoint: Checkpoint
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    problem: str = ""


def answers(
    checkpoints: Sequence[Checkpoint],
    images: AnyImages,
    task: Task,
    store: Store,
    *,
    top: int = 5,
    settings: EvalConfig | None = None,
    progress: Progress | None = None,
) -> Iterator[Answer]:
    """Yield the answers image by image, for each checkpoint in turn, while later images are being read.

    Checkpoints of one model share a pass over the images. Of several processes, which share the images, the main one yields all.
    """
    if top < 1:
        raise UsageError(f"--top {top} asks for no class", "give 1 or more")
    check_seen(checkpoint.home for checkpoint in checkpoints)
    endpoints = Endpoints(store, this_device())
    mixes = mixes_of(checkpoints, endpoints)
    models = [ModelConfig.from_json(mix.checkpoint.model) for mix in mixes]
    places = [[row for row, each in enumerate(models) if each == model] for model in dict.fromkeys(models)]
    streams = []
    for rows in places:
        one_pass = Pass([mixes[row] for row in rows], endpoints, settings or EvalConfig(), progress or Silent())
        stream = _stream(one_pass, images, task, top)
        # Processes exchange answers pass by pass: one that yields none would run ahead into the next pass.
        streams.append(stream if size() == 1 or len(places) == 1 else iter(list(stream)))
    names, classes = images.names(), task.dataset.classes
    for number, of_models in enumerate(zip(*streams, strict=True)):
        read = all(status != UNREADABLE for status, _ in of_models)
        problem = "" if read else images.problem(number) or "it could not be read"
        likeliest = {
            row: each for rows, (_, found) in zip(places, of_models, strict=True) for row, each in zip(rows, found, strict=True)
        }  # fmt: skip
        for row, checkpoint in enumerate(checkpoints):
            indices, probabilities = likeliest[row] if read else ((), ())
            yield Answer(
                number, names[number], checkpoint, tuple(classes[i] for i in indices), tuple(probabilities), problem
            )


Likeliest = tuple[Sequence[int], Sequence[float]]  # classes, and their probabilities
Found = tuple[int, Sequence[Likeliest]]  # whether an image was read, and what each mix finds


def _stream(one_pass: Pass, images: AnyImages, task: Task, top: int) -> Iterator[Found]:
    """Yield what a pass finds image by image, in the main process."""
    batch_size, workers = one_pass.loading(len(images))
    source = AnyImages(images.sources, one_pass.clip.pixels, images.managed)
    pieces = math.ceil(batch_size / MAX_IMAGES_PER_PIECE)
    batches = math.ceil(len(images) / max(batch_size // pieces * pieces, 1))
    what = f"{count(len(images), 'image')}, {count(len(one_pass.mixes), 'checkpoint')}"
    for rows in to_main(_batches(one_pass, source, task, top, what, batch_size, workers), batches):
        yield from rows


@torch.inference_mode()
def _batches(
    one_pass: Pass, source: AnyImages, task: Task, top: int, what: str, batch_size: int, workers: int
) -> Iterator[list[Found]]:
    """Yield what is found in each batch of this process."""
    for held, logits_of in one_pass.logits(source, [task], what, batch_size, workers):
        found: dict[int, dict[int, list[Likeliest]]] = {}
        for batch, _, index, logits in logits_of:
            likely = logits.float().softmax(1).topk(min(top, logits.shape[1]))
            if broken := int(likely.values.isnan().any(1).sum()):
                raise not_a_number(one_pass.mixes[index].checkpoint, broken, f"{len(logits)} images")
            found.setdefault(batch.first, {})[index] = list(
                zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
            )
        for batch in held:
            of_mixes = [found[batch.first][index] for index in range(len(one_pass.mixes))]
            yield list(zip(batch.labels.tolist(), zip(*of_mixes, strict=True), strict=True))
