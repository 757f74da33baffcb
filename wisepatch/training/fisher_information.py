"""Diagonal Fisher information of both ends of a line: how much each parameter matters to what an end says.

``F = E_x E_{y ~ p(y|x)} (d log p(y|x) / d theta)^2`` over training images ``x`` (Matena and Raffel 2021, arXiv 2111.09832, and
WiSE-FT's code). The label is drawn from the model's own prediction; the images are prepared as in evaluation, and the model
runs in fp32 (convolutions on a GPU in TF32, as PyTorch has it unless told otherwise).
:func:`wisepatch.weights.interpolation.fisher` weighs the ends with it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from wisepatch.config import ModelConfig
from wisepatch.datasets.base import Subset
from wisepatch.datasets.loading import checked, loader, worker_count
from wisepatch.errors import ModelError, UsageError
from wisepatch.files import hash_tensors
from wisepatch.models.classifier import Classifier, features
from wisepatch.models.clip import load_clip
from wisepatch.models.zeroshot_head import zeroshot_head
from wisepatch.progress import Progress, Silent
from wisepatch.store.cache import FISHER_ENTRIES
from wisepatch.store.recipes import load_weights
from wisepatch.weights.methods import check_same

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from wisepatch.datasets.base import Samples
    from wisepatch.store.checkpoints import Checkpoint, Store
    from wisepatch.tasks import Task

    Tensors = Mapping[str, torch.Tensor]
    Surprise = Callable[[Tensors, torch.Tensor, torch.Tensor], torch.Tensor]

EXAMPLES = 1000  # images, where nothing else is said
MOST, FEWEST = 64, 16  # images at once
ROOM = 2 << 30  # bytes of gradients at once on a CPU; on a GPU a quarter of its memory
HEAD = "classifier."  # how the names of a trained head begin in a checkpoint


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
    """Measure the Fisher information of both ends on ``task``, or find it in the store; return what recipes say of it.

    That is ``{"files": [[hash, sha256] of start, of end], "examples": n, "seed": seed}``. Of the training split ``examples`` images
    are drawn (all, where it has no more), the same for both ends. Only what differs between the ends is measured: the image tower,
    the head, or both. Raises :class:`ModelError` where a gradient is not finite, and the errors of data, model and store.
    """
    if examples < 1:
        raise UsageError(f"{examples} images have no Fisher information", "--fisher-examples takes 1 or more")
    weights = [load_weights(store, each) for each in (start, end)]
    check_same(*weights)
    moved = {name for name, tensor in weights[0].items() if not torch.equal(tensor, weights[1][name])}
    found = [
        end_fisher(checkpoint, theta, moved, task, store, data, examples, seed, workers, progress or Silent())
        for checkpoint, theta in zip((start, end), weights, strict=True)
    ]
    return {"files": [each["file"] for each in found], "examples": found[0]["examples"], "seed": seed}


def end_fisher(
    checkpoint: Checkpoint,
    theta: Tensors,
    moved: Collection[str],
    task: Task,
    store: Store,
    data: Path,
    examples: int,
    seed: int,
    workers: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Measure the Fisher information of one end, of the tensors ``moved``, or find it; return its file and what is beside it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clip = load_clip(ModelConfig.from_json(checkpoint.model), theta)
    head, bias = theta.get(f"{HEAD}weight"), theta.get(f"{HEAD}bias")
    if head is None:
        head = zeroshot_head(clip, task.dataset.head_names, task.dataset.templates, store, progress.note)
    classifier = Classifier(clip.model.visual, head, bias)
    names = [name for name, _ in classifier.named_parameters() if _stored(name) in moved]
    split = task.dataset.split("train", data, clip.pixels)
    count, chance = min(examples, len(split)), torch.Generator().manual_seed(seed)
    chosen = sorted(torch.randperm(len(split), generator=chance)[:count].tolist())
    draws = torch.rand(count, generator=chance)
    parts = (
        hash_tensors(classifier.state_dict()), str(classifier), str(clip.transform), split.fingerprint(),
        json.dumps([names, count, seed]),
    )  # fmt: skip
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    label, cached = f"Fisher information of {checkpoint.name}", store.cache.find(FISHER_ENTRIES, key)
    progress.note(f"{label}: {count} of {len(split)} training images{' (from the store)' if cached else ''}")

    def measure() -> Tensors:
        progress.start(label, count)
        found = diagonal(
            classifier.to(device), names, Subset(split, chosen), draws, prepare=clip.normalise,
            workers=worker_count(workers, count, clip.batch_bytes(MOST)), progress=progress,
        )  # fmt: skip
        progress.finish()
        if not all(torch.isfinite(tensor).all() for tensor in found.values()):
            raise ModelError(f"the {label} is not finite", "mix with --method linear, or train with a lower --lr")
        return {_stored(name): tensor for name, tensor in found.items()}

    about = {"checkpoint": checkpoint.id, "task": task.name, "examples": count, "of": len(split), "seed": seed}
    waits = f"another process measures the {label}: waiting for it"
    store.cache.tensors(FISHER_ENTRIES, key, measure, lambda: progress.note(waits), note=progress.note, about=about)
    return about | {"file": [key, store.cache.sha256(FISHER_ENTRIES, key)]}


def _stored(name: str) -> str:
    """The name in a checkpoint of a classifier's parameter."""
    return name if name.startswith("visual.") else f"{HEAD}{name}"


