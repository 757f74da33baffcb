"""Measure the diagonal Fisher information of both endpoints: how much each parameter matters to the predictions.

``F = E_x E_{y ~ p(y|x)} (d log p(y|x) / d theta)^2`` over training images ``x`` (Matena and Raffel 2021, arXiv 2111.09832, and
WiSE-FT's code). The label is drawn from the model's own prediction; the images are prepared as in evaluation, and the model
runs in fp32 (convolutions on a GPU in TF32, as PyTorch has it unless told otherwise).
:func:`wisepatch.weights.interpolation.fisher` weighs the endpoints with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from wisepatch.config import ModelConfig
from wisepatch.datasets.loading import batches_on, same_for_all, worker_count
from wisepatch.datasets.samples import Samples, Subset
from wisepatch.devices import device as this_device
from wisepatch.errors import ModelError, UsageError
from wisepatch.files import expanded, hash_tensors
from wisepatch.models.classifier import Classifier, features
from wisepatch.models.clip import load_clip
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.process_group import from_all, from_process, made_together
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import size as process_count
from wisepatch.store.cache import FISHER_ENTRIES
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import load_weights
from wisepatch.tasks import Task
from wisepatch.weights.methods import check_same
from wisepatch.weights.state_dicts import read_state_dict

Tensors = Mapping[str, torch.Tensor]
NLL = Callable[[Tensors, torch.Tensor, torch.Tensor], torch.Tensor]  # parameters, image, uniform: of one label

EXAMPLES = 1000  # images, unless another number is given
MAX_BATCH_IMAGES = 64  # also what is added up first, and then to the whole: the order does not depend on the processes
MIN_BATCH_IMAGES_ON_CPU = 16
GRADIENT_BYTES_ON_CPU = 2 << 30
GPU_MEMORY_SHARE = 4  # gradients take up to one part in so many
HEAD_PREFIX = "classifier."  # of the names of a trained head in a checkpoint


def line_fishers(
    start: Checkpoint,
    end: Checkpoint,
    task: Task,
    store: Store,
    data: Path,
    *,
    examples: int = EXAMPLES,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the Fisher information of both endpoints on ``task``, or read it from the store; return the recipe's parameter.

    That is ``{"files": [[hash, sha256] of start, of end], "examples": n, "seed": seed}``. Of the training split ``examples`` images
    are drawn (all, where it has no more), the same for both. Only tensors that differ between the endpoints are measured: the
    image tower, the head, or both. Raises :class:`ModelError` where a gradient is not finite, and the errors of data, model and
    store.
    """
    if examples < 1:
        raise UsageError(f"{examples} images have no Fisher information", "--fisher-examples takes 1 or more")
    weights = [load_weights(store, each) for each in (start, end)]
    check_same(*weights)
    changed = {name for name, tensor in weights[0].items() if not torch.equal(tensor, weights[1][name])}
    entries = [
        endpoint_fisher(checkpoint, theta, changed, task, store, data, examples, seed, workers, progress or Silent())
        for checkpoint, theta in zip((start, end), weights, strict=True)
    ]
    return {"files": [entry["file"] for entry in entries], "examples": entries[0]["examples"], "seed": seed}


def given_fishers(files: Sequence[Path | str], start: Checkpoint, end: Checkpoint, store: Store) -> dict[str, Any]:
    """Take the Fisher information of both endpoints from files, ours or WiSE-FT's; return the recipe's parameter.

    A file is safetensors or a pickled dict of tensors, under the names of a checkpoint or of WiSE-FT's ``ImageClassifier``;
    what is not in it is mixed linearly. Raises :class:`UsageError` for another number of files than two, :class:`ModelError`
    for a file that is no Fisher information of this model.
    """
    if len(files) != 2:
        raise UsageError(f"{len(files)} files of Fisher information, and both endpoints have one", "--fisher F0,F1")
    entries = []
    for path, checkpoint in zip(map(expanded, files), (start, end), strict=True):
        weights = load_weights(store, checkpoint)
        fisher = {name: each for name, each in read_state_dict(path).tensors.items() if name in weights}
        if not fisher:
            raise ModelError(
                f"{path} has no tensor of {checkpoint.name}", "give the Fisher information of this very model"
            )
        for name, each in fisher.items():
            if each.shape != weights[name].shape:
                reason = f"{path}: {name} is {list(each.shape)}, and in {checkpoint.name} {list(weights[name].shape)}"
                raise ModelError(reason, "give the Fisher information of this very model")
            if not (torch.isfinite(each).all() and (each >= 0).all()):
                raise ModelError(f"{path}: {name} holds numbers that no mean of squares is", "measure it again")
        key = hashlib.sha256(f"given {hash_tensors(fisher)}".encode()).hexdigest()[:32]
        about = {"checkpoint": checkpoint.id, "file": path.name}
        made_together(partial(store.cache.tensors, FISHER_ENTRIES, key, about=about), partial(dict, fisher))
        entries.append([key, store.cache.sha256(FISHER_ENTRIES, key)])
    return {"files": entries}


