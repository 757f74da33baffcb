"""Objectives that keep the image encoder's answers near those before training: distillation, Lipsum-FT, CAR-FT.

Each adds to the cross entropy a distance between answers of the image tower that is trained and of its copy from before, the
teacher, both read through text features that stay.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- the name everybody knows

from wisepatch.datasets.prompts import prompts
from wisepatch.datasets.training_batches import TrainingBatch
from wisepatch.errors import UsageError
from wisepatch.models.classifier import at_least_single
from wisepatch.models.clip import Clip
from wisepatch.models.open_clip_assumptions import reads_end_token_causally
from wisepatch.models.zeroshot_head import mean_text_head, text_features
from wisepatch.train_config import TrainConfig
from wisepatch.training.objectives.start import Loss, TrainingStart, objective_params

CLASSES = ("all", "task", "imagenet")


def distill(start: TrainingStart) -> Loss:
    """Return the cross entropy and ``weight`` times the distance to the zero-shot answers (Li and Hoiem 2016, equations 2 and 3).

    The distance is the Kullback-Leibler divergence at a temperature, over the class names of the task and its supported tasks
    together (``classes=all``), of the ``task``, or of ``imagenet``, on the task's images or on those of ``--distill-on``. (The
    paper's cross entropy differs by a constant: that of the start with itself.) Temperature 2, weight 1 and the task's images are
    the paper's. It is times the temperature's square (Hinton et al. 2015, section 2.1), with which gradients keep their size;
    without it, as Li and Hoiem write it, their weight is ``weight=0.25`` here. They train the new task's head alone before all;
    here it comes from text.
    """
    head, teach = start.placed(distilled_head(start)), start.teacher()
    weight, temperature = start.params["weight"], start.params["temperature"]

    def loss(model: Any, batch: TrainingBatch) -> torch.Tensor:
        images = batch.images if batch.others is None else torch.cat([batch.images, batch.others])
        logits, found = model(images, with_features=True)
        seen = batch.images if batch.others is None else batch.others
        share = batch.weight if batch.others is None else batch.others_weight
        distance = divergence(F.linear(teach(seen), head), F.linear(found[-len(seen) :], head), temperature)
        kept: torch.Tensor = weight * temperature**2 * distance * share
        return start.cross_entropy(logits[: len(batch.labels)], batch) + kept

    return loss


def check_distill(config: TrainConfig) -> None:
    """Raise :class:`UsageError` for settings that distillation cannot have."""
    params = objective_params(config)
    if params["temperature"] <= 0:
        raise UsageError("the setting temperature of distill must not be 0", "its default is 2")
    if params["classes"] not in CLASSES:
        reason = f"the setting classes of distill is {', '.join(CLASSES)}, not {params['classes']!r}"
        raise UsageError(reason, "leave it out for all")


def distilled_head(start: TrainingStart) -> torch.Tensor:
    """Return the head ``(classes, dim)`` whose answers are kept, as ``params["classes"]`` says."""
    named = start.params["classes"]
    if named == "imagenet":
        from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

        return mean_text_head(
            start.clip, [[template(name) for template in OPENAI_IMAGENET_TEMPLATES] for name in IMAGENET_CLASSNAMES]
        )
    tasks = (start.task, *(start.others if named == "all" else ()))
    groups = {
        name: prompts(name, task.dataset.templates) for task in reversed(tasks) for name in task.dataset.head_names
    }
    return mean_text_head(start.clip, list(groups.values()))


def divergence(before: torch.Tensor, now: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the mean Kullback-Leibler divergence of the answers ``now`` from those ``before``: logits ``(n, classes)`` each."""
    targets = F.log_softmax(before / temperature, -1)
    return F.kl_div(F.log_softmax(now / temperature, -1), targets, reduction="batchmean", log_target=True)


