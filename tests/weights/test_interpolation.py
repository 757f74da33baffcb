"""The algebra of mixing weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wisepatch.weights import methods
from wisepatch.weights.interpolation import FISHER_FLOOR, fisher_share
from wisepatch.weights.methods import FISHER, LINEAR, interpolate, merge_tensor

TINY = torch.finfo(torch.float32).tiny  # numbers below it are not kept to a relative precision
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
ODD = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-42, -1e-42, 6e-8, 65504.0, 3e38, -3e38, 1 + 2**-23]

dtypes = st.sampled_from(FLOATS)
alphas = st.floats(0, 1)
finite = st.floats(-1e4, 1e4, width=32)
vectors = st.lists(finite, min_size=1, max_size=20)
pairs = st.lists(st.tuples(finite, finite), min_size=1, max_size=20)
any_number = finite | st.sampled_from(ODD) | st.floats(width=32)
any_pairs = st.lists(st.tuples(any_number, any_number) | any_number.map(lambda x: (x, x)), min_size=1, max_size=20)
informations = st.floats(0, 1e4, width=32)
cells = st.lists(st.tuples(finite, finite, informations, informations), min_size=1, max_size=20)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let a few numbers fill several blocks."""
    monkeypatch.setattr(methods, "SCRATCH_ELEMENTS", 7)


def same_bits(one, other):
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.contiguous().view(BITS[one.itemsize]), other.contiguous().view(BITS[other.itemsize]))
    )


def ends(values, dtype):
    start, end = torch.tensor(values, dtype=torch.float64).T
    return start.to(dtype), end.to(dtype)


def mix(start, end, alpha):
    return merge_tensor(LINEAR, (start, end), {"alpha": alpha})


def weigh(start, end, alpha, fishers, out=None):
    return merge_tensor(FISHER, (start, end), {"alpha": alpha, "fishers": fishers}, out)


def transcribed(start, end, alpha, fishers=None):
    """The mix as it is defined: from the nearer end, in whole tensors of fp32 (fp64 for fp64); common bits stay."""
    dtype = torch.promote_types(start.dtype, end.dtype)
    start, end = start.to(dtype), end.to(dtype)
    if alpha in (0, 1):
        return end if alpha else start
    wide, other = (each if dtype == torch.float64 else each.float() for each in (start, end))
    mixed = other - wide
    if fishers is None:
        weight = float(torch.tensor(alpha, dtype=wide.dtype))
        mixed = mixed * weight + wide if weight < 0.5 else mixed * (weight - 1) + other
    else:
        share = fisher_share(fishers[0].to(wide.dtype), fishers[1].to(wide.dtype), alpha)
        mixed = mixed * torch.where(share < 0.5, share, share - 1) + torch.where(share < 0.5, wide, other)
    return torch.where(start.view(BITS[start.itemsize]) == end.view(BITS[end.itemsize]), start, mixed.to(dtype))


def same_numbers(one, other):
    """The same bits, but for those of NaN."""
    numbers = ~torch.isnan(other)
    return torch.equal(torch.isnan(one), ~numbers) and same_bits(one[numbers], other[numbers])


@settings(deadline=None, max_examples=300)
@given(any_pairs, dtypes, dtypes, alphas | st.sampled_from([0.0, 0.5, 1.0, 1e-46, 0.1, 0.9]))
def test_the_bits_are_those_of_the_definition(values, dtype, other, alpha):
    start, end = ends(values, dtype)[0], ends(values, other)[1]
    assert same_numbers(mix(start, end, alpha), transcribed(start, end, alpha))


@settings(deadline=None, max_examples=300)
@given(any_pairs, dtypes, alphas | st.sampled_from([0.0, 0.5, 1.0, 0.1, 0.9]), st.data())
def test_the_bits_of_weighted_mixes_are_those_of_the_definition(values, dtype, alpha, data):
    count = st.lists(informations, min_size=len(values), max_size=len(values))
    fishers = [torch.tensor(data.draw(count)) for _ in range(2)]
    start, end = ends(values, dtype)
    mine, theirs = weigh(start, end, alpha, fishers), transcribed(start, end, alpha, fishers)
    # But for the sign of zero, where the share of an end rounds to all of it; common zeros keep theirs (below).
    assert same_numbers(mine + 0.0, theirs + 0.0)


