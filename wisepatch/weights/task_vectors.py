"""Merge methods that add task vectors ``tau_i = theta_i - theta_0`` to a start; the first parent is the start, the others ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.weights.interpolation import linear

if TYPE_CHECKING:
    import torch


def task_arithmetic(
    parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None
) -> torch.Tensor:
    """Add task vectors to the start, the first parent: ``theta_0 + sum_i a_i (theta_i - theta_0)``.

    ``params["alphas"]`` holds the coefficient of each end, ``params["alpha"]`` one for all; any number, a negative one forgets. One
    end alone is :func:`linear`, also outside 0 to 1, and ends with coefficient 0 have no part.

    See Ilharco et al. 2023, Editing models with task arithmetic (arXiv 2212.04089, section 2), and PAINT section 5 (parallel).
    """
    import torch

    start, *ends = parents
    alphas = params.get("alphas") or [params["alpha"]] * len(ends)
    moving = [(end, alpha) for end, alpha in zip(ends, alphas, strict=True) if alpha != 0]
    if not moving:
        return start
    if len(moving) == 1:
        ((end, alpha),) = moving
        return linear((start, end), {"alpha": alpha}, out)
    merged, scratch, out = start, torch.empty_like(start), torch.empty_like(start) if out is None else out
    for end, alpha in moving:
        near, far = (start, end) if alpha >= 0 else (end, start)
        torch.sub(near, far, out=scratch).mul_(abs(alpha))
        merged = torch.sub(merged, scratch, out=out)
    return merged
