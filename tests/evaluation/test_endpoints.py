"""What every mix says of images, where the first layer of the tower is computed at the two ends alone."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows
from open_clip.transformer import VisionTransformer

from wisepatch.evaluation.endpoints import Mixes, answers, set_weights
from wisepatch.models.tower import Tower

ALPHAS = (0.0, 0.2, 0.5, 0.9, 1.0)


def small_tower(precision):
    torch.manual_seed(0)
    visual = VisionTransformer(image_size=32, patch_size=8, width=64, layers=2, heads=4, mlp_ratio=4.0, output_dim=32)
    return Tower(visual, torch.device("cpu"), precision)


def line_of(tower, alphas, weighed=False):
    generator = torch.Generator().manual_seed(1)
    start = {f"visual.{name}": tensor.float().clone() for name, tensor in tower.visual.state_dict().items()}
    end = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in start.items()}
    fishers = tuple({name: torch.rand(t.shape, generator=generator) for name, t in start.items()} for _ in range(2))
    return Mixes(None, start, end, False, (None, None), list(enumerate(alphas)), fishers if weighed else None)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize(
    ("alphas", "weighed", "passes"), [(ALPHAS, False, 4), (ALPHAS, True, 0), (ALPHAS[:2], False, 0)]
)
@torch.inference_mode()
def test_first_layer_is_computed_at_the_two_ends_and_mixed(precision, alphas, weighed, passes, monkeypatch):
    tower, seen = small_tower(precision), []
    line = line_of(tower, alphas, weighed)
    batches = [tower.take(torch.randn(6, 3, 32, 32)), tower.take(torch.randn(3, 3, 32, 32))]
    weight = torch.randn(5, 32)
    head = SimpleNamespace(at=lambda alpha: (weight, None))
    original = Tower.patches
    monkeypatch.setattr(Tower, "patches", lambda self, images: seen.append(len(images)) or original(self, images))
    found = {(index, part): said for index, part, _, said in answers(line, tower, batches, [head])}
    assert len(seen) == passes  # two batches at two ends, where it saves anything and mixes are linear in alpha
    assert len(found) == len(alphas) * len(batches)
    for index, alpha in enumerate(alphas):
        set_weights(tower.visual, line, alpha)
        for part, images in enumerate(batches):
            expected = F.linear(tower.features(images), weight)
            if alpha in (0, 1) or not passes:
                assert torch.equal(found[index, part], expected)
            else:
                assert torch.allclose(found[index, part], expected, atol=1e-5 if precision is None else 0.03)
    assert not torch.allclose(found[0, 0], found[len(alphas) - 1, 0], atol=0.1)
