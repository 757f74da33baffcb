"""Task vectors added to a start: the equation, its laws, and what stays to the bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights.merging import SHAPES, merge, models, near, vectors
from tests.weights.test_interpolation import FLOATS, finite, same_bits
from wisepatch.weights import methods, task_vectors
from wisepatch.weights.built_in_methods import LINEAR, TASK_ARITHMETIC
from wisepatch.weights.methods import merge_tensor, merge_weights

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


OF_VECTORS = ["ties", "dare", "breadcrumbs", "model-stock", "tsv-m", "iso-c", "iso-cts"]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("method", OF_VECTORS)
def test_scale_0_is_the_start_to_the_bit_by_every_method(method, dtype):
    parents = models(dtype=dtype)
    assert all(same_bits(tensor, parents[0][name]) for name, tensor in merge(method, parents, scale=0).items())


@pytest.mark.parametrize("method", [*OF_VECTORS, "lines", "task-arithmetic"])
def test_what_no_end_has_changed_stays_to_the_bit(method):
    start, *_ = models()
    odd = torch.tensor([0.0, -0.0, float("-inf"), 1e-42])
    parents = [model | {"odd": odd.clone()} for model in models()]
    merged = merge(method, parents)
    assert same_bits(merged["odd"], odd)
    assert same_bits(merged["transformer.resblocks.0.w"], start["transformer.resblocks.0.w"])
    equal = merge(method, [start, start, {name: tensor.clone() for name, tensor in start.items()}])
    assert all(same_bits(equal[name], tensor) for name, tensor in start.items())


@pytest.mark.parametrize("method", [*OF_VECTORS, "lines"])
def test_a_merge_moves_from_the_start_in_proportion_to_its_scale(method):
    parents = models(dtype=torch.float64)
    whole = merge(method, parents, scale=1.0) if method != "lines" else merge(method, parents, alpha=0.4, beta=0.6)
    half = merge(method, parents, scale=-0.5) if method != "lines" else merge(method, parents, alpha=-0.2, beta=-0.3)
    for name, start in parents[0].items():
        assert near(half[name] - start, -0.5 * (whole[name] - start), 1e-12)


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "model-stock", "tsv-m", "iso-c", "iso-cts", "lines"])
def test_the_order_of_ends_does_not_matter(method):
    start, *ends = models(dtype=torch.float64)
    one, other = merge(method, [start, *ends]), merge(method, [start, *ends[::-1]])
    assert all(near(one[name], other[name], 1e-9) for name in start)


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "tsv-m"])
def test_one_end_alone_with_all_of_its_vector_is_that_end(method):
    start, end = models(ends=1, dtype=torch.float64)
    params = {"ties": {"density": 1}, "breadcrumbs": {"density": 1, "outliers": 0}}.get(method, {})
    merged = merge(method, [start, end], scale=1.0, **params)
    assert all(near(merged[name], end[name], 1e-12) for name in start)


@pytest.mark.parametrize("method", ["ties", "model-stock"])
def test_equal_ends_give_themselves(method):
    start, end = models(ends=1, dtype=torch.float64)
    params = {"density": 1} if method == "ties" else {}
    merged = merge(method, [start, end, end, end], **params)
    assert all(near(merged[name], end[name], 1e-12) for name in start)


def transcribed_ties(parents, density, consensus):
    """The published order of steps, on one long vector: trim each, elect signs, merge what agrees."""
    start = torch.cat([tensor.flatten() for tensor in parents[0].values()])
    changed = torch.cat(
        [
            torch.full((tensor.numel(),), bool(any((end[name] != tensor).any() for end in parents[1:])))
            for name, tensor in parents[0].items()
        ]
    )
    tau = torch.stack([torch.cat([t.flatten() for t in end.values()]) - start for end in parents[1:]])[:, changed]
    if density < 1:
        rank = tau.shape[1] - int(tau.shape[1] * density)
        tau = torch.where(tau.abs() >= tau.abs().kthvalue(rank, dim=1, keepdim=True).values, tau, 0)
    signs = tau.sum(0).sign()
    signs[signs == 0] = signs.sum().sign()
    agree = torch.where(torch.where(signs > 0, tau > 0, tau < 0), tau, 0)
    merged = agree.sum(0) / ((agree != 0).sum(0).clamp(min=1) if consensus == "mean" else 1)
    whole = torch.zeros_like(start)
    whole[changed] = merged
    return start + whole


@pytest.mark.parametrize("consensus", ["mean", "sum"])
@pytest.mark.parametrize("density", [0, 0.05, 0.2, 0.51, 1])
def test_ties_is_its_published_algorithm_over_all_weights_at_once(density, consensus):
    parents = models(ends=4, seed=3)
    merged = merge("ties", parents, density=density, consensus=consensus)
    expected = transcribed_ties(parents, density, consensus)
    assert near(torch.cat([tensor.flatten() for tensor in merged.values()]), expected, 1e-6)
    assert not near(expected, torch.cat([tensor.flatten() for tensor in parents[0].values()]), 1e-6)


def test_ties_elects_the_sign_of_the_majority_where_numbers_cancel():
    start = {"w": torch.zeros(4)}
    one, other = {"w": torch.tensor([1.0, 2.0, 3.0, -1.0])}, {"w": torch.tensor([-1.0, 2.0, 3.0, 0.5])}
    merged = merge("ties", [start, one, other], density=1)["w"]
    assert merged.tolist() == [1.0, 2.0, 3.0, -1.0]
    less = [{"w": -each["w"]} for each in (one, other)]
    assert merge("ties", [start, *less], density=1)["w"].tolist() == [-1.0, -2.0, -3.0, 1.0]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40), st.floats(0, 0.99)
)
def test_the_least_magnitude_that_is_kept_has_the_rank_that_kthvalue_gives(values, density):
    vector = torch.tensor(values)
    pieces = [("a", [vector[:3]]), ("b", [vector[3:]])] if len(values) > 3 else [("a", [vector])]
    (least,) = task_vectors._least_kept(lambda: iter(pieces), density)
    assert least == float(vector.abs().kthvalue(max(len(values) - int(len(values) * density), 1)).values)


def test_dare_drops_by_its_masks_and_rescales_the_rest():
    parents = models()
    merged = merge("dare", parents, drop=0.5, seed=7, scale=0.5)
    for name, start in parents[0].items():
        if "visual" in name:
            total = sum(
                vector[name] * ~task_vectors.drop_mask(7, name, index, start, 0.5) / 0.5
                for index, vector in enumerate(vectors(parents))
            )
            assert near(merged[name], start + 0.5 * total, 1e-6)


def test_the_masks_of_dare_follow_from_seed_name_and_end():
    like = torch.zeros(64, 64)
    mask = task_vectors.drop_mask(0, "w", 0, like, 0.3)
    assert torch.equal(mask, task_vectors.drop_mask(0, "w", 0, like, 0.3))
    assert abs(float(mask.float().mean()) - 0.3) < 0.03
    for other in ((1, "w", 0), (0, "v", 0), (0, "w", 1)):
        assert not torch.equal(mask, task_vectors.drop_mask(*other, like, 0.3))


def test_dare_is_the_sum_of_task_vectors_in_expectation():
    start = {"w": torch.zeros(40)}
    ends = [{"w": torch.linspace(-1, 1, 40)}, {"w": torch.linspace(2, 1, 40)}]
    draws = torch.stack([merge("dare", [start, *ends], drop=0.6, seed=seed, scale=1)["w"] for seed in range(800)])
    deviation = draws.std(0) / 800**0.5
    assert bool(((draws.mean(0) - ends[0]["w"] - ends[1]["w"]).abs() < 5 * deviation + 1e-6).all())
    assert same_bits(merge("dare", [start, ends[0]], drop=0, scale=1)["w"], ends[0]["w"])


def transcribed_breadcrumbs(vector, density, outliers):
    """Row by row, number by number."""
    if vector.ndim == 0:
        return vector
    rows = vector.reshape(-1, vector.shape[-1]).clone()
    for row in rows:
        order = sorted(range(len(row)), key=lambda place: -abs(float(row[place])))
        gone = order[: int(len(row) * outliers)]
        kept = order[len(gone) : len(gone) + int(len(row) * density)]
        for place in range(len(row)):
            if place not in kept:
                row[place] = 0
    return rows.reshape(vector.shape)


@pytest.mark.parametrize(("density", "outliers"), [(0.5, 0.2), (0.25, 0.0), (1, 0.5), (0, 0), (0.3, 1)])
def test_breadcrumbs_keep_the_middle_of_each_row(density, outliers):
    parents = models()
    merged = merge("breadcrumbs", parents, density=density, outliers=outliers, scale=0.7)
    for name, start in parents[0].items():
        total = sum(transcribed_breadcrumbs(vector[name], density, outliers) for vector in vectors(parents))
        assert near(merged[name], start + 0.7 * total, 1e-6)


def test_breadcrumbs_see_a_convolution_of_one_pixel_as_the_linear_layer_that_it_is():
    start, *ends = ({"w": torch.randn(6, 20)} for _ in range(3))
    flat = merge("breadcrumbs", [start, *ends])["w"]
    convolved = merge("breadcrumbs", [{"w": each["w"][:, :, None, None]} for each in (start, *ends)])["w"]
    assert torch.equal(convolved[:, :, 0, 0], flat)
    assert not torch.equal(flat, start["w"])


def test_lines_scale_by_the_depth_of_the_block():
    parents = models()
    scales = {
        name: 0.1 + 0.8 * int(name.split("resblocks.")[1][0]) / 2 if "resblocks" in name else 0.1 for name in SHAPES
    }
    merged = merge("lines", parents, alpha=0.1, beta=0.8)
    for name, start in parents[0].items():
        if "visual" in name:
            assert near(merged[name], start + scales[name] * sum(vector[name] for vector in vectors(parents)), 1e-6)


@pytest.mark.parametrize(("ends", "alpha"), [(1, 0.25), (4, 0.25), (2, 0.5)])
def test_lines_without_alpha_begin_at_one_part_of_all_ends_and_lead_one_end_to_1(ends, alpha):
    parents = models(ends=ends)
    merged, same = merge("lines", parents, beta=0.75), merge("lines", parents, alpha=alpha, beta=0.75)
    assert all(same_bits(merged[name], same[name]) for name in merged)


@pytest.mark.parametrize("ends", [2, 3, 4])
def test_model_stock_moves_as_far_as_the_angle_between_the_ends_tells(ends):
    parents = models(ends=ends, dtype=torch.float64)
    parents = [parents[0], *({n: t + 0.05 if "visual" in n else t for n, t in end.items()} for end in parents[1:])]
    merged, taus = merge("model-stock", parents), vectors(parents)
    for name, start in parents[0].items():
        if "visual" not in name:
            continue
        flat = [tau[name].flatten() for tau in taus]
        cosines = [float(torch.cosine_similarity(flat[i], flat[j], dim=0)) for i in range(ends) for j in range(i)]
        cosine = max(sum(cosines) / len(cosines), 0)
        share = ends * cosine / (1 + (ends - 1) * cosine)
        expected = share * sum(end[name] for end in parents[1:]) / ends + (1 - share) * start
        assert near(merged[name], expected, 1e-12)


def test_model_stock_stays_at_the_start_where_ends_point_apart():
    start = {"w": torch.ones(2)}
    ends = [{"w": torch.tensor([2.0, 1.0])}, {"w": torch.tensor([0.0, 1.0])}]
    assert same_bits(merge("model-stock", [start, *ends])["w"], start["w"])
