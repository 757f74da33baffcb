"""The algebra of two models: ``theta = (1 - alpha) * theta_0 + alpha * theta_1`` (WiSE-FT eq. 1, PAINT section 2).

The mix is ``base - (base - other) * weight`` from the nearer end, each operation rounded on its own: the same bits on every machine
(``torch.lerp`` fuses two of them where the processor can), and numbers that both ends have in common stay, -0.0 too.
:func:`wisepatch.weights.methods.merge_tensor` widens the ends to fp32 (fp64 for fp64) before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FISHER_FLOOR = 1e-8  # of WiSE-FT's code: where neither end has information, the mix is the linear one


def linear(parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Interpolate two tensors at ``params["alpha"]``; 0 and 1 return the parent itself."""
    import torch

    alpha = params["alpha"]
    if alpha in (0, 1):
        return parents[int(alpha)]
    start, end = parents
    rounded = float(torch.tensor(alpha, dtype=start.dtype))
    base, other, weight = (start, end, rounded) if rounded < 0.5 else (end, start, 1 - rounded)
    near, far = (base, other) if weight >= 0 else (other, base)  # the signs of a difference of nothing keep -0.0
    step = torch.sub(near, far, out=out).mul_(abs(weight))
    return torch.sub(base, step, out=step)


def along(parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Move from a start along a task vector, ``theta_0 + scale * tau``; where ``tau`` is 0 the start stays, -0.0 too."""
    import torch

    (start, vector), scale = parents, params["scale"]
    if scale == 0:
        return start
    step = torch.mul(vector, -scale, out=out)
    step.masked_fill_(vector == 0, 0.0)
    return torch.sub(start, step, out=step)


def fisher(parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Interpolate each number by its :func:`fisher_share`, of ``params["fishers"]``; linearly where that is missing.

    See Matena and Raffel 2021 (arXiv 2111.09832) and WiSE-FT's code.
    """
    import torch

    fishers = params.get("fishers")
    if fishers is None or params["alpha"] in (0, 1):
        return linear(parents, params, out)
    start, end = parents
    share = fisher_share(fishers[0].to(start), fishers[1].to(start), params["alpha"])
    near = share < 0.5
    base, other = torch.where(near, start, end), torch.where(near, end, start)
    step = torch.sub(base, other, out=out).mul_(torch.where(near, share, 1 - share))
    return torch.sub(base, step, out=step)


def fisher_share(fisher_0: torch.Tensor, fisher_1: torch.Tensor, alpha: float) -> torch.Tensor:
    """Compute the end's share of a Fisher-weighted mix, ``w = alpha F_1 / ((1 - alpha) F_0 + alpha F_1)``.

    ``theta_0 + w (theta_1 - theta_0)`` is ``((1 - alpha) F_0 theta_0 + alpha F_1 theta_1) / ((1 - alpha) F_0 + alpha F_1)``.
    Both are clamped to at least ``FISHER_FLOOR``; where they are equal, ``w`` is alpha.
    """
    import torch

    start, end = fisher_0.clamp(min=FISHER_FLOOR), fisher_1.clamp(min=FISHER_FLOOR)
    return torch.where(start == end, alpha, alpha * end / ((1 - alpha) * start + alpha * end))
