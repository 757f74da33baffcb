"""The internals of open_clip that wisepatch relies on, checked whenever a model is loaded.

open_clip documents how models, tokenizers and transforms are made, not what they are made of. That is used to take a transform
apart (:mod:`clip`), to encode texts no longer than they are (:mod:`zeroshot_head`), and to compute sooner (:mod:`tower`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.errors import ModelError

if TYPE_CHECKING:
    import torch

MODEL = ("visual", "context_length", "logit_scale", "encode_text", "visual.preprocess_cfg")
PARTS = {
    "CLIP": ("attn_mask", "positional_embedding", "text_pool_type"),
    "VisionTransformer": ("attn_pool", "pool_type", "output_tokens", "transformer.resblocks"),
    "ResidualAttentionBlock": ("ln_1", "attn.in_proj_weight", "ls_1", "ln_2", "mlp", "ls_2"),
}
CLASSES = ("QuickGELU", "ResidualAttentionBlock", "VisionTransformer")


def check_assumptions(model: Any, tokenizer: Any) -> None:
    """Raise :class:`ModelError`, naming the installed version of open_clip, where a model is made of other parts."""
    import open_clip

    missing = [f"open_clip.transformer has no {name}" for name in CLASSES if not hasattr(open_clip.transformer, name)]
    missing += [f"the model has no {name}" for name in MODEL if not _has(model, name)]
    for module in model.modules():
        kind = type(module).__name__ if type(module).__module__.startswith("open_clip.") else ""
        missing += [f"{kind} has no {name}" for name in PARTS.get(kind, ()) if not _has(module, name)]
    if missing:
        raise unexpected(missing[0])
    tokens = tokenizer([""], context_length=model.context_length + 1)
    if tokens.shape != (1, model.context_length + 1):
        raise unexpected(f"the tokenizer does not pad to the context, but to {tuple(tokens.shape)}")
    if reads_end_token_causally(model) and (tokens[0, tokens[0].argmax() + 1 :] != tokens[0, -1]).any():
        raise unexpected("the end token is not the largest")


def unexpected(reason: str) -> ModelError:
    """Make the error that names the installed version of open_clip."""
    from importlib.metadata import version

    hint = "install another version of open_clip_torch (wisepatch was tried with 3.3), or a newer wisepatch"
    return ModelError(f"open_clip_torch {version('open_clip_torch')} is not as wisepatch expects it: {reason}", hint)


def _has(module: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    return hasattr(module, name) and (not rest or _has(getattr(module, name), rest))


def reads_end_token_causally(model: Any) -> bool:
    """Tell whether padding has no influence on a text's features: open_clip's CLIP, causal, read out at the end token."""
    import open_clip

    return type(model) is open_clip.CLIP and model.attn_mask is not None and model.text_pool_type == "argmax"


def split_transform(transform: Any) -> tuple[Callable[[Any], torch.Tensor], Sequence[float], Sequence[float]] | None:
    """Split a transform as open_clip makes it into its steps up to bytes, mean and std; return ``None`` for any other."""
    from torchvision import transforms

    match list(getattr(transform, "transforms", ())):
        case [*steps, transforms.ToTensor(), transforms.Normalize() as scale]:
            return transforms.Compose([*steps, transforms.PILToTensor()]), scale.mean, scale.std
    return None
