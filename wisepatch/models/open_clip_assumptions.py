"""The internals of open_clip that wisepatch relies on, checked whenever a model is loaded.

open_clip documents how models, tokenizers and transforms are made, not what they are made of. That is used to take a transform
apart (:mod:`clip`), to encode texts no longer than they are (:mod:`zeroshot_head`), and to compute sooner (:mod:`tower`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

ATTRIBUTES = {  # by class; "*" are those of every model
    "*": ("visual", "context_length", "logit_scale", "encode_text", "visual.preprocess_cfg"),
    "CLIP": ("attn_mask", "positional_embedding", "text_pool_type"),
    "VisionTransformer": ("attn_pool", "pool_type", "output_tokens", "transformer.resblocks"),
    "ResidualAttentionBlock": ("ln_1", "attn.in_proj_weight", "ls_1", "ln_2", "mlp", "ls_2"),
}


def check_assumptions(model: Any, tokenizer: Any, transform: Any) -> None:
    """Raise :class:`ModelError`, naming the installed version of open_clip, where a model is made of other parts."""
    from wisepatch.models.zeroshot_head import reads_end_token_causally

    missing = [f"the model has no {name}" for name in ATTRIBUTES["*"] if not _has(model, name)]
    for module in model.modules():
        kind = type(module).__name__ if type(module).__module__.startswith("open_clip.") else ""
        missing += [f"{kind} has no {name}" for name in ATTRIBUTES.get(kind, ()) if not _has(module, name)]
    if split_transform(transform) is None:
        missing.append("the transform does not end in ToTensor and Normalize")
    if not missing:
        tokens = tokenizer([""], context_length=model.context_length + 1)
        if tokens.shape != (1, model.context_length + 1):
            missing.append(f"the tokenizer does not pad to the context, but to {tuple(tokens.shape)}")
        elif reads_end_token_causally(model) and (tokens[0, tokens[0].argmax() + 1 :] != tokens[0, -1]).any():
            missing.append("the end token is not the largest")
    if missing:
        from importlib.metadata import version

        raise ModelError(
            f"open_clip_torch {version('open_clip_torch')} is not as wisepatch expects it: {missing[0]}",
            "install another version of open_clip_torch (wisepatch was tried with 3.2 and 3.3), or a newer wisepatch",
        )


def _has(module: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(module, name):
            return False
        module = getattr(module, name)
    return True


def split_transform(transform: Any) -> tuple[Callable[[Any], torch.Tensor], Sequence[float], Sequence[float]] | None:
    """Split a transform as open_clip makes it into its steps up to bytes, mean and std; return ``None`` for any other."""
    from torchvision import transforms

    match list(getattr(transform, "transforms", ())):
        case [*steps, transforms.ToTensor(), transforms.Normalize() as scale]:
            return transforms.Compose([*steps, transforms.PILToTensor()]), scale.mean, scale.std
    return None
