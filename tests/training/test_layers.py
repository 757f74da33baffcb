"""Blocks by the names of parameters: what is frozen, and how fast each block is trained."""

import open_clip
import pytest
import torch

from tests.tiny_clips import tiny_clip
from wisepatch import Classifier, ModelConfig, load_clip
from wisepatch.errors import UsageError
from wisepatch.training.layers import decayed_groups, depths, freeze_blocks

VISION = {"image_size": 16, "layers": 3, "width": 64, "patch_size": 8}


def vit():
    return open_clip.CLIP(
        16, VISION, {"context_length": 8, "vocab_size": 64, "width": 8, "heads": 1, "layers": 1}
    ).visual


def names(model):
    return [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize(
    ("tower", "blocks", "stem", "above"),
    [
        (vit, 3, {"class_embedding", "positional_embedding", "conv1", "ln_pre"}, {"ln_post", "proj"}),
        (lambda: tiny_clip("resnet").visual, 4, {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3"}, {"attnpool"}),
        (
            lambda: load_clip(ModelConfig("demo", "")).model.visual,
            5,
            {"conv_stem", "bn1"},
            {"conv_head", "bn2", "proj"},
        ),
    ],
    ids=["vit", "resnet", "efficientnet"],
)
def test_depths_go_from_the_stem_over_the_blocks_to_what_follows(tower, blocks, stem, above):
    depth = depths(names(tower()))
    assert sorted(set(depth.values())) == list(range(blocks + 2))
    parts = {name: name.removeprefix("trunk.").removeprefix("head.").split(".")[0] for name in depth}
    assert {parts[name] for name, at in depth.items() if at == 0} == stem
    assert {parts[name] for name, at in depth.items() if at == blocks + 1} == above


@pytest.mark.parametrize(
    ("words", "frozen"),
    [((), set()), (("stem", "1"), {0, 2}), (("0-1",), {1, 2}), (("2", "0"), {3, 1})],
)
def test_named_blocks_are_frozen_and_no_others(words, frozen):
    tower = vit()
    freeze_blocks(tower, words)
    depth = depths(names(tower))
    assert {depth[name] for name, each in tower.named_parameters() if not each.requires_grad} == frozen


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("3", "the image encoder has the blocks 0 to 2, and --freeze names 3"),
        ("1-3", "--freeze names 1-3"),
        ("2-1", "--freeze names 2-1"),
        ("head", "--freeze head is no block"),
    ],
)
def test_a_block_that_is_not_there_is_an_error_that_says_which_are(word, reason):
    with pytest.raises(UsageError, match=reason):
        freeze_blocks(vit(), [word])


def test_the_rate_shrinks_with_each_block_away_from_the_head():
    classifier = Classifier(vit(), torch.zeros(2, 16))
    classifier.bias.requires_grad = False
    groups = decayed_groups(classifier, 0.5)
    by_parameter = {id(each): group["scale"] for group in groups for each in group["params"]}
    scales = {name: by_parameter[id(each)] for name, each in classifier.named_parameters() if each.requires_grad}
    assert scales["visual.conv1.weight"] == 0.5**4
    assert scales["visual.transformer.resblocks.0.mlp.c_fc.weight"] == 0.5**3
    assert scales["visual.transformer.resblocks.2.ln_1.weight"] == 0.5
    assert scales["visual.proj"] == scales["weight"] == 1
    assert "bias" not in scales
    assert len(by_parameter) == sum(each.requires_grad for each in classifier.parameters())
    assert decayed_groups(classifier, None) == decayed_groups(classifier, 1.0) == []
