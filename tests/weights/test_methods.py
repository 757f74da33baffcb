"""Merging state dicts by any method: types, targets, integer buffers, blocks, and parents that do not fit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights.test_interpolation import FLOATS, alphas, dtypes, ends, pairs, same_bits
from wisepatch.errors import StoreError
from wisepatch.hookspecs import MergeMethod
from wisepatch.weights import methods
from wisepatch.weights.methods import LINEAR, check_same, interpolate, merge_tensor, merge_weights

SAME_HEAD = "mix checkpoints that were made from the same model (and with the same kind of head)"


def merge(start, end, alpha, out=None):
    return merge_tensor(LINEAR, (start, end), {"alpha": alpha}, out)


def test_the_built_in_methods_are_registered():
    registered = {method.name: method for method in methods.register_merge_methods()}
    assert list(registered) == [
        "linear", "fisher", "task-arithmetic", "ties", "dare", "breadcrumbs", "regmean", "regmean++", "lines", "model-stock",
        "slerp", "tsv-m", "iso-c", "iso-cts",
    ]  # fmt: skip
    assert all(method.parameters and method.reference for method in registered.values())
    assert [name for name, method in registered.items() if method.needs_fisher] == ["fisher"]


def mean(parents, params, out):
    return sum(parents) / len(parents)


@pytest.mark.parametrize("elementwise", [False, True])
def test_a_method_of_any_number_of_parents_gets_wide_tensors_in_blocks_or_whole(monkeypatch, elementwise):
    monkeypatch.setattr(methods, "SCRATCH_ELEMENTS", 4)
    shapes = []

    def watched(parents, params, out):
        shapes.append((parents[0].dtype, tuple(parents[0].shape), params["scale"]))
        return mean(parents, params, out)

    parents = [{"w": torch.full((2, 3), value).bfloat16(), "n": torch.tensor([7])} for value in (1.0, 2.0, 6.0)]
    merged = merge_weights(MergeMethod("mean", watched, elementwise=elementwise), parents, {"scale": 2})
    assert same_bits(merged["w"], torch.full((2, 3), 3.0).bfloat16())
    assert merged["n"].tolist() == [7]
    assert shapes == [(torch.float32, shape, 2) for shape in ([(4,), (2,)] if elementwise else [(2, 3)])]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_parent_that_a_method_returns_is_given_bit_for_bit(dtype):
    odd = torch.tensor([0.0, -0.0, float("inf"), float("nan")], dtype=dtype)
    odd.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize])[3] += 1  # NaN with a payload
    last = MergeMethod("last", lambda parents, params, out: parents[-1])
    assert same_bits(merge_tensor(last, (torch.ones(4, dtype=dtype), odd), {}), odd)


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinities_that_three_parents_have_in_common_stay(dtype):
    mask = torch.tensor([0.0, float("-inf"), float("inf")], dtype=dtype)
    difference = MergeMethod("sum of differences", lambda p, params, out: p[0] + (p[1] - p[0]) + (p[2] - p[0]))
    assert same_bits(merge_tensor(difference, (mask, mask.clone(), mask.clone()), {}), mask)


def test_parameters_that_want_gradients_are_merged_without():
    start, end = (torch.nn.Parameter(torch.full((3,), value)) for value in (2.0, 4.0))
    merged = interpolate({"w": start}, {"w": end}, 0.5)["w"]
    assert (merged.tolist(), merged.requires_grad) == ([3.0, 3.0, 3.0], False)


def test_fisher_information_of_another_shape_is_refused():
    parents, fishers = ({"w": torch.ones(3)}, {"w": torch.ones(3)}), ({"w": torch.ones(3)}, {"w": torch.ones(4)})
    with pytest.raises(StoreError, match=r"^the Fisher information of w is not of its shape$"):
        interpolate(*parents, 0.5, fishers)


@settings(deadline=None, max_examples=100)
@given(pairs, dtypes, alphas | st.sampled_from([0.0, 0.5, 1.0]))
def test_merging_into_a_given_tensor_gives_the_same_bits(values, dtype, alpha):
    start, end = ends(values, dtype)
    out = torch.full_like(start, float("nan"))
    assert merge(start, end, alpha, out) is out
    assert same_bits(out, merge(start, end, alpha))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_strided_tensors_and_strided_targets_give_the_same_bits(dtype, alpha):
    generator = torch.Generator().manual_seed(0)
    start, end = (torch.randn(37, 53, generator=generator).to(dtype) for _ in range(2))
    expected = merge(start, end, alpha)
    out = torch.empty(53, 37, dtype=dtype).T
    assert same_bits(merge(start.T.contiguous().T, end, alpha, out), expected)
    assert same_bits(out, expected)


def test_integers_are_copied_into_a_given_tensor():
    start, out = torch.tensor([1, 2]), torch.zeros(2, dtype=torch.int64)
    merge(start, start, 0.5, out)
    assert torch.equal(out, start)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_mix_shares_no_memory_with_its_parents(alpha):
    start = {"w": torch.zeros(2), "half": torch.zeros(2).half(), "n": torch.tensor([1])}
    end = {"w": torch.ones(2), "half": torch.ones(2).half(), "n": torch.tensor([1])}
    for tensor in interpolate(start, end, alpha).values():
        tensor.add_(5)
    assert all(float(tensor.max()) in (0.0, 1.0) for tensor in (*start.values(), *end.values()))
    assert float(start["w"].sum()) == 0.0
    assert int(start["n"]) == int(end["n"]) == 1


def test_names_and_their_order_follow_the_first_parent():
    start = {"b": torch.zeros(2), "a": torch.zeros(1).half(), "i": torch.tensor(3), "m": torch.tensor([True])}
    end = {"m": torch.tensor([True]), "i": torch.tensor(3), "a": torch.ones(1).half(), "b": torch.ones(2)}
    mixed = interpolate(start, end, 0.5)
    assert list(mixed) == ["b", "a", "i", "m"]
    assert {name: tensor.dtype for name, tensor in mixed.items()} == {n: t.dtype for n, t in start.items()}


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("one", "other", "wider"),
    [
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.float16, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float64, torch.float64),
        (torch.float16, torch.float16, torch.float16),
    ],
)
def test_ends_of_two_types_give_the_wider_one(one, other, wider, alpha):
    start, end = torch.tensor([2.0, 0.0]).to(one), torch.tensor([4.0, 1.0]).to(other)
    expected = torch.tensor([2 + 2 * alpha, alpha]).to(wider)
    assert same_bits(interpolate({"w": start}, {"w": end}, alpha)["w"], expected)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_target_of_another_type_gets_the_merge_rounded(alpha):
    start, end = torch.randn(20), torch.randn(20)
    expected = merge(start, end, alpha)
    for dtype in FLOATS:
        assert same_bits(merge(start, end, alpha, torch.empty(20, dtype=dtype)), expected.to(dtype))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_integer_and_boolean_buffers_come_from_the_parent(alpha):
    buffers = {"ids": torch.arange(4), "mask": torch.tensor([True, False]), "byte": torch.tensor([255]).byte()}
    mixed = interpolate(buffers, {name: tensor.clone() for name, tensor in buffers.items()}, alpha)
    assert all(torch.equal(mixed[name], tensor) for name, tensor in buffers.items())


@pytest.mark.parametrize("values", [(torch.arange(4), torch.arange(4) + 1), (torch.tensor(True), torch.tensor(False))])
def test_integer_buffers_that_differ_are_an_error_that_names_them(values):
    with pytest.raises(StoreError) as caught:
        interpolate({"w": torch.ones(1), "position_ids": values[0]}, {"w": torch.ones(1), "position_ids": values[1]}, 0)
    assert caught.value.message == "the integer buffer position_ids differs between the checkpoints"
    assert caught.value.hint == "it cannot be mixed"


def test_the_counters_of_batch_normalisation_may_differ_and_come_from_the_parent():
    start = {"bn1.num_batches_tracked": torch.tensor(10), "bn1.running_mean": torch.zeros(2)}
    end = {"bn1.num_batches_tracked": torch.tensor(99), "bn1.running_mean": torch.ones(2)}
    mixed = interpolate(start, end, 1.0)
    assert int(mixed["bn1.num_batches_tracked"]) == 10
    assert torch.equal(mixed["bn1.running_mean"], torch.ones(2))


def test_other_names_are_an_error_that_shows_the_first_three():
    one = {"w": torch.ones(1), "c.bias": torch.ones(1), "d": torch.ones(1)}
    other = {"w": torch.ones(1), "b": torch.ones(1), "a": torch.ones(1)}
    with pytest.raises(StoreError) as caught:
        interpolate(one, other, 0.5)
    assert caught.value.message == (
        "the checkpoints are of different architectures: 4 tensors are in one of them only, such as a, b, c.bias"
    )
    assert caught.value.hint == SAME_HEAD


@pytest.mark.parametrize("swapped", [False, True])
def test_a_head_that_only_one_has_is_an_error_either_way(swapped):
    both = [{"w": torch.ones(1)}, {"w": torch.ones(1), "classifier.weight": torch.ones(1)}]
    with pytest.raises(StoreError, match=r"1 tensors are in one of them only, such as classifier\.weight$"):
        check_same(*(both[::-1] if swapped else both))


def test_other_shapes_are_an_error_that_shows_the_first_three():
    one = {"same": torch.ones(5)} | {name: torch.ones(2, 3) for name in "abcd"}
    other = {"same": torch.ones(5)} | {name: torch.ones(3, 2) for name in "abcd"}
    with pytest.raises(StoreError) as caught:
        interpolate(one, other, 0.5)
    assert caught.value.message == (
        "the checkpoints are of different architectures: 4 shapes differ, "
        "such as a (2, 3) and (3, 2), b (2, 3) and (3, 2), c (2, 3) and (3, 2)"
    )
    assert caught.value.hint == "mix checkpoints that were made from the same model and classes"


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(StoreError, match=r"such as w \(1,\) and \(3,\)$"):
        interpolate({"w": torch.ones(1)}, {"w": torch.ones(3)}, 0.5)


def test_the_parent_that_does_not_fit_may_be_any_of_several():
    good, more, other = {"w": torch.ones(2)}, {"w": torch.ones(2), "b": torch.ones(1)}, {"w": torch.ones(3)}
    check_same(good, good, good)
    with pytest.raises(StoreError, match=r"1 tensors are in some of them only, such as b$"):
        check_same(good, good, more)
    with pytest.raises(StoreError, match=r"such as w \(2,\) and \(2,\) and \(3,\)$"):
        check_same(good, good, other)
    with pytest.raises(StoreError, match=r"^the integer buffer n differs"):
        check_same({"n": torch.tensor(1)}, {"n": torch.tensor(1)}, {"n": torch.tensor(2)})


def test_integers_are_not_mixed_with_floating_point_numbers_or_other_integers():
    kinds = [torch.ones(2), torch.ones(2, dtype=torch.int32), torch.ones(2, dtype=torch.int64)]
    for one, other in ((0, 1), (1, 0), (1, 2)):
        with pytest.raises(StoreError, match=r"^w is of different types in the checkpoints: torch\."):
            check_same({"w": kinds[one]}, {"w": kinds[other]})