def diagonal(
    classifier: Classifier,
    names: Sequence[str],
    samples: Samples,
    draws: torch.Tensor,
    *,
    prepare: Callable[[torch.Tensor], torch.Tensor] = lambda images: images,
    batch_size: int | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, torch.Tensor]:
    """The mean over ``samples`` of the squared gradients of ``log p(y | x)``, for the parameters ``names``; fp32, on the CPU.

    The label ``y`` of image ``i`` is the class in which ``draws[i]``, from [0, 1), falls when the probabilities are laid end to
    end: a sample of the model's prediction that does not depend on the batch size. ``prepare`` is done to a batch on the device.

    The gradients of a batch are taken at once (``torch.func``), one image at a time where the model does something that this
    cannot do. The batch is as large as memory allows unless ``batch_size`` is given.
    """
    progress = progress or Silent()
    device = classifier.weight.device
    classifier.eval().requires_grad_(False)
    wanted = {name: parameter.detach() for name, parameter in classifier.named_parameters() if name in set(names)}
    sums = {name: torch.zeros_like(parameter) for name, parameter in wanted.items()}
    through_tower = any(name.startswith("visual.") for name in wanted)
    size = batch_size or batch_that_fits(wanted, device)
    squares = together if size > 1 else one_by_one

    def surprise(parameters: Tensors, image: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        """``-log p(y | x)`` of one image."""
        said = functional_call(classifier, dict(parameters), (image[None],))[0].float()
        label = (said.detach().softmax(0).cumsum(0) <= draw).sum().clamp(max=len(said) - 1)
        return F.cross_entropy(said, label)

    done = 0
    for batch in loader(samples, size, workers=workers) if wanted else ():
        images = prepare(checked(batch)[0].to(device, non_blocking=True))
        if not through_tower:
            with torch.no_grad():
                images = features(classifier.visual, images)
        first = 0
        while first < len(images):
            some = images[first : first + size]
            try:
                found = squares(surprise, wanted, some, draws[done : done + len(some)].to(device))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size = size // 2
                torch.cuda.empty_cache()
                continue
            except (RuntimeError, NotImplementedError) as error:
                if squares is one_by_one:
                    raise
                squares = one_by_one
                reason = str(error).strip().splitlines()[0][:200]
                progress.note(f"the images go through the model one at a time, which takes longer: {reason}")
                continue
            for name, tensor in found.items():
                sums[name] += tensor
            first, done = first + len(some), done + len(some)
            progress.advance(len(some))
    return {name: (tensor / max(done, 1)).cpu() for name, tensor in sums.items()}


def batch_that_fits(parameters: Tensors, device: torch.device) -> int:
    """How many images are taken at once: each has gradients as large as the model.

    On a CPU one at a time where fewer than ``FEWEST`` fit: a model that large is busy enough with one (measured with ViT-B/32 and
    RN50, whose batches take 1.1 to 1.2 times as long as the loop; those of the embedded model take a third).
    """
    room = torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else ROOM
    each = 4 * sum(parameter.numel() for parameter in parameters.values()) * 3 // 2
    fit = int(min(max(room // max(each, 1), 1), MOST))
    return 1 if device.type == "cpu" and fit < FEWEST else fit


def together(
    surprise: Surprise, parameters: Tensors, images: torch.Tensor, draws: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Sums over the images of squared gradients, all taken at once."""
    # The plain form of attention is the one that can be batched over; what is emulated is slower, and still right.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        each = vmap(grad(surprise), in_dims=(None, 0, 0), randomness="error")
        found = each(dict(parameters), images, draws)
    return {name: gradients.square().sum(0) for name, gradients in found.items()}


def one_by_one(
    surprise: Surprise, parameters: Tensors, images: torch.Tensor, draws: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Sums over the images of squared gradients, one image at a time, as WiSE-FT's code has it."""
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    leaves = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    for image, draw in zip(images, draws, strict=True):
        said = surprise(leaves, image, draw)
        found = torch.autograd.grad(said, list(leaves.values()), allow_unused=True, materialize_grads=True)
        for name, gradient in zip(leaves, found, strict=True):
            sums[name] += gradient.square()
    return sums