@settings(deadline=None, max_examples=100)
@given(st.data(), dtypes, alphas, st.booleans())
def test_equal_bits_stay_as_they_are_also_those_of_nan(data, dtype, alpha, weighed):
    limit = 2 ** (8 * dtype.itemsize - 1)
    bits = data.draw(st.lists(st.integers(-limit, limit - 1), min_size=1, max_size=40))
    weights = torch.tensor(bits, dtype=BITS[dtype.itemsize]).view(dtype)
    fishers = [torch.rand(len(bits)), torch.rand(len(bits))]
    mixed = weigh(weights, weights.clone(), alpha, fishers) if weighed else mix(weights, weights.clone(), alpha)
    assert same_bits(mixed, weights)


@settings(deadline=None, max_examples=60)
@given(pairs, dtypes)
def test_alpha_zero_gives_the_parent_bit_for_bit(values, dtype):
    start, end = ends(values, dtype)
    assert same_bits(interpolate({"w": start}, {"w": end}, 0.0)["w"], start)


@settings(deadline=None, max_examples=60)
@given(pairs, dtypes)
def test_alpha_one_gives_the_fine_tuned_weights_bit_for_bit(values, dtype):
    start, end = ends(values, dtype)
    assert same_bits(interpolate({"w": start}, {"w": end}, 1.0)["w"], end)


@pytest.mark.parametrize("dtype", FLOATS)
def test_both_ends_keep_signed_zeros_infinities_and_nans(dtype):
    odd = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan")], dtype=dtype)
    plain = torch.ones(5, dtype=dtype)
    assert same_bits(interpolate({"w": odd}, {"w": plain}, 0)["w"], odd)
    assert same_bits(interpolate({"w": plain}, {"w": odd}, 1)["w"], odd)


@pytest.mark.parametrize("dtype", FLOATS)
def test_two_and_four_at_one_half_give_three(dtype):
    mixed = interpolate({"w": torch.tensor([2.0], dtype=dtype)}, {"w": torch.tensor([4.0], dtype=dtype)}, 0.5)
    assert same_bits(mixed["w"], torch.tensor([3.0], dtype=dtype))


@settings(deadline=None, max_examples=100)
@given(vectors, dtypes, alphas)
def test_equal_ends_give_themselves_bit_for_bit_at_any_alpha(values, dtype, alpha):
    weights = torch.tensor(values, dtype=torch.float64).to(dtype)
    assert same_bits(interpolate({"w": weights}, {"w": weights.clone()}, alpha)["w"], weights)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_ends_keep_signed_zeros_and_the_infinities_of_masks(dtype, alpha):
    mask = torch.tensor([0.0, -0.0, float("-inf"), float("inf")], dtype=dtype)
    assert same_bits(interpolate({"mask": mask}, {"mask": mask.clone()}, alpha)["mask"], mask)


@settings(deadline=None, max_examples=100)
@given(pairs, alphas)
def test_the_mix_is_the_formula_of_the_papers(values, alpha):
    start, end = ends(values, torch.float32)
    mixed = interpolate({"w": start}, {"w": end}, alpha)["w"].double()
    exact = (1 - alpha) * start.double() + alpha * end.double()
    largest = float(start.abs().max() + end.abs().max())
    assert torch.allclose(mixed, exact, rtol=1e-6, atol=1e-6 * largest + TINY)


@settings(deadline=None, max_examples=60)
@given(pairs, st.sampled_from([torch.float16, torch.bfloat16]), alphas)
def test_narrow_types_are_mixed_in_single_precision_and_rounded_once(values, dtype, alpha):
    start, end = ends(values, dtype)
    wide = interpolate({"w": start.float()}, {"w": end.float()}, alpha)["w"]
    assert same_bits(interpolate({"w": start}, {"w": end}, alpha)["w"], wide.to(dtype))


