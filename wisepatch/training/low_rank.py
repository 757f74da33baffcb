"""Train low-rank updates of the linear layers, and merge them at the end (Hu et al. 2022, LoRA, section 4.1).

PyTorch's parametrisations do it, and PEFT does not: its layers stand in for modules, and the towers here read the weights of
``MultiheadAttention`` by themselves (:mod:`wisepatch.models.tower`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.nn.utils import parametrize


class LowRank(torch.nn.Module):
    """Add ``up @ down`` to a weight, of rank ``rank``: ``down`` is drawn, ``up`` begins as zeros, and so does the update.

    The paper multiplies by ``alpha / rank`` and sets ``alpha`` to the rank that is tried first: that is 1 here.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        """Make the factors of an update of ``weight`` ``(out, in, ...)``."""
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)
        self.down = torch.nn.Parameter(torch.randn(rank, columns, device=weight.device) / math.sqrt(columns))
        self.up = torch.nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with its update, in fp32 whatever else is computed in."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.up @ self.down).view_as(weight)


def adapt(classifier: torch.nn.Module, rank: int) -> None:
    """Freeze the towers, and give each linear layer of them an update of rank ``rank`` to train.

    Linear layers are attention's projections, those of the MLPs, and convolutions of one pixel. The head stays as it was.
    """
    layers = list(linear_weights(classifier))
    for name, parameter in classifier.named_parameters():
        if name.startswith(("visual.", "text.")):
            parameter.requires_grad = False
    for module, name in layers:
        weight = getattr(module, name)
        parametrize.register_parametrization(module, name, LowRank(weight, rank))


def linear_weights(classifier: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str]]:
    """Yield the modules of linear layers, with the names of their weights."""
    for module in classifier.modules():
        if isinstance(module, torch.nn.MultiheadAttention) and module.in_proj_weight is not None:
            yield module, "in_proj_weight"
        pointwise = isinstance(module, torch.nn.Conv2d) and module.groups == 1 and set(module.kernel_size) == {1}
        if isinstance(module, torch.nn.Linear) or pointwise:
            yield module, "weight"


def merge(classifier: torch.nn.Module) -> None:
    """Add the updates to the weights for good; a classifier without any stays as it is."""
    for module in list(classifier.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name in list(module.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(module, str(name), leave_parametrized=True)
