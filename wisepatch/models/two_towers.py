"""Both towers of a CLIP as one module, for objectives that train the text tower too."""

from __future__ import annotations

from typing import Any

import torch

from wisepatch.models.classifier import Classifier, at_least_single, features
from wisepatch.models.clip import Clip
from wisepatch.models.open_clip_assumptions import reads_end_token_causally
from wisepatch.models.zeroshot_head import text_features


class TwoTowers(Classifier):
    """A classifier that holds the text tower of its CLIP too; parameters are those of the CLIP, each once."""

    def __init__(self, clip: Clip, classifier: Classifier) -> None:
        """Take over image tower and head of ``classifier``; all of ``clip.model`` but its image tower is ``text``."""
        super().__init__(classifier.visual, classifier.weight.detach(), classifier.bias.detach())
        self.text = torch.nn.Module()
        for name, module in clip.model.named_children():
            if name != "visual":
                self.text.add_module(name, module)
        for name, parameter in clip.model.named_parameters(recurse=False):
            self.text.register_parameter(name, parameter)
        self._clip = [clip.model]  # in a list, which hides it from PyTorch: no parameter is counted twice

    def forward(self, images: torch.Tensor, *, tokens: torch.Tensor | None = None, with_features: bool = False) -> Any:
        """Return what a classifier does; with ``tokens`` ``(m, length)`` features of images ``(n, dim)`` and texts ``(m, dim)``.

        The scale of their products, ``exp(logit_scale)``, comes third.
        """
        if tokens is None:
            return super().forward(images, with_features=with_features)
        model = self._clip[0]
        texts = text_features(model, tokens)
        return features(self.visual, images), at_least_single(texts), at_least_single(model.logit_scale).exp()


def shortened(clip: Clip, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Cut tokens ``(n, context)`` to the longest of ``lengths`` where the text tower reads an end token causally."""
    return tokens[:, : int(lengths.max())] if reads_end_token_causally(clip.model) else tokens