def lipsum(start: TrainingStart) -> Loss:
    """Return the cross entropy and ``weight`` times the distance of energies under random texts (Nam et al. 2024, section 5.1).

    That is ``|v(x) - v_0(x)|^2 / (2 texts)``, with ``v`` the scaled cosines between an image and so many texts, each of ``length``
    random tokens, drawn anew for each batch. Weight, number, length and scale are those of the authors' code.
    """
    start.clip.model.to(start.device)
    random_tokens(start, 0)  # raises before the first step
    teach = start.teacher()
    scale = float(start.clip.model.logit_scale.detach().float().exp())

    def loss(model: Any, batch: TrainingBatch) -> torch.Tensor:
        logits, found = model(batch.images, with_features=True)
        with torch.no_grad(), start.autocast():
            texts = at_least_single(text_features(start.clip.model, random_tokens(start, batch.number)))
        gap = scale * F.linear(found - teach(batch.images), texts)
        kept: torch.Tensor = start.params["weight"] * gap.square().mean() / 2 * batch.weight
        return start.cross_entropy(logits, batch) + kept

    return loss


def check_lipsum(config: TrainConfig) -> None:
    """Raise :class:`UsageError` for no texts, or texts without tokens."""
    params = objective_params(config)
    for name in ("texts", "length"):
        if params[name] < 1:
            raise UsageError(f"the setting {name} of lipsum must not be 0", "give 1 at least, or leave it out")


def random_tokens(start: TrainingStart, number: int) -> torch.Tensor:
    """Draw the texts ``(texts, length + 2)`` of a batch by the seed and its number alone: between the ends of any text, any token.

    Raises :class:`UsageError` where they are longer than the model's context.
    """
    model, tokenizer = start.clip.model, start.clip.tokenizer
    length, context = start.params["length"], model.context_length
    first, last = _ends(start.clip)
    if length + 2 > context:
        raise UsageError(
            f"texts of {length} random tokens do not fit between the ends of {context}",
            f"give lipsum a length from 1 to {context - 2}",
        )
    generator = torch.Generator().manual_seed(start.config.seed * 1_000_003 + number)
    drawn = torch.randint(first, (start.params["texts"], length), generator=generator)
    tokens = F.pad(drawn, (1, 1))
    tokens[:, 0], tokens[:, -1] = first, last
    if not reads_end_token_causally(model):  # padded as the tokenizer does
        padding = int(tokenizer([""], context_length=context)[0, -1])
        tokens = F.pad(tokens, (0, context - tokens.shape[1]), value=padding)
    return tokens.to(start.device)


def _ends(clip: Clip) -> tuple[int, int]:
    """Return the tokens at the start and the end of a text, the two largest of CLIP's tokenizer."""
    first, last = clip.tokenizer([""], context_length=clip.model.context_length)[0, :2].tolist()
    if not last == first + 1:
        raise UsageError(
            "lipsum draws random tokens between the two ends of a text, which this model's tokenizer has not",
            "take a model with CLIP's tokenizer, or another objective",
        )
    return first, last


def context(start: TrainingStart) -> Loss:
    """Return the cross entropy and ``weight`` times the divergence of the contexts (Mao et al. 2024, section 3).

    That is ``KL(p_0(c | x) || p(c | x))`` of the softmax of scaled cosines with contexts ``c``. A context is one of CLIP's 80
    templates for ImageNet; its text feature is the mean over the task's class names. The weight of 1 and the direction are those
    of an independent reimplementation; no code of the authors was found.
    """
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    names = start.task.dataset.head_names
    head = mean_text_head(start.clip, [[template(name) for name in names] for template in OPENAI_IMAGENET_TEMPLATES])
    head, teach = start.placed(head), start.teacher()

    def loss(model: Any, batch: TrainingBatch) -> torch.Tensor:
        logits, found = model(batch.images, with_features=True)
        distance = divergence(F.linear(teach(batch.images), head), F.linear(found, head))
        kept: torch.Tensor = start.params["weight"] * distance * batch.weight
        return start.cross_entropy(logits, batch) + kept

    return loss
