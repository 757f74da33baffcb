"""Image towers that are ready for evaluation: the same features as before, for towers of every kind; and their batch."""

import copy
import platform

import open_clip
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch import ModelConfig, load_clip
from wisepatch.errors import ModelError
from wisepatch.models import tower as towers
from wisepatch.models.classifier import features
from wisepatch.models.tower import (
    BATCH_SIZE,
    MAX_IMAGES_ON_GPU,
    MIN_CONVOLVED_ROWS,
    Tower,
    prepare_training,
)

CPU = torch.device("cpu")
SMALL = {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 16, "layers": 3}
TEXT = {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}


def vit(**changes):
    torch.manual_seed(0)
    visual = {key: value for key, value in (SMALL | changes).items() if key != "quick_gelu"}
    config = {"embed_dim": 32, "vision_cfg": visual, "text_cfg": TEXT, "quick_gelu": changes.get("quick_gelu", False)}
    model = open_clip.CoCa if visual.get("output_tokens") else open_clip.CLIP
    if model is open_clip.CoCa:
        return open_clip.transformer.VisionTransformer(
            image_size=32, patch_size=8, width=64, layers=3, heads=4, mlp_ratio=4.0, output_dim=32, output_tokens=True
        ).eval()
    return model(**config).visual.eval()


TOWERS = {
    "class token": {}, "QuickGELU": {"quick_gelu": True}, "average pool": {"pool_type": "avg"},
    "norm after pool": {"final_ln_after_pool": True}, "attention pool": {"attentional_pool": True},
    "layer scale": {"ls_init_value": 0.3}, "no norm before": {"no_ln_pre": True}, "tokens too": {"output_tokens": True},
    "residual network": {"layers": [1, 1, 1, 1], "image_size": 64, "width": 16, "head_width": 8},
    "timm ViT": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 160},
    "timm ConvNeXt": {"timm_model_name": "test_convnext2", "timm_pool": "", "timm_proj": "linear", "image_size": 64},
}  # fmt: skip


@pytest.mark.parametrize("kind", TOWERS)
def test_prepared_tower_gives_the_features_of_the_tower_as_it_was(kind):
    visual = vit(**TOWERS[kind])
    size = TOWERS[kind].get("image_size", 32)
    images = (
        torch.randn(MIN_CONVOLVED_ROWS, 3, size, size) + torch.linspace(-3, 3, MIN_CONVOLVED_ROWS)[:, None, None, None]
    )
    if kind == "residual network":
        visual.train()(images)  # statistics of batch norm
        visual.eval()
    names = {name: tensor.shape for name, tensor in visual.state_dict().items()}
    with torch.inference_mode():
        before = features(visual, images)
        assert F.cosine_similarity(before[:1], before[1:]).min() < 0.998  # pictures differ
        tower = Tower(copy.deepcopy(visual), CPU)
        after = tower.features(tower.take(images))
        half = Tower(copy.deepcopy(visual), CPU, torch.bfloat16)
        rough = half.features(half.take(images))
    assert {name: tensor.shape for name, tensor in tower.visual.state_dict().items()} == names
    assert torch.allclose(before, after, atol=2e-6)
    assert rough.dtype == torch.float32
    assert F.cosine_similarity(before, rough).min() > 0.998
    assert not torch.equal(before, rough)


def test_weights_written_into_a_prepared_tower_are_those_it_computes_with():
    first, second = vit(quick_gelu=True), vit(quick_gelu=True)
    for parameter in second.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    images = torch.randn(8, 3, 32, 32)
    with torch.inference_mode():
        tower = Tower(copy.deepcopy(first), CPU)
        for name, tensor in tower.visual.state_dict(keep_vars=True).items():
            tensor.data.copy_(second.state_dict()[name])
        assert torch.allclose(tower.features(tower.take(images)), features(second, images), atol=2e-6)


@pytest.mark.parametrize("kind", TOWERS)
def test_tower_made_ready_for_training_has_the_same_features_and_gradients(kind):
    before = vit(**TOWERS[kind])
    if kind == "residual network":
        before.train()(torch.randn(8, 3, 64, 64))  # statistics of batch norm, which stay those of evaluation
        before.eval()
    after = copy.deepcopy(before)
    prepare_training(after)
    assert before.state_dict().keys() == after.state_dict().keys()
    size = TOWERS[kind].get("image_size", 32)
    images = 3 * torch.randn(8, 3, size, size)
    for visual in (before, after):
        features(visual, images).square().mul(torch.linspace(-1, 1, 32)).sum().backward()
    assert torch.allclose(features(before, images), features(after, images), atol=2e-6)
    for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-5 * float(one.grad.abs().max())), name


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="on x86 alone")
@pytest.mark.parametrize(("autocast", "layers"), [(False, 9), (True, 0)])
def test_linear_layers_are_trained_as_convolutions_in_fp32_alone(autocast, layers, monkeypatch):
    seen, original = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *args: seen.append(args[1].shape) or original(*args))
    visual = vit()
    prepare_training(visual)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        visual(torch.randn(8, 3, 32, 32)).sum().backward()
    # Patches; four layers of two blocks, keys and values of the last; what is left of that sees 8 tokens alone.
    assert [shape[2:] == (1, 1) for shape in seen] == [False] + layers * [True]


