"""Layers by depth, and scales for them."""

import pytest
import torch

from tests.weights.merging import SHAPES, merge, models
from tests.weights.test_interpolation import same_bits
from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.weights.depth import block_of, depths, read_layers, scale_of

NAMES = [
    "visual.conv1.weight",
    *(f"visual.transformer.resblocks.{i}.mlp.c_fc.weight" for i in range(11)),
    "visual.proj",
]


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("visual.transformer.resblocks.11.ln_1.weight", "visual.transformer.resblocks.11"),
        ("transformer.resblocks.3.attn.in_proj_weight", "transformer.resblocks.3"),
        ("visual.trunk.blocks.3.0.se.conv_reduce.bias", "visual.trunk.blocks.3.0"),
        ("visual.trunk.blocks.7.attn.qkv.weight", "visual.trunk.blocks.7"),
        ("visual.trunk.stages.2.blocks.7.norm.weight", "visual.trunk.stages.2.blocks.7"),
        ("visual.layer3.5.conv1.weight", "visual.layer3.5"),
        ("visual.conv1.weight", ""),
        ("visual.proj", ""),
    ],
)
def test_a_block_is_what_the_tower_numbers(name, block):
    assert block_of(name) == block


def test_depth_is_counted_in_each_tower_in_the_order_of_numbers():
    found = depths([*NAMES, "transformer.resblocks.0.w", "transformer.resblocks.2.w", "transformer.resblocks.1.w"])
    assert found["visual.transformer.resblocks.0"] == 0
    assert found["visual.transformer.resblocks.9"] == 0.9
    assert found["visual.transformer.resblocks.10"] == 1
    assert [found[f"transformer.resblocks.{i}"] for i in range(3)] == [0, 0.5, 1]
    assert depths(["visual.transformer.resblocks.0.w"]) == {"visual.transformer.resblocks.0": 0}


def test_a_gradient_leads_from_the_first_block_to_the_last_and_begins_outside_of_blocks():
    layers = read_layers(["0.2:1"], NAMES)
    assert scale_of(layers, "visual.conv1.weight") == scale_of(layers, "visual.proj") == 0.2
    assert scale_of(layers, NAMES[1]) == 0.2
    assert scale_of(layers, NAMES[6]) == pytest.approx(0.6)
    assert scale_of(layers, NAMES[11]) == 1


def test_the_longest_beginning_counts_in_whole_words_and_1_where_none_fits():
    layers = read_layers(
        ["visual.transformer.resblocks.1=0.5", "visual.transformer.resblocks.1.mlp=2,visual.proj=-1"], NAMES
    )
    assert layers == {"visual.transformer.resblocks.1": 0.5, "visual.transformer.resblocks.1.mlp": 2, "visual.proj": -1}
    assert scale_of(layers, "visual.transformer.resblocks.1.attn.w") == 0.5
    assert scale_of(layers, "visual.transformer.resblocks.1.mlp.c_fc.weight") == 2
    assert scale_of(layers, "visual.transformer.resblocks.10.mlp.c_fc.weight") == 1
    assert scale_of(layers, "visual.proj") == -1


@pytest.mark.parametrize("word", ["", "0.2", "0.2:0.5:1", "a:b", "visual.proj=x", "visual.proj="])
def test_what_is_no_scale_is_refused_with_an_example(word):
    with pytest.raises(UsageError, match=r"^--layers .* is not understood$") as caught:
        read_layers([word], NAMES)
    assert caught.value.hint == "write 0.2:1 from the first block to the last, or NAME=SCALE by comma"


def test_a_layer_that_is_not_there_is_named_with_close_ones():
    with pytest.raises(UnknownNameError, match=r"unknown layer 'visual.transformer.resblocks.99'; did you mean"):
        read_layers(["visual.transformer.resblocks.99=0.5"], NAMES)
    with pytest.raises(UsageError, match=r"--layers 0:1 needs blocks that are numbered"):
        read_layers(["0:1"], ["w", "b"])


@pytest.mark.parametrize(
    ("method", "params", "halved"),
    [
        ("task-arithmetic", {"alpha": 0.6}, {"alpha": 0.3}),
        ("task-arithmetic", {"alphas": [0.6, -0.2, 1.0]}, {"alphas": [0.3, -0.1, 0.5]}),
        ("ties", {"scale": 0.8}, {"scale": 0.4}),
        ("iso-c", {"scale": 0.8}, {"scale": 0.4}),
        ("lines", {"alpha": 0.4, "beta": 0.2}, {"alpha": 0.2, "beta": 0.1}),
    ],
)
def test_a_layer_moves_as_far_as_its_scale_says(method, params, halved):
    parents = models(dtype=torch.float64)
    if "alphas" in params:
        (own, less) = ({"alphas": each["alphas"]} for each in (params, halved))
        whole, half = (alone(parents, **each) for each in (own, less))
        layered = alone(parents, **own, layers={"visual.transformer.resblocks.1": 0.5})
    else:
        whole, half = merge(method, parents, **params), merge(method, parents, **halved)
        layered = merge(method, parents, **params, layers={"visual.transformer.resblocks.1": 0.5})
    for name in SHAPES:
        expected = half if "resblocks.1" in name else whole
        assert torch.allclose(layered[name], expected[name], rtol=0, atol=1e-12)
    zero = (
        alone(parents, **params, layers={"": 0})
        if "alphas" in params
        else merge(method, parents, **params, layers={"": 0})
    )
    assert all(same_bits(zero[name], parents[0][name]) for name in SHAPES)


def alone(parents, **params):
    from wisepatch.weights.built_in_methods import TASK_ARITHMETIC
    from wisepatch.weights.methods import merge_weights

    return merge_weights(TASK_ARITHMETIC, parents, params)


def test_the_mix_of_two_has_an_alpha_for_each_layer():
    start, end = models(ends=1)
    layered = merge("linear", [start, end], alpha=0.5, layers={"visual.transformer.resblocks.0": 0.4, "visual.b": 0})
    for name in SHAPES:
        alpha = 0.2 if "visual.transformer.resblocks.0" in name else 0 if name == "visual.b" else 0.5
        assert same_bits(layered[name], merge("linear", [start, end], alpha=alpha)[name])
