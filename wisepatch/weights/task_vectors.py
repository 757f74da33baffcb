"""Merge methods that work with task vectors ``tau_i = theta_i - theta_0`` of ends that have one start."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from wisepatch.weights.depth import block_of, depths
from wisepatch.weights.interpolation import linear
from wisepatch.weights.singular_vectors import ONE_PIXEL

if TYPE_CHECKING:
    import torch

    from wisepatch.hookspecs import Vectors

BUCKETS = 1 << 16  # of the upper and of the lower half of a float's bits
LOWER_BITS = 16


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


def ties(vectors: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Trim, elect a sign, and merge what agrees with it: TIES.

    Of each task vector the numbers with the largest magnitudes of the whole model stay (``density``), the others become 0; at
    each place ``sign(sum_i tau_i)`` is elected, and ``tau`` is the mean (or the sum) of the numbers that have this sign. Where the
    sum is 0 the sign is that of the majority of all places. ``params["survey"]`` is that of :func:`survey_ties`.

    See Yadav et al. 2023, TIES-Merging (arXiv 2306.01708, algorithm 1); kept are, as in its published code, numbers at least as
    large as the one of rank ``d - int(d * density)`` from below, of the ``d`` numbers of tensors that some end has changed.
    """
    import torch

    trimmed = [_trimmed(vector, least) for vector, least in zip(vectors, params["survey"]["least"], strict=True)]
    total = _sum(trimmed)
    sign = torch.where(total == 0, params["survey"]["sign"], total.sign())
    agreeing = [torch.where(torch.where(sign > 0, each > 0, each < 0), each, 0) for each in trimmed]
    merged = _sum(agreeing)
    if params["consensus"] == "mean":
        merged /= sum((each != 0).to(merged.dtype) for each in agreeing).clamp_(min=1)  # type: ignore[union-attr]
    return merged


def survey_ties(names: Sequence[str], vectors: Vectors, params: Mapping[str, Any]) -> dict[str, Any]:
    """Find the least magnitude that is kept of each task vector, and the sign of the majority, over the whole model."""
    least = _least_kept(vectors, params["density"])
    signs = 0.0
    for _, each in vectors():
        signs += float(_sum([_trimmed(vector, bound) for vector, bound in zip(each, least, strict=True)]).sign().sum())
    return {"least": least, "sign": float((signs > 0) - (signs < 0))}


def _trimmed(vector: torch.Tensor, least: float) -> torch.Tensor:
    import torch

    return torch.where(vector.abs().float() >= least, vector, 0)


def _least_kept(vectors: Vectors, density: float) -> list[float]:
    """Return the magnitude of rank ``d - int(d * density)`` of each task vector, by two counts of the bits of its floats.

    Floats that are not negative are ordered as their bits are: the upper half tells the bucket, the lower one the number in it.
    """
    import torch

    upper = _count_bits(vectors, lambda bits: bits >> LOWER_BITS)
    found = []
    for counts in upper:
        total = int(counts.sum())
        rank = max(total - int(total * density), 1) if density < 1 else 0
        below = counts.cumsum(0)
        bucket = int(torch.searchsorted(below, rank))
        found.append((rank, bucket, rank - int(below[bucket] - counts[bucket])))
    lower = _count_bits(vectors, lambda bits: bits & (BUCKETS - 1), [bucket for _, bucket, _ in found])
    least = []
    for counts, (rank, bucket, place) in zip(lower, found, strict=True):
        bits = (bucket << LOWER_BITS) + (int(torch.searchsorted(counts.cumsum(0), place)) if rank else 0)
        least.append(float(torch.tensor(bits, dtype=torch.int32).view(torch.float32)) if rank else 0.0)
    return least