def test_last_block_of_a_tower_that_is_read_at_one_token_computes_that_token_alone():
    """The others are keys and values; counted by what passes the last layer of each block."""
    for kind, tokens in (("class token", 1), ("average pool", 17)):
        visual, seen = vit(**TOWERS[kind]), []
        tower = Tower(visual, CPU)
        for block in visual.transformer.resblocks:
            block.mlp.c_proj.register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0].shape[1]))
        with torch.inference_mode():
            tower.features(tower.take(torch.randn(2, 3, 32, 32)))
        assert seen == [17, 17, tokens]


def test_embedded_model_and_batch_norm_in_bf16():
    clip = load_clip(ModelConfig("demo", ""))
    images = torch.rand(16, 3, 64, 64)
    with torch.inference_mode():
        before = features(clip.model.visual, images)
        half = Tower(clip.model.visual, CPU, torch.bfloat16)
        assert F.cosine_similarity(before, half.features(half.take(images))).min() > 0.995
    residual = vit(**TOWERS["residual network"])
    residual.bn1.running_var += 0.123456789
    exact = residual.bn1.running_var.clone()
    Tower(residual, CPU, torch.bfloat16)
    assert torch.equal(residual.bn1.running_var, exact)
    assert residual.bn1.running_var.dtype == residual.bn1.weight.dtype == torch.float32
    assert residual.conv1.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(("precision", "size"), [(None, 4), (torch.bfloat16, 2)])
def test_batch_on_a_cpu_keeps_the_output_of_each_layer_small(precision, size, monkeypatch):
    tower = Tower(vit(), CPU, precision)
    assert tower.largest_batch(32, 32) == BATCH_SIZE
    widest = 17 * 4 * 64 * size  # tokens, and what lies between the two linear layers of a block
    monkeypatch.setattr(towers, "MAX_LAYER_BYTES", 9 * widest + 1)
    assert tower.largest_batch(32, 32) == 9
    monkeypatch.setattr(towers, "MAX_LAYER_BYTES", widest // 2)
    assert tower.largest_batch(32, 32) == 1
    assert not any(module._forward_hooks for module in tower.visual.modules())


def test_batch_on_a_gpu_is_found_by_trying(monkeypatch):
    tower = Tower(vit(), CPU)
    tried = []

    def features_with_room_for_100(images):
        tried.append(len(images))
        if len(images) > 100:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(tower, "features", features_with_room_for_100)
    monkeypatch.setattr(tower, "device", torch.device("meta"))
    assert tower.largest_batch(32, 32) == tried[-1] * 3 // 4 <= 75  # heads and what is held need room too
    assert tried[0] == MAX_IMAGES_ON_GPU
    assert len(tried) > 2


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="on x86 alone")
@pytest.mark.parametrize(
    ("precision", "capable", "layers"),
    [(None, True, 13), (None, False, 13), (torch.bfloat16, True, 13), (torch.bfloat16, False, 0)],
)
def test_linear_layers_of_many_rows_are_convolutions_on_x86(precision, capable, layers, monkeypatch):
    """In bf16 only where the processor computes in it."""
    seen, original = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *args: seen.append(args[1].shape) or original(*args))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: capable)
    tower = Tower(vit(), CPU, precision)
    with torch.inference_mode():
        tower.features(tower.take(torch.randn(MIN_CONVOLVED_ROWS, 3, 32, 32)))
    # Patches; queries with keys and values, output, and two layers after, of three blocks; queries of the last alone.
    assert [shape[2:] == (1, 1) for shape in seen] == [False] + layers * [True]


def test_tower_that_cannot_be_compiled_says_so(monkeypatch):
    tower = Tower(vit(), CPU, compiled=True)

    def broken(_):
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler\n\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(tower, "_call", broken)
    with pytest.raises(ModelError, match=r"cannot be compiled here: no C\+\+ compiler$") as caught:
        tower.features(tower.take(torch.randn(2, 3, 32, 32)))
    assert caught.value.hint == "leave --compile out"


@pytest.mark.slow
def test_compiled_tower_gives_the_same_features():
    visual = vit(quick_gelu=True)
    images = torch.randn(8, 3, 32, 32)
    with torch.inference_mode():
        before = features(visual, images)
        tower = Tower(visual, CPU, compiled=True)
        assert torch.allclose(before, tower.features(tower.take(images)), atol=2e-6)
