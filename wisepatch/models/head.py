"""The zero-shot head from text, and the classifier: image encoder and head."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.datasets.prompts import prompts
from wisepatch.files import hash_tensors
from wisepatch.models.texts import encode_tokens, tokenize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wisepatch.models.clip import Clip
    from wisepatch.store.checkpoints import Store

TEXTS_PER_BATCH = 256


def zeroshot_head(
    clip: Clip,
    classes: Sequence[str],
    templates: Sequence[str],
    store: Store | None = None,
    note: Callable[[str], object] | None = None,
) -> torch.Tensor:
    """The text-derived head ``(classes, dim)`` in fp32, scaled by ``exp(logit_scale)`` (WiSE-FT section 2, PAINT section 2).

    For each class all prompts are embedded, normalised, averaged and normalised again. With a ``store``, heads are cached by
    the text tower's weights and all prompts, so a change of either makes a new one; ``note`` is
    told of a damaged one. Needs no images.
    """

    @torch.no_grad()
    def compute() -> dict[str, torch.Tensor]:
        with _text_on_gpu(clip.model):
            weight = class_embeddings(clip, classes, templates)
        return {"weight": (weight * clip.model.logit_scale.float().exp()).contiguous()}

    if store is None:
        return compute()["weight"]
    return store.cache.tensors("heads", head_hash(clip, classes, templates), compute, note=note)["weight"]


@contextmanager
def _text_on_gpu(model: Any) -> Iterator[None]:
    """All of a model but its image tower on the GPU for a while, where there is one."""

    def move(device: str) -> None:
        for name, child in model.named_children():
            if name != "visual":
                child.to(device)
        model._apply(lambda tensor: tensor.to(device), recurse=False)

    if not torch.cuda.is_available():
        yield
        return
    before = next(parameter for name, parameter in model.named_parameters() if not name.startswith("visual.")).device
    move("cuda")
    try:
        yield
    finally:
        move(str(before))


def head_hash(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> str:
    """A hash of everything a zero-shot head depends on."""
    said = json.dumps([prompts(name, templates) for name in classes])
    parts = (hash_tensors(clip.text_weights), clip.text_design, said)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def class_embeddings(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Text embeddings ``(classes, dim)`` of unit length in fp32: the mean over all prompts of a class, each of unit length.

    Every different prompt is encoded once, sorted by length, many to a batch, and only as long as the batch needs.
    """
    said = [prompts(name, templates) for name in classes]
    place = {text: index for index, text in enumerate(dict.fromkeys(text for texts in said for text in texts))}
    users = torch.tensor([[place[text] for text in texts] for texts in said])  # (classes, templates)
    tokens, lengths = tokenize(clip, list(place))
    order = lengths.argsort(stable=True)
    device = next(iter(clip.text_weights.values())).device
    found: torch.Tensor | None = None
    for rows in order.split(TEXTS_PER_BATCH):
        embedded = encode_tokens(clip.model, tokens[rows].to(device), lengths[rows]).float().cpu()
        if found is None:
            found = torch.empty(len(place), embedded.shape[1])
        found[rows] = embedded
    assert found is not None
    means = torch.stack([found[rows].mean(0) for rows in users])
    return F.normalize(means, dim=-1)


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
    # Half the bits are enough within a tower, but not for angles and, in evaluation, the logits from them.
    return F.normalize(output.float() if output.dtype.itemsize < 4 else output, dim=-1)


def logits(visual: Any, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Logits ``(n, classes)`` of images under a head."""
    return F.linear(features(visual, images), weight, bias)
