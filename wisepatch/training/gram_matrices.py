"""Measure what goes into the linear layers of image towers: Gram matrices ``X^T X / n`` over training images.

``X`` ``(n, in)`` are the inputs of a layer, a row a token (or a place, of a convolution of one pixel), of all images.
RegMean (Jin et al. 2023, arXiv 2212.09849) measures each model by itself; RegMean++ (Nguyen et al. 2025, arXiv 2508.03121)
block by block, on inputs that went through the blocks merged before. Images are prepared as in evaluation. What follows the last
block is merged like all else; the published code of RegMean++ leaves it as it was before all fine-tuning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows
from torch.overrides import TorchFunctionMode

from wisepatch.config import ModelConfig
from wisepatch.datasets.loading import batches_on, same_for_all, worker_count
from wisepatch.datasets.samples import Samples, Subset
from wisepatch.devices import device as this_device
from wisepatch.errors import UsageError
from wisepatch.files import set_aside
from wisepatch.models.clip import Clip, load_clip
from wisepatch.models.tower import prepare_reading
from wisepatch.plugins import find_merge_method
from wisepatch.process_group import add_up, made_together
from wisepatch.progress import Progress, Silent
from wisepatch.store.cache import GRAM_ENTRIES, versions
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import load_all
from wisepatch.tasks import Task
from wisepatch.weights.depth import VISUAL, block_of, depths
from wisepatch.weights.methods import check_same, merge_weights
from wisepatch.weights.singular_vectors import is_matrix

Tensors = Mapping[str, torch.Tensor]

BATCH = 32
REGMEAN, REGMEAN_PLUS_PLUS = "regmean", "regmean++"


def gram_matrices(
    ends: Sequence[Checkpoint],
    tasks: Sequence[Task],
    method: str,
    params: Mapping[str, Any],
    store: Store,
    data: Path,
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the Gram matrices of each end on training images of its task, or read them; return the recipe's parameter.

    That is ``{"files": [[hash, sha256], ...], "images": n, "seed": seed}``. Of each task's training split ``params["images"]``
    images are drawn. Raises the errors of data, model and store, and :class:`UsageError` where no tower has a linear layer.
    """
    progress = progress or Silent()
    weights = list(load_all(store, ends))
    check_same(*weights)
    models = [ModelConfig.from_json(end.model) for end in ends]
    clips: dict[ModelConfig, Clip] = {}
    for model, theta in zip(models, weights, strict=True):
        if model not in clips:
            clips[model] = load_clip(model, theta)
            clips[model].model.visual.to(this_device()).eval().requires_grad_(False)
            prepare_reading(clips[model].model.visual)
    towers = [
        _Tower(clips[model], task, data, store.checkpoints, int(params["images"]), seed, workers, progress)
        for model, task in zip(models, tasks, strict=True)
    ]
    about: list[Any] = [
        method, [end.id for end in ends], [tower.split.fingerprint() for tower in towers], params["images"], seed,
        *([params["reduction"]] if method == REGMEAN_PLUS_PLUS else []), versions("torch", "open_clip_torch"),
    ]  # fmt: skip
    keys = [hashlib.sha256(json.dumps([*about, place]).encode()).hexdigest()[:32] for place in range(len(ends))]

    def make(place: int) -> dict[str, torch.Tensor]:
        if method != REGMEAN_PLUS_PLUS:
            return towers[place].grams(weights[place])
        if "all" not in of_all:
            of_all["all"] = grams_block_by_block(towers, weights, params)
        return of_all["all"][place]

    of_all: dict[str, list[dict[str, torch.Tensor]]] = {}
    files = []
    for place, (end, key) in enumerate(zip(ends, keys, strict=True)):
        cached = store.cache.find(GRAM_ENTRIES, key)
        images = f"{towers[place].count} of {len(towers[place].split)} training images of {tasks[place].name}"
        progress.note(f"Gram matrices of {end.name}: {images}{' (from the store)' if cached else ''}")
        described = {"checkpoint": end.id, "task": tasks[place].name, "images": towers[place].count, "seed": seed}
        find = partial(store.cache.tensors, GRAM_ENTRIES, key, note=progress.note, about=described)
        found = made_together(find, partial(make, place))
        if not found:
            raise UsageError(f"{end.name} has no linear layers to merge by their inputs", "use --method linear")
        files.append([key, store.cache.sha256(GRAM_ENTRIES, key)])
    return {"files": files, "images": int(params["images"]), "seed": seed}


def grams_block_by_block(
    towers: Sequence[_Tower], weights: Sequence[Tensors], params: Mapping[str, Any]
) -> list[dict[str, torch.Tensor]]:
    """Measure each block of every end on what comes out of the blocks merged before, and merge it then (RegMean++, algorithm 1).

    What is in no block is averaged before the first one; its matrices are measured last.
    """
    method = find_merge_method(REGMEAN_PLUS_PLUS)
    settings = {"reduction": params["reduction"], "images": params["images"]}
    names = [name for name in weights[0] if name.startswith(VISUAL)]
    order = sorted(depths(names).items(), key=lambda item: item[1])
    blocks = [[name for name in names if block_of(name) == block] for block, _ in order]
    rest = [name for name in names if not block_of(name)]
    matrices = [name for name in towers[0].grams(weights[0]) if name in rest]
    merged = merge_weights(
        method, [{name: each[name] for name in rest if name not in matrices} for each in weights], settings
    )
    grams: list[dict[str, torch.Tensor]] = [{} for _ in weights]
    for group in [*blocks, matrices]:
        for own, tower, theta in zip(grams, towers, weights, strict=True):
            own |= tower.grams({**theta, **merged}, group)
        merged |= merge_weights(method, [{name: each[name] for name in group} for each in weights], settings, grams)
    return grams


