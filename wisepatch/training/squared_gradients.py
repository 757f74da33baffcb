"""Average the squared gradients of a classifier's log-likelihood over images: the diagonal of its Fisher information.

All gradients of a batch are taken at once (``torch.func``), as many as there is memory for; the sums are those of one image after
another, in any number of processes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from wisepatch.datasets.loading import batches_on
from wisepatch.datasets.samples import Samples
from wisepatch.models.classifier import Classifier, features
from wisepatch.process_group import from_all, from_process
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import size as process_count

Tensors = Mapping[str, torch.Tensor]
NLL = Callable[[Tensors, torch.Tensor, torch.Tensor], torch.Tensor]  # parameters, image, uniform: of one label

MAX_BATCH_IMAGES = 64  # also what is added up first, and then to the whole: the order does not depend on the processes
MIN_BATCH_IMAGES_ON_CPU = 16
GRADIENT_BYTES_ON_CPU = 2 << 30
GPU_MEMORY_SHARE = 4  # gradients take up to one part in so many


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
