"""The classifier: an image tower with a head behind it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows


class Classifier(torch.nn.Module):
    """Map images ``(n, 3, h, w)`` to logits ``(n, classes)``; the features between tower and head are of unit length."""

    def __init__(self, visual: torch.nn.Module, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """Put a head ``(classes, dim)`` with an optional bias ``(classes,)`` behind an image tower; the head is trainable."""
        super().__init__()
        self.visual = visual
        self.weight = torch.nn.Parameter(weight.clone())
        self.bias = torch.nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.clone())

    def forward(
        self, images: torch.Tensor, *, with_features: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return logits, of images or of their features ``(n, dim)``; with the features where these are asked for."""
        found = images if images.ndim == 2 else features(self.visual, images)
        answers = F.linear(found, self.weight, self.bias)
        return (answers, found) if with_features else answers


def features(visual: Any, images: torch.Tensor) -> torch.Tensor:
    """Compute image features ``(n, dim)`` of unit length, in fp32 at least."""
    output = visual(images)
    if isinstance(output, tuple):  # CoCa's tower also returns its tokens
        output = output[0]
    # Half precision is enough within a tower, but not for angles and, in evaluation, the logits from them.
    return F.normalize(at_least_single(output), dim=-1)


def at_least_single(values: torch.Tensor) -> torch.Tensor:
    """Return values of half precision in fp32, others as they are."""
    return values.float() if values.dtype.itemsize < 4 else values


def logits(visual: Any, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Compute logits ``(n, classes)`` of images under a head."""
    return F.linear(features(visual, images), weight, bias)