@dataclass
class _Tower:
    """The image tower of a model, which takes the weights of any end, with the training images that its inputs are read from."""

    clip: Clip
    task: Task
    data: Path
    aside: Path  # a folder for what is measured, so that it takes no memory meanwhile
    images: int
    seed: int
    workers: int | None
    progress: Progress

    def __post_init__(self) -> None:
        """Draw the images; nothing is computed."""
        self.split = same_for_all(self.task.dataset.split("train", self.data, self.clip.pixels))
        self.count = min(self.images, len(self.split))
        generator = torch.Generator().manual_seed(self.seed)
        chosen = sorted(torch.randperm(len(self.split), generator=generator)[: self.count].tolist())
        self.samples: Samples = Subset(self.split, chosen)

    def grams(self, weights: Tensors, names: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Return the Gram matrix of each linear layer of the tower with these weights, or of those in ``names``."""
        visual = self.clip.model.visual
        parameters = dict(visual.named_parameters())
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[f"{VISUAL}{name}"])
            for name, buffer in visual.named_buffers():
                if f"{VISUAL}{name}" in weights:
                    buffer.copy_(weights[f"{VISUAL}{name}"])
        matrices = {
            f"{VISUAL}{name}": parameter for name, parameter in parameters.items()
            if is_matrix(name, parameter) and (names is None or f"{VISUAL}{name}" in names)
        }  # fmt: skip
        grams: dict[str, torch.Tensor] = {}
        for group in passes(matrices, sum(each.nbytes for each in self.clip.model.parameters())):
            grams |= set_aside(self._measured(group), self.aside)
        return grams

    def _measured(self, matrices: Tensors) -> dict[str, torch.Tensor]:
        reader = ReadInputs(matrices)
        workers = worker_count(self.workers, self.count, self.clip.batch_bytes(BATCH))
        self.progress.start(f"inputs of {len(matrices)} linear layers, {self.task.name}", self.count)
        with torch.inference_mode():
            for images in self._batches(workers):
                with reader:
                    self.clip.model.visual(images)
                self.progress.advance(len(images))
        self.progress.finish()
        return reader.grams()

    def _batches(self, workers: int) -> Iterator[torch.Tensor]:
        for _, images, _ in batches_on(self.samples, BATCH, this_device(), workers=workers):
            yield self.clip.normalise(images)


def passes(matrices: Tensors, memory: int) -> Sequence[Tensors]:
    """Part linear layers, in their order, into passes over the images, whose sums take ``memory`` bytes and a layer's at most.

    The sums of all layers of a ViT-L/14 take more than the model.
    """
    sizes = [4 * matrix.shape[1] ** 2 for matrix in matrices.values()]
    count = -(-sum(sizes) // memory)
    groups: list[dict[str, torch.Tensor]] = [{} for _ in range(count)]
    for (name, matrix), before in zip(matrices.items(), accumulate(sizes, initial=0), strict=False):
        groups[before * count // sum(sizes)][name] = matrix
    return [group for group in groups if group]


class ReadInputs(TorchFunctionMode):
    """Add up ``x^T x`` of what goes into linear layers, and convolutions of one pixel, that are called within."""

    def __init__(self, matrices: Tensors) -> None:
        """Read the inputs of these parameters, by their names in a checkpoint."""
        super().__init__()
        self.names = {id(parameter): name for name, parameter in matrices.items()}
        self.sums = {
            name: torch.zeros(each.shape[1], each.shape[1], device=each.device) for name, each in matrices.items()
        }
        self.rows = {name: torch.zeros(1, dtype=torch.float64, device=each.device) for name, each in matrices.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.linear, F.conv2d, torch.conv2d) and len(args) > 1 and id(args[1]) in self.names:
            x = args[0] if func is F.linear else _places(*args)
            self._read(self.names[id(args[1])], x.reshape(-1, x.shape[-1]))
        return func(*args, **(kwargs or {}))

    def _read(self, name: str, rows: torch.Tensor) -> None:
        if rows.shape[1] == len(self.sums[name]):  # of groups of channels each is another matrix
            self.sums[name] += rows.float().T @ rows.float()
            self.rows[name] += len(rows)

    def grams(self) -> dict[str, torch.Tensor]:
        """Return the means of all processes, by name, on the CPU; layers that were not called are left out, the sums are gone."""
        sums, rows = ({name: tensor.cpu() for name, tensor in each.items()} for each in (self.sums, self.rows))
        self.sums.clear()
        add_up(*sums.values(), *rows.values())
        totals = ((name, sums.pop(name), count) for name, count in rows.items())
        return {name: total.div_(count) for name, total, count in totals if count > 0}


def _places(x: torch.Tensor, weight: torch.Tensor, bias: Any = None, stride: Any = 1, *_: Any) -> torch.Tensor:
    """Return what a convolution of one pixel sees, ``(n, height, width, in)``."""
    down, across = (stride, stride) if isinstance(stride, int) else stride
    return x[:, :, ::down, ::across].permute(0, 2, 3, 1)
