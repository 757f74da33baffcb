"""Averages of models: by weights, Fisher information, on an arc, and by the inputs of linear layers."""

import math

import pytest
import torch

from tests.weights.merging import SHAPES, merge, models, near
from tests.weights.test_interpolation import FLOATS, same_bits

MATRICES = [name for name, shape in SHAPES.items() if len(shape) == 2]


def grams_of(parents, seed=0):
    """Gram matrices of random inputs for each matrix of each model."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [{name: torch.randn(50, SHAPES[name][1], generator=generator) for name in MATRICES} for _ in parents]
    return [{name: x.T @ x / len(x) for name, x in each.items()} for each in inputs]


def equal_models(dtype=torch.float32):
    start = models(ends=0, dtype=dtype)[0] | {"odd": torch.tensor([0.0, -0.0, float("-inf")], dtype=dtype)}
    return [start, *({name: tensor.clone() for name, tensor in start.items()} for _ in range(2))]


@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_models_give_themselves_to_the_bit(dtype):
    parents = equal_models(dtype)
    fishers = [{name: torch.rand(shape) for name, shape in SHAPES.items()} for _ in parents]
    for merged in (
        merge("linear", parents, weights=[1, 1, 1]),
        merge("linear", parents, weights=[0.2, 0.3, 0.1]),
        merge("fisher", parents, fishers, weights=[1, 2, 1]),
        merge("slerp", parents[:2], alpha=0.3),
        merge("regmean", parents, grams_of(parents)),
    ):
        assert all(same_bits(merged[name], tensor) for name, tensor in parents[0].items())


@pytest.mark.parametrize("weights", [[1, 1, 1], [0.5, 0.2, 0.3], [3, 0, 1], [0, 0, 2]])
def test_linear_is_the_weighted_average(weights):
    parents = models(ends=2, dtype=torch.float64)
    merged = merge("linear", parents, weights=weights)
    for name in SHAPES:
        expected = sum(weight * parent[name] for weight, parent in zip(weights, parents, strict=True)) / sum(weights)
        assert near(merged[name], expected, 1e-12)


def test_a_model_that_alone_has_weight_is_given_to_the_bit():
    parents = models(ends=2)
    merged = merge("linear", parents, weights=[0, 5, 0])
    assert all(same_bits(merged[name], parents[1][name]) for name in SHAPES)
    assert all(same_bits(each, parents[0][name]) for name, each in merge("linear", parents[:1], weights=[2]).items())


def test_two_models_with_equal_weights_are_the_mix_at_one_half():
    parents = models(ends=1)
    merged, mixed = merge("linear", parents, weights=[1, 1]), merge("linear", parents, alpha=0.5)
    assert all(near(merged[name], mixed[name], 1e-6) for name in SHAPES)


@pytest.mark.parametrize("weights", [None, [1, 2, 0.5]])
def test_fisher_weighs_each_number_by_its_information(weights):
    parents = models(ends=2, dtype=torch.float64)
    fishers = [{name: torch.rand(shape, dtype=torch.float64) for name, shape in SHAPES.items()} for _ in parents]
    merged = merge("fisher", parents, fishers, weights=weights or [1, 1, 1])
    shares = weights or [1, 1, 1]
    for name in SHAPES:
        above = sum(w * f[name] * p[name] for w, f, p in zip(shares, fishers, parents, strict=True))
        assert near(merged[name], above / sum(w * f[name] for w, f in zip(shares, fishers, strict=True)), 1e-10)


def test_fisher_of_two_models_is_the_mix_with_the_same_share():
    parents = models(ends=1)
    fishers = [{name: torch.rand(shape) for name, shape in SHAPES.items()} for _ in parents]
    merged, mixed = (merge("fisher", parents, fishers, **p) for p in ({"weights": [0.7, 0.3]}, {"alpha": 0.3}))
    assert all(near(merged[name], mixed[name], 1e-6) for name in SHAPES)


def test_without_fisher_information_models_are_averaged():
    parents = models(ends=2)
    merged, averaged = merge("fisher", parents, weights=[1, 1, 2]), merge("linear", parents, weights=[1, 1, 2])
    assert all(same_bits(merged[name], averaged[name]) for name in SHAPES)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
def test_slerp_stays_on_the_arc_between_two_tensors(alpha):
    start, end = ({"w": torch.randn(6, 5, dtype=torch.float64)} for _ in range(2))
    end = {"w": end["w"] / end["w"].norm() * start["w"].norm()}
    merged = merge("slerp", [start, end], alpha=alpha)["w"]
    assert math.isclose(float(merged.norm()), float(start["w"].norm()), rel_tol=1e-12)

    def angle(one, other):
        return math.acos(float((one * other).sum() / one.norm() / other.norm()))

    assert math.isclose(angle(start["w"], merged), alpha * angle(start["w"], end["w"]), rel_tol=1e-9)


def test_slerp_of_nearly_parallel_or_empty_tensors_is_the_linear_mix():
    start, end = models(ends=1, size=1e-3)
    start, end = start | {"zero": torch.zeros(3)}, end | {"zero": torch.ones(3)}
    merged, mixed = merge("slerp", [start, end], alpha=0.3), merge("linear", [start, end], alpha=0.3)
    assert all(same_bits(merged[name], mixed[name]) for name in start)


@pytest.mark.parametrize("dtype", FLOATS)
def test_slerp_ends_at_its_parents_to_the_bit(dtype):
    parents = models(ends=1, dtype=dtype)
    for alpha in (0, 1):
        assert all(same_bits(each, parents[alpha][name]) for name, each in merge("slerp", parents, alpha=alpha).items())


@pytest.mark.parametrize("reduction", [0.0, 0.9, 1.0])
def test_regmean_solves_for_the_outputs_of_linear_layers(reduction):
    parents = models(ends=2, dtype=torch.float64)
    grams = grams_of(parents)
    merged = merge("regmean", parents, grams, reduction=reduction)
    for name in SHAPES:
        if name not in MATRICES:
            assert near(merged[name], sum(parent[name] for parent in parents) / 3, 1e-12)
            continue
        scaled = [
            torch.where(torch.eye(len(gram[name])).bool(), gram[name], reduction * gram[name]).double()
            for gram in grams
        ]
        above = sum(gram @ parent[name].T for gram, parent in zip(scaled, parents, strict=True))
        assert near(merged[name], (torch.linalg.inv(sum(scaled)) @ above).T, 1e-8)


def test_regmean_minimises_the_squares_between_outputs():
    parents = models(ends=1, dtype=torch.float64)
    name, inputs = MATRICES[0], [torch.randn(40, SHAPES[MATRICES[0]][1], dtype=torch.float64) for _ in range(2)]
    grams = [{name: x.T @ x / len(x)} for x in inputs]
    merged = merge("regmean", parents, grams, reduction=1)[name]

    def loss(matrix):
        return sum(float(((x @ (matrix - p[name]).T) ** 2).sum()) for x, p in zip(inputs, parents, strict=True))

    for direction in range(5):
        step = 1e-3 * torch.randn(merged.shape, generator=torch.Generator().manual_seed(direction), dtype=torch.float64)
        assert loss(merged) < loss(merged + step)


def test_regmean_with_inputs_that_are_always_0_takes_the_pseudo_inverse():
    parents = models(ends=1, dtype=torch.float64)
    grams = grams_of(parents)
    for each in grams:
        each[MATRICES[0]][0] = each[MATRICES[0]][:, 0] = 0
    merged = merge("regmean", parents, grams)[MATRICES[0]]
    assert bool(merged.isfinite().all())
    assert near(merged[:, 0], parents[0][MATRICES[0]][:, 0], 1e-9)