@settings(deadline=None, max_examples=60)
@given(pairs, alphas)
def test_double_precision_stays_double(values, alpha):
    start, end = ends(values, torch.float64)
    mixed = interpolate({"w": start}, {"w": end}, alpha)["w"]
    exact = (1 - alpha) * start + alpha * end
    assert mixed.dtype == torch.float64
    assert torch.allclose(mixed, exact, rtol=1e-12, atol=1e-14 * float(start.abs().max() + end.abs().max()) + TINY)


@settings(deadline=None, max_examples=60)
@given(pairs, dtypes, alphas)
def test_the_mix_lies_between_the_ends(values, dtype, alpha):
    start, end = ends(values, dtype)
    mixed = interpolate({"w": start}, {"w": end}, alpha)["w"]
    slack = torch.finfo(dtype).eps * torch.maximum(start.abs(), end.abs()).double() * 2
    assert (mixed.double() >= torch.minimum(start, end).double() - slack).all()
    assert (mixed.double() <= torch.maximum(start, end).double() + slack).all()


@settings(deadline=None, max_examples=60)
@given(pairs, st.sampled_from([i / 8 for i in range(9)]))
def test_mixing_backwards_is_mixing_from_the_other_end(values, alpha):
    start, end = ends(values, torch.float32)
    there = interpolate({"w": start}, {"w": end}, alpha)["w"]
    back = interpolate({"w": end}, {"w": start}, 1 - alpha)["w"]
    assert torch.allclose(there, back, rtol=1e-6, atol=1e-6 * float(start.abs().max() + end.abs().max()) + TINY)


@given(cells, st.sampled_from([0.01, 0.1, 0.3, 0.5, 0.7, 0.99]))
def test_the_weighted_mix_is_the_formula_of_the_paper(rows, alpha):
    start, end, f0, f1 = torch.tensor(rows, dtype=torch.float64).T.float()
    mixed = weigh(start, end, alpha, (f0, f1))
    c0, c1 = (1 - alpha) * f0.double().clamp(min=FISHER_FLOOR), alpha * f1.double().clamp(min=FISHER_FLOOR)
    exact = (c0 * start.double() + c1 * end.double()) / (c0 + c1)
    assert torch.allclose(
        mixed.double(), exact, rtol=1e-5, atol=2e-6 * float(start.abs().max() + end.abs().max()) + 1e-38
    )
    assert torch.equal(weigh(start, end, 0.0, (f0, f1)), start)
    assert torch.equal(weigh(start, end, 1.0, (f0, f1)), end)
    assert torch.equal(weigh(start, start.clone(), alpha, (f0, f1)), start)
    assert torch.equal(weigh(start, end, alpha, (f0, f0)), mix(start, end, alpha))
    out = torch.empty_like(start)
    assert weigh(start, end, alpha, (f0, f1), out) is out
    assert torch.equal(out, mixed)


def test_each_number_has_an_alpha_of_its_own_where_there_is_fisher_information():
    start, end = (
        {"w": torch.tensor([0.0, 0, 0, 0]), "b": torch.tensor([2.0])},
        {"w": torch.full((4,), 8.0), "b": torch.tensor([4.0])},
    )
    fishers = {"w": torch.tensor([1.0, 3, 0, 0])}, {"w": torch.tensor([3.0, 1, 0, 1])}
    mixed = interpolate(start, end, 0.5, fishers)
    assert mixed["w"].tolist() == [6, 2, 4, pytest.approx(8, abs=1e-6)]  # 3/4, 1/4, linear, all of the end
    assert mixed["b"].tolist() == [3]  # no information, no weight
    assert interpolate(start, end, 0.25, fishers)["w"].tolist()[0] == pytest.approx(8 * 3 / 6)
