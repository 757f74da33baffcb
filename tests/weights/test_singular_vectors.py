"""Merges by singular vectors against slow transcriptions: which tensors are matrices, ranks, and what happens to the rest."""

import pytest
import torch

from tests.weights.merging import SHAPES, merge, models, near, vectors
from wisepatch.weights.singular_vectors import is_matrix

MATRICES = [name for name, shape in SHAPES.items() if len(shape) == 2 and "projection" not in name and "visual" in name]
MEAN = [name for name in SHAPES if name not in MATRICES]


def orthogonal(matrix):
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v


def transcribed_tsv(taus):
    """Outer products one by one: the first int(n * (1 / N)) singular vectors of each task in its place."""
    tasks, size = len(taus), min(taus[0].shape)
    rank = int(size * (1 / tasks))
    u, v, s = (
        torch.zeros(taus[0].shape[0], size).double(),
        torch.zeros(size, taus[0].shape[1]).double(),
        torch.zeros(size).double(),
    )
    for task, tau in enumerate(taus):
        left, values, right = torch.linalg.svd(tau, full_matrices=False)
        for place in range(rank):
            u[:, task * rank + place], v[task * rank + place] = left[:, place], right[place]
            s[task * rank + place] = values[place]
    return orthogonal(u) @ torch.diag(s) @ orthogonal(v)


def transcribed_iso_cts(taus, common):
    tasks, size = len(taus), min(taus[0].shape)
    specific = round((size - int(size * common)) / tasks) * tasks
    shared = size - specific
    left, values, right = torch.linalg.svd(sum(taus), full_matrices=False)
    us, ss, vs = [left[:, :shared]], [values[:shared]], [right[:shared]]
    for tau in taus:
        rest = tau - left[:, :shared] @ left[:, :shared].T @ tau
        u, s, v = torch.linalg.svd(rest, full_matrices=False)
        us, ss, vs = [*us, u[:, : specific // tasks]], [*ss, s[: specific // tasks]], [*vs, v[: specific // tasks]]
    strength = torch.cat(ss).mean() * torch.eye(size).double()
    return orthogonal(torch.cat(us, 1)) @ strength @ orthogonal(torch.cat(vs))


def transcribed_iso_c(taus):
    u, s, v = torch.linalg.svd(sum(taus), full_matrices=False)
    return u @ torch.diag(torch.full_like(s, s.mean())) @ v


@pytest.mark.parametrize("ends", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("method", "params", "transcribed"),
    [
        ("tsv-m", {}, transcribed_tsv),
        ("iso-c", {}, transcribed_iso_c),
        ("iso-cts", {"common": 0.8}, lambda taus: transcribed_iso_cts(taus, 0.8)),
        ("iso-cts", {"common": 0.5}, lambda taus: transcribed_iso_cts(taus, 0.5)),
        ("iso-cts", {"common": 1.0}, transcribed_iso_c),
    ],
)
def test_matrices_are_merged_as_published_and_of_the_rest_the_mean(method, params, transcribed, ends):
    parents = models(ends=ends, dtype=torch.float64)
    merged, taus = merge(method, parents, scale=0.6, **params), vectors(parents)
    for name in SHAPES:
        each = [tau[name] for tau in taus]
        expected = transcribed(each) if name in MATRICES else sum(each) / ends
        assert near(merged[name], parents[0][name] + 0.6 * expected, 1e-10), name


def test_one_task_keeps_its_singular_vectors_and_the_mean_of_its_singular_values():
    start, end = models(ends=1, dtype=torch.float64)
    name = MATRICES[0]
    tau = merge("iso-c", [start, end])[name] - start[name]
    values, own = torch.linalg.svdvals(tau), torch.linalg.svdvals(end[name] - start[name])
    assert near(values, own.mean().expand_as(values), 1e-10)


def test_common_0_leaves_as_many_singular_vectors_as_the_tasks_share_evenly():
    parents = models(ends=3, dtype=torch.float64)
    merged = merge("iso-cts", parents, common=0.0)
    name = "visual.transformer.resblocks.2.w"  # of 8 singular vectors each task has 2, and not 3, which would be 9
    taus = [tau[name] for tau in vectors(parents)]
    left, values, right = torch.linalg.svd(sum(taus))
    us, ss, vs = [], [], []
    for tau in taus:
        u, s, v = torch.linalg.svd(tau - left[:, :2] @ left[:, :2].T @ tau)
        us, ss, vs = [*us, u[:, :2]], [*ss, s[:2]], [*vs, v[:2]]
    expected = orthogonal(torch.cat([*us, left[:, :2]], 1)) @ orthogonal(torch.cat([*vs, right[:2]]))
    assert near(merged[name], parents[0][name] + torch.cat([*ss, values[:2]]).mean() * expected, 1e-10)


def test_convolutions_of_one_pixel_are_matrices_and_others_are_not():
    for name, shape, expected in (
        ("visual.w", (4, 3), True), ("visual.w", (4, 3, 1, 1), True), ("visual.w", (4, 3, 3, 3), False),
        ("visual.w", (4, 1, 1, 1), False), ("visual.w", (4,), False), ("text_projection", (4, 3), False),
    ):  # fmt: skip
        assert is_matrix(name, torch.zeros(shape)) is expected
    start, *ends = ({"w": torch.randn(6, 4, dtype=torch.float64)} for _ in range(3))
    flat = merge("tsv-m", [start, *ends])["w"]
    convolved = merge("tsv-m", [{"w": each["w"][:, :, None, None]} for each in (start, *ends)])["w"]
    assert near(convolved[:, :, 0, 0], flat, 1e-12)
