"""Low-rank updates: where they are, that they begin as nothing, and that merging changes no answer."""

import torch

from tests.tiny_clips import tiny_clip
from wisepatch import Classifier, ModelConfig, Store, load_clip, load_weights
from wisepatch.models.tower import prepare_training
from wisepatch.training.low_rank import adapt, linear_weights, merge


def adapted(rank=2):
    classifier = Classifier(tiny_clip().visual, torch.ones(3, 16))
    prepare_training(classifier.visual)
    before = {name: each.detach().clone() for name, each in classifier.named_parameters()}
    adapt(classifier, rank)
    return classifier, before


def images():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def test_attention_and_mlps_get_updates_that_begin_as_nothing_and_all_else_is_frozen():
    classifier, before = adapted()
    trained = {name for name, each in classifier.named_parameters() if each.requires_grad}
    block = "visual.transformer.resblocks.0"
    layers = (f"{block}.attn.parametrizations.in_proj_weight", f"{block}.attn.out_proj.parametrizations.weight")
    layers += (f"{block}.mlp.c_fc.parametrizations.weight", f"{block}.mlp.c_proj.parametrizations.weight")
    assert trained == {f"{layer}.0.{factor}" for layer in layers for factor in ("down", "up")} | {"weight", "bias"}
    assert torch.equal(
        classifier.visual.transformer.resblocks[0].attn.in_proj_weight, before[f"{block}.attn.in_proj_weight"]
    )


def test_merging_gives_the_weights_back_under_their_names_with_a_change_of_that_rank():
    classifier, before = adapted(rank=2)
    for name, each in classifier.named_parameters():
        if each.requires_grad and name.startswith("visual."):
            torch.nn.init.normal_(each, generator=torch.Generator().manual_seed(len(name)))
    expected = classifier(images())
    merge(classifier)
    after = dict(classifier.named_parameters())
    assert after.keys() == before.keys()
    assert torch.allclose(classifier(images()), expected, atol=1e-5)
    change = (
        after["visual.transformer.resblocks.0.mlp.c_fc.weight"]
        - before["visual.transformer.resblocks.0.mlp.c_fc.weight"]
    )
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2
    assert torch.equal(after["visual.conv1.weight"], before["visual.conv1.weight"])


def test_convolutions_of_one_pixel_are_linear_layers_and_others_are_not():
    layers = [module for module, _ in linear_weights(load_clip(ModelConfig("demo", "")).model.visual)]
    convolutions = [each for each in layers if isinstance(each, torch.nn.Conv2d)]
    assert convolutions
    assert all(each.kernel_size == (1, 1) and each.groups == 1 for each in convolutions)


def test_a_training_leaves_a_whole_set_of_weights_that_differ_in_linear_layers_alone(shapes, tmp_path):
    from wisepatch import TrainConfig, finetune

    config = TrainConfig.with_defaults(str(shapes), lora=2, steps=2, batch_size=6, lr=1e-2, warmup=0)
    done = finetune(config, ModelConfig("demo", ""), Store(tmp_path / "store"), tmp_path)
    start, end = (load_weights(Store(tmp_path / "store"), each) for each in (done.zeroshot, done.finetuned))
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed
    for name in changed:
        change = (end[name] - start[name]).flatten(1)
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 2, name
    assert done.finetuned.config["lora"] == 2
