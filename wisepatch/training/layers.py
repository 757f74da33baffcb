"""Choose what is trained: freeze towers, heads and blocks, which names of parameters tell apart, or slow the early blocks down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.errors import UsageError
from wisepatch.models.classifier import Classifier
from wisepatch.models.tower import prepare_training
from wisepatch.train_config import TrainConfig
from wisepatch.training.low_rank import adapt

if TYPE_CHECKING:
    import torch

# open_clip's transformers and ResNets, timm's transformers, ConvNeXts and EfficientNets.
BLOCK = re.compile(r"(?:resblocks|blocks|stages|layers)\.\d+(?:\.(?:blocks\.)?\d+)?(?=\.)|layer\d+\.\d+(?=\.)")
ABOVE = re.compile(  # what comes after the blocks, though not always in the order of the names
    r"(?:^|\.)(?:proj|ln_post|ln_final|text_projection|logit_scale|logit_bias|attn_pool|attnpool|head|conv_head|norm|fc_norm|trunk\.bn2)(?:\.|$)"
)
STEM = "stem"


def freeze(config: TrainConfig, classifier: Classifier) -> list[torch.nn.Parameter]:
    """Freeze what the settings leave as it is; return the parameters to train."""
    classifier.visual.requires_grad_(not config.freeze_encoder)
    if not config.freeze_encoder:
        prepare_training(classifier.visual)
    classifier.weight.requires_grad_(config.head == "trained")
    classifier.bias.requires_grad_(config.head == "trained")
    freeze_blocks(classifier.visual, config.freeze)
    if config.lora:
        adapt(classifier, config.lora)
    return list(trained_parameters(classifier).values())


def trained_parameters(classifier: Classifier) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are not frozen, by name."""
    return {name: parameter for name, parameter in classifier.named_parameters() if parameter.requires_grad}


def depths(names: Iterable[str]) -> dict[str, int]:
    """Return the depth of each parameter of one tower: 0 for the stem, 1 for the first block, more than any for what follows."""
    names = list(names)
    blocks = list(dict.fromkeys(match[0] for name in names if (match := BLOCK.search(name))))
    place = {block: number for number, block in enumerate(blocks, 1)}
    found = {}
    for name in names:
        match = BLOCK.search(name)
        found[name] = place[match[0]] if match else len(blocks) + 1 if ABOVE.search(name) else 0
    return found


def freeze_blocks(visual: torch.nn.Module, words: Sequence[str]) -> None:
    """Freeze blocks of an image tower: ``stem``, numbers from 0 on, ranges ``0-5``, as Lee et al. 2023 (Surgical Fine-Tuning) do.

    Raises :class:`UsageError` for others.
    """
    if not words:
        return
    depth = depths(name for name, _ in visual.named_parameters())
    last = max(depth.values()) - 2
    chosen: set[int] = set()
    for word in words:
        numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if word != STEM and not numbers:
            raise UsageError(
                f"--freeze {word} is no block", f"write stem, a number or a range, of the blocks 0 to {last}"
            )
        first, end = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (-1, -1)
        if not first <= end <= last:
            raise UsageError(
                f"the image encoder has the blocks 0 to {last}, and --freeze names {word}", "name some of these"
            )
        chosen |= {number + 1 for number in range(first, end + 1)}
    for name, parameter in visual.named_parameters():
        if depth[name] in chosen:
            parameter.requires_grad = False


def decayed_groups(classifier: torch.nn.Module, decay: float | None) -> list[dict[str, Any]]:
    """Return the trained parameters in groups with the ``scale`` of their rate, ``decay`` for each block further from the head.

    As Howard and Ruder 2018 (ULMFiT, section 3.2) and, with 0.65, Bao et al. 2022 (BEiT) do; without ``decay`` there are no groups.
    """
    if decay is None or decay == 1:
        return []
    named = dict(classifier.named_parameters())
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for tower in ("visual.", "text."):
        depth = depths(name for name in named if name.startswith(tower))
        for name, at in depth.items():
            if named[name].requires_grad:
                groups.setdefault(decay ** (max(depth.values()) - at), []).append(named[name])
    head = [each for name, each in named.items() if not name.startswith(("visual.", "text.")) and each.requires_grad]
    if head:
        groups.setdefault(1.0, []).extend(head)
    return [{"params": each, "scale": scale} for scale, each in groups.items()]
