"""The zero-shot head: class names and prompt templates through the text tower, to one row of weights a class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.datasets.prompts import prompts
from wisepatch.devices import device as this_device
from wisepatch.errors import ModelError
from wisepatch.files import hash_tensors
from wisepatch.models.clip import Clip
from wisepatch.models.open_clip_assumptions import reads_end_token_causally
from wisepatch.process_group import deal, made_together, rows_of_all
from wisepatch.store.checkpoints import Store

TEXTS_PER_BATCH = 256
NO_TEXT = "import it again with --parent CHECKPOINT or --model NAME, which gives the text tower back"


def zeroshot_head(
    clip: Clip,
    classes: Sequence[str],
    templates: Sequence[str],
    store: Store | None = None,
    note: Callable[[str], object] | None = None,
) -> torch.Tensor:
    """Build the head ``(classes, dim)`` in fp32 from text, scaled by ``exp(logit_scale)`` (WiSE-FT section 2, PAINT section 2).

    For each class all prompts are embedded, normalised, averaged and normalised again. With a ``store`` that can be written, heads
    are cached by :func:`head_key`; ``note`` is told of a damaged one. Needs no images. Several processes share the prompts.

    Raises :class:`ModelError` for a prompt that is longer than the model's context, and for a model without a text tower.
    """
    if not clip.has_text:
        raise ModelError(f"{clip.config} has no text tower, which makes a head from class names", NO_TEXT)
    if store is None:
        return _compute_head(clip, classes, templates)
    key = head_key(clip, classes, templates)
    if not store.can_be_written() and not store.cache.find("heads", key):
        return _compute_head(clip, classes, templates)
    cached = made_together(
        lambda make: store.cache.tensors("heads", key, make, note=note),
        lambda: {"weight": _compute_head(clip, classes, templates)},
    )
    return cached["weight"]


def check_prompts(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> None:
    """Raise :class:`ModelError` for a prompt that is longer than the model's context."""
    tokenize(clip, [text for name in classes for text in prompts(name, templates)])


def head_key(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> str:
    """Hash everything a zero-shot head depends on: the text tower's weights, layers and tokenizer, and all prompts."""
    layers = [str(module) for name, module in clip.model.named_children() if name != "visual"]
    design = [*layers, type(clip.tokenizer).__name__, str(clip.model.context_length)]
    parts = (hash_tensors(clip.text_weights), *design, json.dumps([prompts(name, templates) for name in classes]))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@contextmanager
def _text_tower_on_gpu(model: Any) -> Iterator[torch.device]:
    """Move all of a model but its image tower to the GPU for a while, where there is one; yield the device."""
    visual, device_before = model.visual, model.logit_scale.device
    model.visual = None
    try:
        model.to(this_device() if this_device().type == "cuda" else device_before)
        yield model.logit_scale.device
    finally:
        model.to(device_before).visual = visual


def _compute_head(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    return mean_text_head(clip, [prompts(name, templates) for name in classes])


@torch.no_grad()
def mean_text_head(clip: Clip, groups: Sequence[Sequence[str]]) -> torch.Tensor:
    """Build a head ``(groups, dim)`` in fp32: a row is the mean of the features of its texts, normalised and scaled.

    Every different text is encoded once, sorted by length, many to a batch, and only as long as the batch needs.
    """
    unique_texts = list(dict.fromkeys(chain.from_iterable(groups)))
    row_of_text = {text: row for row, text in enumerate(unique_texts)}
    tokens, lengths = tokenize(clip, unique_texts)
    order = lengths.argsort(stable=True)
    shortened = reads_end_token_causally(clip.model)
    embedded = {}
    with _text_tower_on_gpu(clip.model) as device:
        for first in deal(range(0, len(order), TEXTS_PER_BATCH)):
            rows = order[first : first + TEXTS_PER_BATCH]
            batch = tokens[rows, : int(lengths[rows].max())] if shortened else tokens[rows]
            embedded[first] = text_features(clip.model, batch.to(device)).float().cpu()
    embeddings = rows_of_all(embedded, len(order))[order.argsort()]
    means = torch.stack([embeddings[[row_of_text[text] for text in texts]].mean(0) for texts in groups])
    scale: torch.Tensor = clip.model.logit_scale.float().exp()
    return F.normalize(means, dim=-1) * scale


def tokenize(clip: Clip, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn texts into tokens ``(n, context)``, with the length ``(n,)`` of each up to its end token.

    Raises :class:`ModelError` naming a text that is longer than the context, whose end token would be cut off, and where the
    tokenizer is not the model's.
    """
    context = clip.model.context_length
    tokens = clip.tokenizer([*texts, ""], context_length=context + 1)
    tokens, padding = tokens[:-1], tokens[-1, -1]  # an empty text is padded in any tokenizer
    too_long = (tokens[:, context] != padding).nonzero().flatten().tolist()
    if too_long:
        reason = f"the prompt {texts[too_long[0]]!r} is longer than the {context} tokens the model reads"
        raise ModelError(reason, "shorten the class name (--classnames FILE) or the template")
    known = getattr(clip.model, "vocab_size", None)
    if known is not None and tokens.max() >= known:
        reason = f"{clip.config} knows {known:,} tokens, and its tokenizer makes number {int(tokens.max()):,}"
        raise ModelError(reason, "its tokenizer is another one: a local-dir: or hf-hub: model can name it")
    return tokens[:, :context], tokens.argmax(1) + 1  # the end token has the largest id


def text_features(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Encode tokens ``(n, length)`` to text features ``(n, dim)`` of unit length.

    Rows shorter than the context give the features of padded ones, for models of :func:`reads_end_token_causally` alone.
    """
    length = tokens.shape[1]
    features: torch.Tensor
    if length == model.context_length:
        features = model.encode_text(tokens, normalize=True)
    else:
        positions, mask = model.positional_embedding[:length], model.attn_mask[:length, :length]
        shortened = {"positional_embedding": positions, "attn_mask": mask}
        _, features, _ = torch.func.functional_call(model, shortened, kwargs={"text": tokens})
    return features
