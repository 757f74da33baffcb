"""The algebra of mixing weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wisepatch.errors import StoreError
from wisepatch.store.checkpoints import MANIFEST, WEIGHTS, Recipe, Store
from wisepatch.weights.interpolation import check_same, interpolate, is_ordinary, load_weights, mix, stream

TINY = torch.finfo(torch.float32).tiny  # numbers below it are not kept to a relative precision
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
SAME_HEAD = "mix checkpoints that were made from the same model (and with the same kind of head)"

dtypes = st.sampled_from(FLOATS)
alphas = st.floats(0, 1)
finite = st.floats(-1e4, 1e4, width=32)
vectors = st.lists(finite, min_size=1, max_size=20)
pairs = st.lists(st.tuples(finite, finite), min_size=1, max_size=20)


def same_bits(one, other):
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.contiguous().view(BITS[one.itemsize]), other.contiguous().view(BITS[other.itemsize]))
    )


def ends(values, dtype):
    start, end = torch.tensor(values, dtype=torch.float64).T
    return start.to(dtype), end.to(dtype)


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


@settings(deadline=None, max_examples=100)
@given(pairs, dtypes, alphas | st.sampled_from([0.0, 0.5, 1.0]))
def test_mixing_into_a_given_tensor_gives_the_same_bits(values, dtype, alpha):
    start, end = ends(values, dtype)
    out = torch.full_like(start, float("nan"))
    assert mix(start, end, alpha, out=out) is out
    assert same_bits(out, mix(start, end, alpha))


@settings(deadline=None, max_examples=100)
@given(pairs, st.lists(finite, max_size=5), dtypes, alphas | st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_ordinary_numbers_are_mixed_to_the_same_bits_without_a_look_at_each(values, common, dtype, alpha, weighed):
    start, end = ends([*values, *((x, x) for x in common)], dtype)
    start = start + 0.0  # no -0.0
    assert is_ordinary(start)
    fisher = (start.abs(), end.abs()) if weighed else None
    assert same_bits(mix(start, end, alpha, fisher=fisher, ordinary=True), mix(start, end, alpha, fisher=fisher))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("odd", [-0.0, float("inf"), float("-inf"), float("nan"), -float("nan")])
def test_odd_numbers_are_not_ordinary(odd, dtype):
    assert not is_ordinary(torch.tensor([1.0, odd, 2.0], dtype=dtype))
    assert is_ordinary(torch.tensor([1.0, 0.0, -2.0], dtype=dtype))
    assert is_ordinary(torch.tensor([-(2**31), 0]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_strided_tensors_and_strided_targets_give_the_same_bits(dtype, alpha):
    generator = torch.Generator().manual_seed(0)
    start, end = (torch.randn(37, 53, generator=generator).to(dtype) for _ in range(2))
    expected = mix(start, end, alpha)
    out = torch.empty(53, 37, dtype=dtype).T
    assert same_bits(mix(start.T.contiguous().T, end, alpha, out=out), expected)
    assert same_bits(out, expected)


def test_integers_are_copied_into_a_given_tensor():
    start, out = torch.tensor([1, 2]), torch.zeros(2, dtype=torch.int64)
    mix(start, start, 0.5, out=out)
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


def test_names_order_and_types_follow_the_parent():
    start = {"b": torch.zeros(2), "a": torch.zeros(1).half(), "i": torch.tensor(3), "m": torch.tensor([True])}
    end = {"m": torch.tensor([True]), "i": torch.tensor(3), "a": torch.ones(1).half(), "b": torch.ones(2)}
    mixed = interpolate(start, end, 0.5)
    assert list(mixed) == ["b", "a", "i", "m"]
    assert {name: tensor.dtype for name, tensor in mixed.items()} == {n: t.dtype for n, t in start.items()}
    assert next(iter(stream(start, end, 0.5)))[0] == "b"


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("one", "other"), [(torch.float16, torch.float32), (torch.float32, torch.float16)])
def test_ends_of_two_precisions_are_mixed_in_that_of_the_parent(one, other, alpha):
    start, end = torch.tensor([2.0, 0.0]).to(one), torch.tensor([4.0, 1.0]).to(other)
    expected = torch.tensor([2 + 2 * alpha, alpha]).to(one)
    assert same_bits(interpolate({"w": start}, {"w": end}, alpha)["w"], expected)


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


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def weights(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(5, 4, generator=generator),
        "half": torch.randn(3, generator=generator).half(),
        "ids": torch.arange(3),
    }


def save(store, tensors, name, **more):
    return store.save(tensors, kind="zeroshot", name=name, model={"model": "demo", "pretrained": ""}, **more)


def save_recipe(store, start, end, alpha):
    return save(store, None, f"recipe {alpha}", recipe=Recipe("linear", (start.id, end.id), {"alpha": alpha}))


def test_weights_of_a_checkpoint_are_read(store):
    loaded = load_weights(store, save(store, weights(1), "start"))
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {n: t.tolist() for n, t in weights(1).items()}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_recipe_is_the_mix_of_its_parents_in_their_order(store, alpha):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    mixed = load_weights(store, save_recipe(store, start, end, alpha))
    expected = interpolate(weights(1), weights(2), alpha)
    assert set(mixed) == set(expected)
    assert all(torch.equal(mixed[name], expected[name]) for name in expected)


def test_recipes_may_be_mixed_from_recipes(store):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    middle = save_recipe(store, start, end, 0.5)
    nested = save_recipe(store, middle, save_recipe(store, end, start, 0.25), 0.75)
    expected = interpolate(interpolate(weights(1), weights(2), 0.5), interpolate(weights(2), weights(1), 0.25), 0.75)
    mixed = load_weights(store, nested)
    assert all(torch.equal(mixed[name], expected[name]) for name in expected)


def test_a_recipe_whose_parent_is_gone_is_an_error(store):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    recipe = save_recipe(store, start, end, 0.5)
    (store.checkpoints / end.id / MANIFEST).unlink()
    with pytest.raises(StoreError) as caught:
        load_weights(store, recipe)
    assert caught.value.message == f"checkpoint {end.id} is not in the store {store.root}"
    assert caught.value.hint == "it was removed; make it again"


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_recipe_with_a_damaged_parent_is_an_error_even_where_it_would_not_count(store, alpha):
    start, end = save(store, weights(1), "start"), save(store, weights(2), "end")
    recipe = save_recipe(store, start, end, alpha)
    file = store.checkpoints / end.id / WEIGHTS
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=rf"^checkpoint {end.id} \(end\) is damaged: "):
        load_weights(store, recipe)
