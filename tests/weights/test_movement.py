"""How far weights moved, against the same arithmetic on whole tensors."""

import math

import pytest
import torch
from safetensors.torch import save_file

from wisepatch.errors import ModelError, StoreError
from wisepatch.weights import movement
from wisepatch.weights.movement import Movement, layer_movements, layer_of, tensor_movements


def write(path, tensors):
    save_file(tensors, path)
    return path


@pytest.fixture
def ends(tmp_path):
    torch.manual_seed(0)
    before = {
        "head.weight": torch.randn(2, 3), "logit_scale": torch.tensor(4.0), "visual.conv1.weight": torch.randn(4, 3),
        "transformer.resblocks.0.ln_1.weight": torch.randn(5), "visual.proj": torch.randn(2, 2),
        **{f"visual.transformer.resblocks.{n}.{k}.weight": torch.randn(3, 3) for n in (0, 2, 10) for k in ("a", "b")},
        "visual.bn1.num_batches_tracked": torch.tensor(3),
    }  # fmt: skip
    after = {name: tensor.clone() for name, tensor in before.items()}
    for name in after:
        if name.startswith("visual.transformer"):
            after[name] += 0.1 * torch.randn(3, 3)
    return before, after, write(tmp_path / "0.safetensors", before), write(tmp_path / "1.safetensors", after)


def test_blocks_have_the_norms_distances_and_cosines_of_their_tensors(ends, monkeypatch):
    monkeypatch.setattr(movement, "ELEMENTS_AT_ONCE", 4)  # several blocks a tensor
    before, after, *paths = ends
    total, *layers = layer_movements(tensor_movements(*paths))
    named = {layer.name: layer for layer in layers}
    for number in (0, 2, 10):
        block = f"visual.transformer.resblocks.{number}"
        x, y = (torch.cat([end[f"{block}.{k}.weight"].flatten() for k in "ab"]).double() for end in (before, after))
        layer = named[block]
        assert layer.elements == 18
        assert layer.norm == pytest.approx(x.norm().item())
        assert layer.distance == pytest.approx((y - x).norm().item())
        assert layer.relative == pytest.approx(((y - x).norm() / x.norm()).item())
        assert layer.cosine == pytest.approx(torch.nn.functional.cosine_similarity(x, y, dim=0).item())
    floats = [name for name in before if before[name].is_floating_point()]
    x, y = (torch.cat([end[name].flatten() for name in floats]).double() for end in (before, after))
    assert (total.name, total.elements) == ("", len(x))
    assert total.distance == pytest.approx((y - x).norm().item())
    assert (named["visual.conv1"].distance, named["visual.conv1"].cosine) == (0, 1)


def test_blocks_come_in_the_order_of_the_towers(ends):
    names = [layer.name for layer in layer_movements(tensor_movements(*ends[2:]))]
    blocks = [f"visual.transformer.resblocks.{number}" for number in (0, 2, 10)]
    assert names == [
        "", "visual.conv1", *blocks, "visual.proj", "transformer.resblocks.0", "logit_scale", "head",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("visual.transformer.resblocks.3.mlp.c_fc.weight", "visual.transformer.resblocks.3"),
        ("visual.layer1.0.conv1.weight", "visual.layer1.0"),
        ("visual.conv1.weight", "visual.conv1"),
        ("visual.trunk.conv_head.weight", "visual.trunk.conv_head"),
        ("visual.proj", "visual.proj"),
        ("logit_scale", "logit_scale"),
        ("weight", "weight"),
    ],
)
def test_a_tensor_belongs_to_the_block_of_its_name(tensor, layer):
    assert layer_of(tensor) == layer


def test_weights_of_zero_have_no_cosine():
    zero = Movement("a", 2, 0.0, 4.0, 0.0, 4.0)
    assert math.isnan(zero.cosine)
    assert math.isnan(zero.relative)
    assert zero.distance == 2


def test_other_architectures_and_files_are_refused(ends, tmp_path):
    other = write(tmp_path / "other.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(StoreError, match="different architectures"):
        list(tensor_movements(ends[2], other))
    with pytest.raises(ModelError, match="no safetensors file"):
        list(tensor_movements(ends[2], tmp_path / "nowhere.safetensors"))
