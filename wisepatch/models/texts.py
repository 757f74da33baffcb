"""Texts through the text tower: tokens, and features as short as the texts allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from wisepatch.models.clip import Clip


def tokenize(clip: Clip, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens ``(n, context)`` of texts, and the length of each up to its end token.

    Raises :class:`ModelError` naming a text that is longer than the context, whose end token would be cut off.
    """
    context = clip.model.context_length
    tokens = clip.tokenizer(list(texts), context_length=context + 1)
    padding = getattr(getattr(clip.tokenizer, "tokenizer", None), "pad_token_id", 0)  # 0 is open_clip's own
    too_long = (tokens[:, context] != padding).nonzero().flatten().tolist()
    if too_long:
        raise ModelError(
            f"the prompt {texts[too_long[0]]!r} is longer than the {context} tokens the model reads",
            "shorten the class name or template",
        )
    return tokens[:, :context], tokens.argmax(1) + 1  # the end token has the largest id


def encode_texts(clip: Clip, texts: Sequence[str]) -> torch.Tensor:
    """Text features ``(n, dim)`` of unit length, encoded only as long as the longest text.

    With a causal text tower that reads out at the end token, what follows that token has no influence, so the embedding is
    the same as with padding to the full context. Raises :class:`ModelError` naming a text that is longer than the context.
    """
    return encode_tokens(clip.model, *tokenize(clip, texts))


def encode_tokens(model: Any, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Text features ``(n, dim)`` of unit length of tokens ``(n, context)``, encoded as long as the longest of them."""
    if not _is_causal(model):
        features: torch.Tensor = model.encode_text(tokens, normalize=True)
        return features
    return encode_short(model, tokens[:, : int(lengths.max())])


def _is_causal(model: Any) -> bool:
    """Whether shorter token rows give the same features: open_clip's CLIP with a causal mask, read out at the end token."""
    import open_clip

    return type(model) is open_clip.CLIP and model.attn_mask is not None and model.text_pool_type == "argmax"


def encode_short(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Text features ``(n, dim)`` of unit length of open_clip's ``CLIP`` for token rows shorter than its context."""
    import torch

    length = tokens.shape[1]
    shortened = {
        "positional_embedding": model.positional_embedding[:length],
        "attn_mask": model.attn_mask[:length, :length],
    }
    features: torch.Tensor = torch.func.functional_call(model, shortened, kwargs={"text": tokens})[1]
    return features
