"""A sweep in one pass gives the logits of each alpha alone, bit for bit."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows
from open_clip.transformer import VisionTransformer

from wisepatch.evaluation.endpoints import Mixes, answers, set_weights
from wisepatch.models.tower import Tower

ALPHAS = (0.0, 0.2, 0.5, 0.9, 1.0)


def small_visual(patch_size):
    torch.manual_seed(0)
    return VisionTransformer(
        image_size=2 * patch_size, patch_size=patch_size, width=64, layers=2, heads=4, mlp_ratio=4.0, output_dim=32
    )


def mixes_of(visual, alphas, weighed=False):
    generator = torch.Generator().manual_seed(1)
    start = {f"visual.{name}": tensor.clone() for name, tensor in visual.state_dict().items()}
    end = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in start.items()}
    fishers = tuple({name: torch.rand(t.shape, generator=generator) for name, t in start.items()} for _ in range(2))
    return Mixes(None, start, end, False, (None, None), list(enumerate(alphas)), fishers if weighed else None)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("patch_size", [8, 32])
@torch.inference_mode()
def test_sweep_gives_exactly_the_logits_of_each_alpha_alone(precision, weighed, patch_size):
    """Also with patches of 32 pixels in bf16, where a first layer that is interpolated after it is computed differs."""
    visual = small_visual(patch_size)
    size, weight = 2 * patch_size, torch.randn(5, 32)
    sweep, tower = mixes_of(visual, ALPHAS, weighed), Tower(copy.deepcopy(visual), torch.device("cpu"), precision)
    batches = [tower.take(torch.randn(6, 3, size, size)), tower.take(torch.randn(3, 3, size, size))]
    head = SimpleNamespace(at=lambda alpha: (weight, None))
    logits = {(index, part): each for index, part, _, each in answers(sweep, tower, batches, [head])}
    assert len(logits) == len(ALPHAS) * len(batches)
    for index, alpha in enumerate(ALPHAS):
        alone = Tower(copy.deepcopy(visual), torch.device("cpu"), precision)
        set_weights(alone.visual, mixes_of(visual, (alpha,), weighed), alpha)
        for part, images in enumerate(batches):
            assert torch.equal(logits[index, part], F.linear(alone.features(images), weight))
    assert not torch.allclose(logits[0, 0], logits[len(ALPHAS) - 1, 0], atol=0.1)
