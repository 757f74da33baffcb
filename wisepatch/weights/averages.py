"""Merge methods that average models: by weights, by Fisher information, on a sphere, and by the inputs of linear layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.weights import interpolation
from wisepatch.weights.interpolation import FISHER_FLOOR

if TYPE_CHECKING:
    import torch

NEARLY_PARALLEL = 0.9995  # a cosine above it: the arc is a line


def linear(parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Average models, ``sum_i w_i theta_i`` with weights that are made to add up to 1; two with ``alpha`` are interpolated.

    Equal weights are a uniform soup (Wortsman et al. 2022, Model soups, arXiv 2203.05482, section 2).
    """
    import torch

    if "alpha" in params:
        return interpolation.linear(parents, params, out)
    shares = [weight / sum(weights) for weight in weights] if (weights := params.get("weights")) else uniform(parents)
    chosen = [(parent, share) for parent, share in zip(parents, shares, strict=True) if share]
    (base, _), *others = chosen
    if not others:
        return base
    merged, scratch, out = base, torch.empty_like(base), torch.empty_like(base) if out is None else out
    for parent, share in others:
        torch.sub(base, parent, out=scratch).mul_(share)
        merged = torch.sub(merged, scratch, out=out)
    return merged


def uniform(parents: Sequence[Any]) -> list[float]:
    """Return equal shares that add up to 1."""
    return [1 / len(parents)] * len(parents)


def fisher(parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Average models, each number by its Fisher information: ``sum_i w_i F_i theta_i / sum_i w_i F_i``; linearly without.

    ``F_i`` is ``params["fishers"]``, at least ``FISHER_FLOOR``; ``w_i`` are the weights, equal ones where none are given. Two with
    ``alpha`` are :func:`wisepatch.weights.interpolation.fisher`.

    See Matena and Raffel 2022, Merging models with Fisher-weighted averaging (arXiv 2111.09832, equation 3). The floor is that of
    WiSE-FT's code. Theirs has 1e-6, for the first model alone unless told otherwise, and divides each model's information by its
    norm over all weights, which ``weights`` can do here.
    """
    fishers = params.get("fishers")
    if "alpha" in params:
        return interpolation.fisher(parents, params, out)
    if fishers is None:
        return linear(parents, params, out)
    weights = params.get("weights") or uniform(parents)
    shares = [
        weight * each.to(parents[0]).clamp(min=FISHER_FLOOR) for weight, each in zip(weights, fishers, strict=True)
    ]
    total = sum(shares[1:], shares[0])
    merged = parents[0]
    for parent, share in zip(parents[1:], shares[1:], strict=True):
        merged = merged - (parents[0] - parent) * (share / total)
    return merged


def slerp(parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Interpolate two models on the arc between them, tensor by tensor.

    ``(sin((1 - alpha) w) theta_0 + sin(alpha w) theta_1) / sin(w)``, ``w`` the angle between the flattened tensors; linearly where
    these are nearly parallel (a cosine above ``NEARLY_PARALLEL`` in size) or one is 0. alpha 0 and 1 return the parent itself.

    See Shoemake 1985, Animating rotation with quaternion curves (SIGGRAPH).
    """
    import torch

    alpha, (start, end) = params["alpha"], parents
    if alpha in (0, 1):
        return parents[int(alpha)]
    one, other = start.flatten().double(), end.flatten().double()
    norms = one.norm() * other.norm()
    cosine = float((one @ other) / norms) if norms else 1.0
    if not abs(cosine) <= NEARLY_PARALLEL:  # NaN is not
        return interpolation.linear(parents, params, out)
    angle = torch.tensor(cosine, dtype=torch.float64).arccos()
    first, second = (float(torch.sin(share * angle) / torch.sin(angle)) for share in (1 - alpha, alpha))
    return start * first + end * second


def regmean(
    parents: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None
) -> torch.Tensor:
    """Merge a linear layer so that its outputs change least: ``W = (sum_i W_i G_i) (sum_i G_i)^-1``, RegMean.

    ``G_i = X_i^T X_i / n`` are ``params["grams"]`` ``(in, in)``, of the inputs ``X_i`` ``(n, in)`` of the layer in model ``i`` on
    its own training images; what is not on their diagonals is multiplied by ``reduction``. Tensors without are averaged. All is
    computed in fp64; of a sum without full rank it is the pseudo-inverse. The ``reduction`` of 0.9 is RegMean's; the code of
    RegMean++ has 0.95 for CLIP.

    See Jin et al. 2023, Dataless knowledge fusion (arXiv 2212.09849, equation 2 and section 3.3); Nguyen et al. 2025, RegMean++
    (arXiv 2508.03121), measures the Gram matrices on inputs that went through the layers merged before.
    """
    import torch

    grams = params.get("grams")
    if grams is None or all(parent is parents[0] for parent in parents):
        return linear(parents, {}, out)
    reduced = [_reduced(gram.double().to(parents[0].device), params["reduction"]) for gram in grams]
    total = sum(reduced[1:], reduced[0])
    base = parents[0].flatten(1).double()
    # As differences from the first: models that are equal give themselves.
    moved = torch.zeros_like(base)
    for parent, gram in zip(parents[1:], reduced[1:], strict=True):
        moved += (parent.flatten(1).double() - base) @ gram
    factor, not_definite = torch.linalg.cholesky_ex(total)
    if not_definite:
        step = torch.linalg.lstsq(total.cpu(), moved.T.cpu(), driver="gelsd").solution.T.to(base.device)
    else:
        step = torch.cholesky_solve(moved.T, factor).T
    merged: torch.Tensor = (base + step).to(parents[0].dtype).view_as(parents[0])
    return merged


def _reduced(gram: torch.Tensor, reduction: float) -> torch.Tensor:
    """Multiply what is not on the diagonal."""
    reduced: torch.Tensor = gram * reduction
    reduced.diagonal().copy_(gram.diagonal())
    return reduced
