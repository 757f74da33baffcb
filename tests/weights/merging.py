"""Models of a few tensors, a start and ends, and merges of them."""

import torch

from wisepatch.plugins import find_merge_method
from wisepatch.weights.methods import merge_weights
from wisepatch.weights.parameters import read_params

SHAPES = {
    "visual.transformer.resblocks.0.w": (12, 8),
    "visual.transformer.resblocks.1.w": (8, 12),
    "visual.transformer.resblocks.2.w": (8, 8),
    "visual.conv.weight": (6, 3, 2, 2),
    "visual.b": (9,),
    "visual.text_projection": (5, 4),
    "visual.single": (),
    "transformer.resblocks.0.w": (4, 4),
}


def models(ends=3, seed=0, dtype=torch.float32, size=0.1):
    """A start, and ends whose image towers differ from it."""
    generator = torch.Generator().manual_seed(seed)
    start = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    moved = [
        {
            name: tensor + size * torch.randn(tensor.shape, generator=generator) if "visual" in name else tensor.clone()
            for name, tensor in start.items()
        }
        for _ in range(ends)
    ]
    return [{name: tensor.to(dtype) for name, tensor in model.items()} for model in (start, *moved)]


def merge(method, parents, information=None, **params):
    """Merge by a method that is named, its other parameters as they are by default."""
    method = find_merge_method(method)
    defaults = read_params(method, [])[0]
    return merge_weights(method, parents, {**defaults, **params}, information)


def vectors(parents):
    """The task vectors of all ends, by name."""
    start, *ends = parents
    return [{name: end[name] - start[name] for name in start} for end in ends]


def near(one, other, tolerance=1e-5):
    return torch.allclose(one.double(), other.double(), rtol=0, atol=tolerance)