def _count_bits(
    vectors: Vectors, half: Callable[[torch.Tensor], torch.Tensor], buckets: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """Count by one half of their bits the magnitudes of each task vector; with ``buckets`` those whose upper half is that."""
    import torch

    counts: list[torch.Tensor] = []
    for _, each in vectors():
        counts = counts or [torch.zeros(BUCKETS, dtype=torch.int64) for _ in each]
        for index, vector in enumerate(each):
            bits = vector.abs().float().contiguous().view(torch.int32).flatten()
            if buckets is not None:
                bits = bits[bits >> LOWER_BITS == buckets[index]]
            counts[index] += torch.bincount(half(bits), minlength=BUCKETS).cpu()
    return counts


def dare(vectors: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Drop numbers of each task vector at random and rescale the others: ``sum_i (1 - m_i) tau_i / (1 - p)``, DARE.

    ``m_i`` is 1 with probability ``p``, the drop rate; its draws follow from the seed, the tensor's name and the end's place.

    See Yu et al. 2024, Language models are Super Mario (arXiv 2311.03099, section 3), with sum and scale of task arithmetic; its
    published code searches for a scale from 0.1 to 1.
    """
    drop = params["drop"]
    if drop == 0:
        return _sum(vectors)
    kept = [~drop_mask(params["seed"], params["tensor"], index, vector, drop) for index, vector in enumerate(vectors)]
    total = _sum([vector * mask for vector, mask in zip(vectors, kept, strict=True)])
    return total.div_(1 - drop)


def drop_mask(seed: int, tensor: str, end: int, like: torch.Tensor, drop: float) -> torch.Tensor:
    """Draw which numbers are dropped of one end's task vector: the same on every machine and device."""
    import torch

    words = hashlib.sha256(f"{seed} {end} {tensor}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(words[:8], "little") >> 1)
    return (torch.rand(like.shape, generator=generator) < drop).to(like.device)


def breadcrumbs(
    vectors: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None
) -> torch.Tensor:
    """Keep the numbers of middle magnitude of each task vector, and add them up: ``sum_i m_i tau_i``.

    In each row (of the last dimension, ``n`` numbers; of a convolution of one pixel, its inputs) the ``int(n * outliers)`` largest
    become 0, and then all but the ``int(n * density)`` largest of the rest. Single numbers stay.

    See Davari and Belilovsky 2024, Model Breadcrumbs (arXiv 2312.06795, section 3), rows and ranks as in its published code, which
    searches for the scale from 0.2 on; 0.4 is that of task arithmetic.
    """
    return _sum([_middle(vector, params["density"], params["outliers"]) for vector in vectors])


def _middle(vector: torch.Tensor, density: float, outliers: float) -> torch.Tensor:
    import torch

    if vector.ndim == 0:
        return vector
    if vector.ndim == 4 and vector.shape[2:] == ONE_PIXEL:
        return _middle(vector.flatten(1), density, outliers).view_as(vector)
    width = vector.shape[-1]
    largest = vector.abs().topk(int(width * outliers)).indices
    rest = vector.scatter(-1, largest, 0.0)
    kept = rest.abs().topk(int(width * density)).indices
    return torch.zeros_like(vector).scatter(-1, kept, rest.gather(-1, kept))


def lines(vectors: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Scale task vectors by depth: ``(alpha + beta l / (L - 1)) sum_i tau_i`` in block ``l`` of ``L``, ``alpha`` outside of blocks.

    Without ``alpha`` it is ``1 / N`` for ``N`` ends, and ``1 - beta`` for one.

    See Wang et al. 2025, LiNeS (arXiv 2410.17146, equation 3 and section 5.2).
    """
    beta = params["beta"]
    alpha = params.get("alpha", 1 - beta if len(vectors) == 1 else 1 / len(vectors))
    block = block_of(params["tensor"])
    return _sum(vectors).mul_(alpha + beta * params["survey"][block] if block else alpha)


def survey_lines(names: Sequence[str], vectors: Vectors, params: Mapping[str, Any]) -> dict[str, float]:
    """Return the depth of each block of the model, from 0 to 1; no tensor is read."""
    return depths(names)


def model_stock(
    vectors: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None
) -> torch.Tensor:
    """Move towards the mean of the ends as far as their angle tells: ``t tau_mean``, tensor by tensor.

    ``t = N cos / (1 + (N - 1) cos)`` for ``N`` ends, ``cos`` the mean over all pairs of the cosine between their task vectors;
    where it is below 0 the ends have nothing in common and ``t`` is 0.

    See Jang et al. 2024, Model Stock (arXiv 2403.19522, equation 2 and appendix for more than two). No code of the authors was
    found; mergekit's takes the mean of the cosines too, and moves away from the ends where it is below 0.
    """
    flat = [vector.flatten() for vector in vectors]
    norms = [vector.norm() for vector in flat]
    cosines = [
        float(flat[one] @ flat[other] / (norms[one] * norms[other]).clamp_min(1e-12))
        for one, other in combinations(range(len(flat)), 2)
    ]
    cosine, ends = min(max(sum(cosines) / len(cosines), 0.0), 1.0), len(vectors)
    return _sum(vectors) * (cosine / (1 + (ends - 1) * cosine))


def _sum(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = vectors[0].clone()
    for vector in vectors[1:]:
        total += vector
    return total
