"""Merge methods that take the matrices of task vectors apart into singular vectors, one matrix over all ends at a time.

Matrices are tensors of two dimensions but for ``text_projection``, as in the published code of both papers, and convolutions
of one pixel, which are the same as a linear layer; of all other tensors the task vector is the mean over the ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NOT_A_MATRIX = "text_projection"
ONE_PIXEL = (1, 1)


def is_matrix(name: str, tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is the matrix of a layer: ``(out, in)``, or a convolution ``(out, in, 1, 1)``."""
    return NOT_A_MATRIX not in name and (
        tensor.ndim == 2 or (tensor.ndim == 4 and tensor.shape[2:] == ONE_PIXEL and tensor.shape[1] > 1)
    )


def _mean(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = vectors[0].clone()
    for index, vector in enumerate(vectors[1:], 2):
        total += (vector - total) / index
    return total


def _svd(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import torch

    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, v


def _nearest_orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Solve the orthogonal Procrustes problem: the nearest matrix with orthonormal columns (or rows), ``U V`` of its SVD."""
    u, _, v = _svd(matrix)
    return u @ v


def tsv_m(vectors: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Put the first singular vectors of all task matrices side by side, and make each side orthogonal: TSV-Merge.

    Of each task matrix ``U_i S_i V_i`` the first ``int(n * (1 / N))`` of its ``n`` singular vectors stay; with
    ``U = [U_1 ... U_N]``, ``S`` and ``V`` likewise, the task matrix is ``U' S V'``, where ``U'`` and ``V'`` are the nearest
    orthogonal matrices.

    See Gargiulo et al. 2025, Task Singular Vectors (arXiv 2412.00081, section 4.2 and algorithm 1), ranks as in its published code.
    """
    import torch

    if not is_matrix(params["tensor"], vectors[0]):
        return _mean(vectors)
    matrices = [vector.flatten(1) for vector in vectors]
    size = min(matrices[0].shape)
    rank = int(size * (1 / len(matrices)))
    u, s, v = torch.zeros_like(matrices[0][:, :size]), matrices[0].new_zeros(size), torch.zeros_like(matrices[0][:size])
    for index, matrix in enumerate(matrices):
        place, (left, values, right) = slice(index * rank, (index + 1) * rank), _svd(matrix)
        u[:, place], s[place], v[place] = left[:, :rank], values[:rank], right[:rank]
    return (_nearest_orthogonal(u) * s @ _nearest_orthogonal(v)).view_as(vectors[0])


def iso_c(vectors: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None) -> torch.Tensor:
    """Give the sum of the task matrices one singular value, the mean of its own: ``mean(S) U V``, Iso-C.

    See Marczak et al. 2025, No task left behind (arXiv 2502.04959, section 4.1 and algorithm 1).
    """
    if not is_matrix(params["tensor"], vectors[0]):
        return _mean(vectors)
    u, s, v = _svd(_total(vectors).flatten(1))
    return (u @ v * s.mean()).view_as(vectors[0])


def iso_cts(
    vectors: Sequence[torch.Tensor], params: Mapping[str, Any], out: torch.Tensor | None = None
) -> torch.Tensor:
    """Replace the last singular vectors of the sum by those of single tasks, make all orthogonal and equally strong: Iso-CTS.

    The first ``k`` singular vectors of the sum of the task matrices are the common space; of each task matrix without that
    (``tau_i - U_k U_k^T tau_i``) the first ``(n - k) / N`` are added. ``U'`` and ``V'`` are the nearest orthogonal matrices, and
    the task matrix is ``mean(S) U' V'``. ``k`` is ``common * n``, rounded so that each task has the same number of them.

    See Marczak et al. 2025 (arXiv 2502.04959, section 4.2 and algorithm 2).
    """
    import torch

    if not is_matrix(params["tensor"], vectors[0]):
        return _mean(vectors)
    matrices, tasks = [vector.flatten(1) for vector in vectors], len(vectors)
    size = min(matrices[0].shape)
    each = min(round((size - int(size * params["common"])) / tasks), size // tasks)
    common = size - each * tasks
    left, values, right = _svd(_total(matrices))
    left, values, right = left[:, :common], values[:common], right[:common]
    us, ss, vs = [], [], []
    for matrix in matrices:
        u, s, v = _svd(matrix - left @ (left.T @ matrix))
        us.append(u[:, :each])
        ss.append(s[:each])
        vs.append(v[:each])
    strength = torch.cat([*ss, values]).mean()
    u, v = _nearest_orthogonal(torch.cat([*us, left], 1)), _nearest_orthogonal(torch.cat([*vs, right]))
    return (u @ v * strength).view_as(vectors[0])


def _total(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = vectors[0].clone()
    for vector in vectors[1:]:
        total += vector
    return total