def endpoint_fisher(
    checkpoint: Checkpoint,
    theta: Tensors,
    changed: Collection[str],
    task: Task,
    store: Store,
    data: Path,
    examples: int,
    seed: int,
    workers: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Measure the Fisher information of one endpoint for the tensors ``changed``, or read it; return the entry of the cache."""
    device = this_device()
    clip = load_clip(ModelConfig.from_json(checkpoint.model), theta)
    head, bias = theta.get(f"{HEAD_PREFIX}weight"), theta.get(f"{HEAD_PREFIX}bias")
    if head is None:
        head = zeroshot_head(clip, task.dataset.head_names, task.dataset.templates, store, progress.note)
    classifier = Classifier(clip.model.visual, head, bias)
    names = [name for name, _ in classifier.named_parameters() if _name_in_checkpoint(name) in changed]
    split = same_for_all(task.dataset.split("train", data, clip.pixels))
    count, generator = min(examples, len(split)), torch.Generator().manual_seed(seed)
    chosen = sorted(torch.randperm(len(split), generator=generator)[:count].tolist())
    uniforms = torch.rand(count, generator=generator)
    parts = (
        hash_tensors(classifier.state_dict()), str(classifier), without_addresses(str(clip.transform)), split.fingerprint(),
        json.dumps([names, count, seed]),
    )  # fmt: skip
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    label, cached = f"Fisher information of {checkpoint.name}", store.cache.find(FISHER_ENTRIES, key)
    progress.note(f"{label}: {count} of {len(split)} training images{' (from the store)' if cached else ''}")

    def measure() -> Tensors:
        progress.start(label, count // process_count())
        fisher = diagonal(
            classifier.to(device), names, Subset(split, chosen), uniforms, prepare=clip.normalise,
            workers=worker_count(workers, count, clip.batch_bytes(MAX_BATCH_IMAGES)), progress=progress,
        )  # fmt: skip
        progress.finish()
        if not all(torch.isfinite(tensor).all() for tensor in fisher.values()):
            raise ModelError(f"the {label} is not finite", "mix with --method linear, or train with a lower --lr")
        return {_name_in_checkpoint(name): tensor for name, tensor in fisher.items()}

    about = {"checkpoint": checkpoint.id, "task": task.name, "examples": count, "of": len(split), "seed": seed}
    waiting = f"another process measures the {label}: waiting for it"
    made_together(
        lambda make: store.cache.tensors(
            FISHER_ENTRIES, key, make, lambda: progress.note(waiting), note=progress.note, about=about
        ),
        measure,
    )
    return about | {"file": [key, store.cache.sha256(FISHER_ENTRIES, key)]}


def without_addresses(text: str) -> str:
    """Remove where functions lie in memory, which differs from process to process (in the preprocessing of open_clip 3.2)."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _name_in_checkpoint(name: str) -> str:
    return name if name.startswith("visual.") else f"{HEAD_PREFIX}{name}"


def diagonal(
    classifier: Classifier,
    names: Sequence[str],
    samples: Samples,
    uniforms: torch.Tensor,
    *,
    prepare: Callable[[torch.Tensor], torch.Tensor] = lambda images: images,
    batch_size: int | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, torch.Tensor]:
    """Average over ``samples`` the squared gradients of ``log p(y | x)``, for the parameters ``names``; fp32, on the CPU.

    The label ``y`` of image ``i`` is the class in which ``uniforms[i]``, from [0, 1), falls when the probabilities are laid end to
    end: a sample of the model's prediction that does not depend on the batch size. ``prepare`` is called with a batch on
    the device.

    The gradients of a batch are taken at once (``torch.func``), one image at a time where the model does something that this
    cannot do. The batch is as large as memory allows unless ``batch_size`` is given. Several processes share the images, and each
    has the sums that one process has.
    """
    device = classifier.weight.device
    classifier.eval().requires_grad_(False)
    parameters = {name: parameter.detach() for name, parameter in classifier.named_parameters() if name in set(names)}
    if not parameters:
        return {}
    through_tower = any(name.startswith("visual.") for name in parameters)
    fitting = min(from_all(batch_size or batch_that_fits(parameters, device)))
    gradients = _SquaredGradients(classifier, parameters, min(fitting, MAX_BATCH_IMAGES), progress or Silent())
    chunk = MAX_BATCH_IMAGES // gradients.size * gradients.size
    chunks = batches_on(samples, chunk, device, workers=workers)
    count, processes = math.ceil(len(samples) / chunk), process_count()
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for done in range(0, count, processes):
        sums: Tensors = parameters  # where this process has no chunk left, for their shapes alone
        for first, batch, _ in islice(chunks, 1):
            images = prepare(batch)
            if not through_tower:
                with torch.no_grad():
                    images = features(classifier.visual, images)
            sums = gradients.sum_over(images, uniforms[first : first + len(images)].to(device))
        for owner in range(min(processes, count - done)):
            for name, total in totals.items():
                total += from_process(owner, sums[name])
    return {name: (total / len(samples)).cpu() for name, total in totals.items()}


class _SquaredGradients:
    """Add up the squared gradients of ``-log p(y | x)``, of as many images at once as there is memory for."""

    def __init__(self, classifier: Classifier, parameters: Tensors, size: int, progress: Progress) -> None:
        self.classifier, self.parameters, self.size, self.progress = classifier, parameters, size, progress
        self.summed = batched if size > 1 else one_by_one

    def nll(self, parameters: Tensors, image: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """Return ``-log p(y | x)`` of one image."""
        logits = functional_call(self.classifier, dict(parameters), (image[None],))[0].float()
        label = (logits.detach().softmax(0).cumsum(0) <= uniform).sum().clamp(max=len(logits) - 1)
        return F.cross_entropy(logits, label)

    def sum_over(self, images: torch.Tensor, uniforms: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the sums over images, or features ``(n, dim)`` where the head alone is measured."""
        sums = {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}
        first = 0
        while first < len(images):
            part = slice(first, first + self.size)
            try:
                squares = self.summed(self.nll, self.parameters, images[part], uniforms[part])
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
                self.size = self.size // 2
                torch.cuda.empty_cache()
                continue
            except (RuntimeError, NotImplementedError) as error:
                if self.summed is one_by_one:
                    raise
                self.summed = one_by_one
                reason = str(error).strip().splitlines()[0][:200]
                self.progress.note(f"the images go through the model one at a time, which takes longer: {reason}")
                continue
            for name, tensor in squares.items():
                sums[name] += tensor
            first += self.size
            self.progress.advance(len(images[part]))
        return sums


def batch_that_fits(parameters: Tensors, device: torch.device) -> int:
    """Return how many images to take at once: each has gradients as large as the model.

    On a CPU one at a time where fewer than ``MIN_BATCH_IMAGES_ON_CPU`` fit: a model that large is busy enough with one (measured
    with ViT-B/32 and RN50, whose batches take 1.1 to 1.2 times as long as the loop; those of the embedded model take a third).
    """
    limit = GRADIENT_BYTES_ON_CPU
    if device.type == "cuda":
        limit = torch.cuda.get_device_properties(device).total_memory // GPU_MEMORY_SHARE
    image_bytes = 4 * sum(parameter.numel() for parameter in parameters.values()) * 3 // 2
    fit = int(min(max(limit // max(image_bytes, 1), 1), MAX_BATCH_IMAGES))
    return 1 if device.type == "cpu" and fit < MIN_BATCH_IMAGES_ON_CPU else fit


def batched(nll: NLL, parameters: Tensors, images: torch.Tensor, uniforms: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sum over the images their squared gradients, all taken at once."""
    # The plain form of attention is the one that can be batched over; what is emulated is slower, and still right.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        per_image = vmap(grad(nll), in_dims=(None, 0, 0), randomness="error")
        gradients = per_image(dict(parameters), images, uniforms)
    return {name: tensor.square().sum(0) for name, tensor in gradients.items()}


def one_by_one(nll: NLL, parameters: Tensors, images: torch.Tensor, uniforms: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sum over the images their squared gradients, one image at a time, as WiSE-FT's code does."""
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    leaves = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    for image, uniform in zip(images, uniforms, strict=True):
        loss = nll(leaves, image, uniform)
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        for name, gradient in zip(leaves, gradients, strict=True):
            sums[name] += gradient.square()
    return sums
