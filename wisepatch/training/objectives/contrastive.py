"""Fine-tune as CLIP was trained: each image against the prompts of its batch, both towers trained (FLYP)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.datasets.prompts import prompts
from wisepatch.datasets.training_batches import TrainingBatch
from wisepatch.models.two_towers import shortened
from wisepatch.models.zeroshot_head import tokenize
from wisepatch.process_group import from_all
from wisepatch.ranks import rank, size
from wisepatch.training.objectives.start import Loss, TrainingStart


def flyp(start: TrainingStart) -> Loss:
    """Return CLIP's loss of images and prompts of their classes, one template each at random (Goyal et al. 2023, section 3).

    That is the mean over pairs of ``-log softmax(s f_i . g)_i`` and ``-log softmax(s g_i . f)_i``, with features ``f`` of images,
    ``g`` of prompts, and their scale ``s``. Equal prompts of a batch count as negatives of each other, as in the paper, and both
    directions count one half, as in the authors' code, which has nothing to set besides. The batch is that of all processes.
    """
    start.clip.model.to(start.device)  # the text tower reads its mask there
    dataset = start.task.dataset
    groups = [prompts(name, dataset.templates) for name in dataset.head_names]
    found, lengths = tokenize(start.clip, [text for group in groups for text in group])
    texts = shortened(start.clip, found, lengths).to(start.device)
    templates = len(groups[0])

    def loss(model: Any, batch: TrainingBatch) -> torch.Tensor:
        generator = torch.Generator().manual_seed(start.config.seed * 1_000_003 + batch.number)
        drawn = torch.randint(templates, (len(batch.labels) * size(),), generator=generator)[rank() :: size()]
        rows, places = (batch.labels * templates + drawn.to(start.device)).unique(return_inverse=True)
        images, unique, scale = model(batch.images, tokens=texts[rows])
        real = len(batch.labels) if batch.weight else 0
        return contrast(of_all(images[:real]), of_all(unique[places][:real]), scale)

    return loss


def contrast(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Compute the mean of both cross entropies of pairs ``(n, dim)``: which text is an image's, and which image a text's."""
    logits = scale * images @ texts.T
    pairs = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def of_all(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows of all processes, one after the other; gradients reach a process's own, times the number of processes.

    The mean over processes of the gradients is then that of the loss on all rows.
    """
    if size() == 1:
        return rows
    own = rows.detach() + size() * (rows - rows.detach())
    counts = from_all(len(rows))
    padded = F.pad(rows.detach(), (0, 0, 0, max(counts) - len(rows))).contiguous()
    parts = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(parts, padded)
    kept = [part[:count] for part, count in zip(parts, counts, strict=True)]
    kept[rank()] = own
    return torch.cat(kept)
