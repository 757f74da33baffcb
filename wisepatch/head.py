"""The zero-shot head from text, and the classifier: image encoder and head."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.datasets.prompts import prompts
from wisepatch.encoder import encode_texts
from wisepatch.files import hash_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wisepatch.encoder import Encoder
    from wisepatch.store import Store

TEXTS_PER_BATCH = 512


def zeroshot_head(
    encoder: Encoder, classes: Sequence[str], templates: Sequence[str], store: Store | None = None
) -> torch.Tensor:
    """The text-derived head ``(classes, dim)`` in fp32, scaled by ``exp(logit_scale)`` (WiSE-FT section 2, PAINT section 2).

    For each class all prompts are embedded, normalised, averaged and normalised again. With a ``store``, heads are cached by
    the text tower's weights and all prompts, so a change of either makes a new one. Needs no images.
    """
    key = ""
    if store is not None:
        key = head_hash(encoder, classes, templates)
        cached = store.load_head(key)
        if cached is not None:
            return cached
    import open_clip

    with torch.no_grad():
        weight = open_clip.build_zero_shot_classifier(
            _TextModel(encoder),
            _keep,
            list(classes),
            [partial(_fill, template) for template in templates],
            num_classes_per_batch=max(TEXTS_PER_BATCH // len(templates), 1),
        ).T
        head: torch.Tensor = (weight.float() * encoder.model.logit_scale.float().exp()).contiguous()
    if store is not None:
        store.save_head(key, head)
    return head


def head_hash(encoder: Encoder, classes: Sequence[str], templates: Sequence[str]) -> str:
    """A hash of everything a zero-shot head depends on."""
    said = json.dumps([prompts(name, templates) for name in classes])
    parts = (hash_tensors(encoder.text_weights), encoder.text_design, said)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _fill(template: str, class_name: str) -> str:
    return prompts(class_name, [template])[0]


class _Texts(list[str]):
    """Texts that open_clip's builder may call ``.to(device)`` on, as it does on tokens."""

    def to(self, device: object) -> _Texts:
        return self


def _keep(texts: Sequence[str]) -> _Texts:
    return _Texts(texts)


class _TextModel:
    """What open_clip's builder of zero-shot heads needs of a model; tokenizes only as long as needed."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def encode_text(self, texts: Sequence[str], normalize: bool = True) -> torch.Tensor:
        return encode_texts(self.encoder, texts)


class Classifier(torch.nn.Module):
    """Image encoder and head: images ``(n, 3, h, w)`` to logits ``(n, classes)``; features are normalised in between."""

    def __init__(self, visual: torch.nn.Module, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """Put a head ``(classes, dim)`` with an optional bias ``(classes,)`` behind an image tower; the head is trainable."""
        super().__init__()
        self.visual = visual
        self.weight = torch.nn.Parameter(weight.clone())
        self.bias = torch.nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.clone())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits; of features ``(n, dim)`` too, which pass the tower by."""
        if images.ndim == 2:
            return F.linear(images, self.weight, self.bias)
        return logits(self.visual, images, self.weight, self.bias)


def features(visual: Any, images: torch.Tensor) -> torch.Tensor:
    """Image features ``(n, dim)`` of unit length."""
    output = visual(images)
    if isinstance(output, tuple):  # CoCa's tower also returns its tokens
        output = output[0]
    return F.normalize(output, dim=-1)


def logits(visual: Any, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Logits ``(n, classes)`` of images under a head."""
    return F.linear(features(visual, images), weight, bias)
