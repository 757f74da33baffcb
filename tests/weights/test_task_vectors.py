"""Task vectors added to a start: the equation, its laws, and what stays to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights.test_interpolation import FLOATS, finite, same_bits
from wisepatch.weights import methods
from wisepatch.weights.methods import LINEAR, TASK_ARITHMETIC, merge_tensor, merge_weights

rows = st.lists(st.tuples(finite, finite, finite, finite), min_size=1, max_size=20)
scales = st.floats(-3, 3)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let a few numbers fill several blocks."""
    monkeypatch.setattr(methods, "SCRATCH_ELEMENTS", 7)


def parents_of(values, dtype=torch.float32):
    return list(torch.tensor(values, dtype=torch.float64).T.to(dtype))


def add(parents, **params):
    return merge_tensor(TASK_ARITHMETIC, parents, params)


def transcribed(parents, alphas):
    """The sum as it is written, in fp64."""
    start, *ends = (parent.double() for parent in parents)
    return start + sum(alpha * (end - start) for end, alpha in zip(ends, alphas, strict=True))


@settings(deadline=None, max_examples=100)
@given(rows, st.tuples(scales, scales, scales))
def test_each_end_adds_its_task_vector_times_its_coefficient(values, alphas):
    parents = parents_of(values)
    tolerance = 1e-5 * max(1.0, max(float(parent.abs().max()) for parent in parents))
    assert (add(parents, alphas=list(alphas)).double() - transcribed(parents, alphas)).abs().max() <= tolerance


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_scale_for_all_ends_is_that_coefficient_for_each(dtype):
    parents = list(torch.randn(4, 40, generator=torch.Generator().manual_seed(0)).to(dtype))
    assert same_bits(add(parents, alpha=0.3), add(parents, alphas=[0.3, 0.3, 0.3]))


@settings(deadline=None, max_examples=50)
@given(rows, st.sampled_from(FLOATS))
def test_scale_0_is_the_start_to_the_bit(values, dtype):
    parents = parents_of(values, dtype)
    assert same_bits(add(parents, alpha=0), parents[0])
    assert same_bits(add(parents, alphas=[0.0, 0.0, 0.0]), parents[0])


@settings(deadline=None, max_examples=50)
@given(rows, st.floats(0, 1), st.sampled_from(FLOATS))
def test_one_end_is_the_linear_mix_to_the_bit(values, alpha, dtype):
    start, end, *others = parents_of(values, dtype)
    expected = merge_tensor(LINEAR, (start, end), {"alpha": alpha})
    assert same_bits(add((start, end), alpha=alpha), expected)
    assert same_bits(add((start, *others, end), alphas=[0, 0, alpha]), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [-1.5, -0.1, 0.3, 1, 2.5])
def test_ends_that_are_the_start_change_nothing(dtype, scale):
    start = torch.tensor([0.0, -0.0, float("inf"), -3.25, 1e-4], dtype=dtype)
    for ends in (1, 3):
        assert same_bits(add([start, *[start.clone()] * ends], alpha=scale), start)


def test_a_negative_scale_moves_away_from_the_end():
    start, end = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0])
    assert add((start, end), alpha=-1).tolist() == [-1.0, 3.0]
    assert add((start, end), alpha=2).tolist() == [5.0, 0.0]
    assert add((start, end, end), alphas=[1, -1]).tolist() == start.tolist()


def test_the_order_of_ends_matters_in_the_last_bits_at_most():
    start, *ends = torch.randn(5, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(add([start, *ends], alpha=0.4), add([start, *ends[::-1]], alpha=0.4), rtol=0, atol=1e-15)


def test_the_head_of_one_parent_stays_as_it_is():
    start, one, other = ({"w": torch.full((3,), value)} for value in (1.0, 2.0, 4.0))
    head = {"classifier.weight": torch.randn(2, 3), "classifier.bias": torch.tensor([0.0, -0.0])}
    for parents in ((start, one | head, other), (start | head, one, other)):
        merged = merge_weights(TASK_ARITHMETIC, parents, {"alpha": 0.5})
        assert merged["w"].tolist() == [3.0, 3.0, 3.0]
        assert all(same_bits(merged[name], tensor) for name, tensor in head.items())
