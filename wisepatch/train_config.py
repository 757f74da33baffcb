"""Settings of one fine-tuning, with the defaults of the papers' procedures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from wisepatch.config import (
    LIMIT_HELP,
    MODEL,
    SPEED,
    Config,
    EvalConfig,
    Precision,
    listed,
    names_by_comma,
    not_a_choice,
    setting,
)

Head = Literal["frozen", "trained"]
Weights = Literal["none", "balanced"]
Balance = Literal["examples", "tasks"]  # of several tasks that are trained together
LATER = (  # settings that trainings of before did not have
    "limit", "weights", "objective", "objective_param", "distill_on", "ema", "swa", "layer_decay", "lora", "freeze",
    "tasks", "balance",
)  # fmt: skip
ABOVE_ZERO = (
    "steps", "epochs", "lr", "batch_size", "clip", "grad_accumulation", "eval_every", "patience", "limit",
)  # fmt: skip
CROSS_ENTROPY = "cross-entropy"
TRAINING, OBJECTIVE = "Training", "Objective, averages and adapters"  # where --help shows a setting


@dataclass(frozen=True)
class TrainConfig(Config):
    """Settings of one fine-tuning run; exactly one of ``steps`` and ``epochs`` is set.

    A step sees ``batch_size`` images times ``grad_accumulation``, in any number of processes: they share each batch.

    ``head`` is ``frozen`` (PAINT section 3: the image encoder is trained against the text-derived head) or ``trained``
    (WiSE-FT section 3: encoder and head); ``freeze_encoder`` trains the head alone (a linear probe). ``warmup`` of ``None`` is the
    paper's, at most a tenth of the run. ``eval_every`` counts epochs. The weights do not depend on the number of ``workers``
    (``None``: as the machine suggests, none where training is on a CPU). ``start`` names a checkpoint to begin from,
    ``limit`` is the number of images of each split at most. ``weights`` of ``balanced`` weigh the loss of an image by
    ``n / (classes * images of its class)``, which is 1 on average.

    ``tasks`` are those of one training on several (PAINT section 5, joint), each image judged by the head of its own task; ``task``
    then holds their words by comma. ``balance`` says what an epoch is: every image (``examples``), or as many of each task
    (``tasks``).
    ``objective`` is what is minimised, ``objective_param`` its settings as ``NAME=VALUE`` (or ``OBJECTIVE.NAME=VALUE``, which
    others pass over), ``distill_on`` unlabelled images for one that takes some. ``ema`` and ``swa`` keep an average of the weights
    on the way, ``layer_decay`` slows blocks down the further they are from the head, ``lora`` trains low-rank updates of linear
    layers alone, and ``freeze`` names blocks that stay as they are.
    """

    task: str
    supported: tuple[str, ...] = ()
    classnames: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    head: Head = setting(
        "frozen",
        "frozen (PAINT: image encoder only) or trained (WiSE-FT: encoder and head). (frozen, or as the objective needs)",
        TRAINING,
        paper=True,
    )
    freeze_encoder: bool = setting(
        default=False, help="Train the head alone, on fixed features (WiSE-FT).", panel=TRAINING
    )
    steps: int | None = setting(2000, "Steps. (PAINT: 2000)", TRAINING, paper=True)
    epochs: float | None = setting(None, "Epochs, for steps. (WiSE-FT: 10)", TRAINING)
    lr: float = setting(1e-5, "Peak learning rate. (1e-5; WiSE-FT: 3e-5; head alone: 1e-3)", TRAINING, paper=True)
    batch_size: int = setting(128, "Images a step. (128; WiSE-FT: 512)", TRAINING, paper=True)
    warmup: int | None = setting(None, "Warm-up steps. (200; WiSE-FT: 500; at most a tenth of the run)", TRAINING)
    wd: float = setting(0.1, "Weight decay; l2-sp takes its place.", TRAINING)
    label_smoothing: float = setting(0.0, "Label smoothing.", TRAINING)
    weights: Weights = setting(
        "none", "balanced weighs each image of the loss by how rare its class is in the training data.", TRAINING
    )
    clip: float = 1.0
    grad_accumulation: int = setting(1, "Batches a step; the learning rate sees their sum.", TRAINING)
    seed: int = setting(0, "Seed of everything random.", TRAINING)
    mixed_precision: Precision = setting("no", "Precision of training and evaluation.", SPEED)
    workers: int | None = setting(None, "Processes that load images. (default: as the machine suggests)", SPEED, min=0)
    limit: int | None = setting(None, LIMIT_HELP, TRAINING, min=1)
    start: str | None = setting(
        None, "Start from this checkpoint of the store, not from the published model.", MODEL, flags=("--from",)
    )
    eval_every: float | None = setting(None, "Measure on validation data each so many epochs.", TRAINING)
    keep_best: str | None = setting(
        None, "Keep the weights that are best on validation data by this metric, such as top1.", TRAINING
    )
    patience: int | None = setting(
        None, "Stop after so many validations without a better one; with --keep-best.", TRAINING
    )
    save_every: int = setting(
        500, "Save the state to resume from each so many steps; 0: when interrupted.", TRAINING, min=0
    )
    track: str | None = setting(
        None, "Also log to trackers of Accelerate, by comma: tensorboard, wandb, trackio, ...", TRAINING
    )
    tasks: tuple[str, ...] = ()
    balance: Balance = "examples"
    objective: str = setting(
        CROSS_ENTROPY,
        "What is minimised: cross-entropy, flyp, lp-ft, l2-sp, distill, lipsum, car-ft, or a plugin's.",
        OBJECTIVE,
    )
    objective_param: tuple[str, ...] = setting(
        (), "A setting of the objective, NAME=VALUE, such as weight=0.5. Repeatable.", OBJECTIVE
    )
    distill_on: str | None = setting(
        None, "Distil on the images below this folder, or of a task: labels are not looked at.", OBJECTIVE
    )
    ema: float | None = setting(
        None, "Keep the exponential moving average of the weights, with this decay, such as 0.999.", OBJECTIVE
    )
    swa: bool = setting(
        default=False,
        help="Keep the mean of the weights over the last quarter, at a constant rate (SWA).",
        panel=OBJECTIVE,
    )
    layer_decay: float | None = setting(
        None, "Multiply the learning rate by this for each block further from the head, such as 0.65.", OBJECTIVE
    )
    lora: int | None = setting(
        None,
        "Train low-rank updates of this rank (LoRA) of the linear layers alone, merged at the end.",
        OBJECTIVE,
        min=1,
    )
    freeze: tuple[str, ...] = setting(
        (), "Blocks of the image encoder to leave as they are: stem, numbers, ranges such as 0-5; by comma.", OBJECTIVE
    )

    def __post_init__(self) -> None:
        """Check, after this: who freezes the encoder trains the head, and who keeps the best looks each epoch."""
        for name in ("supported", "classnames", "templates", "tasks", "objective_param", "freeze"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, listed(getattr(self, name)))
        object.__setattr__(self, "freeze", tuple(name for word in self.freeze for name in names_by_comma(str(word))))
        if self.freeze_encoder:
            object.__setattr__(self, "head", "trained")
        if self.keep_best and self.eval_every is None:
            object.__setattr__(self, "eval_every", 1.0)
        super().__post_init__()

    def problems(self) -> Iterable[str]:
        """Check every field."""
        if (self.steps is None) == (self.epochs is None):
            yield "give either steps or epochs"
        for name in ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                yield f"{name.replace('_', '-')} must be above 0, not {value}"
        if self.patience is not None and not self.keep_best:
            yield "patience needs keep-best, which names the metric"
        for name in ("warmup", "wd", "workers", "save_every"):
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                yield f"{name.replace('_', '-')} must not be negative"
        if not 0 <= self.seed < 2**32:
            yield f"seed must lie in [0, 2**32), not {self.seed}"
        yield from self._objective_problems()
        if not 0 <= self.label_smoothing < 1:
            yield f"label-smoothing must lie in [0, 1), not {self.label_smoothing}"
        yield not_a_choice("head", self.head, Head)
        yield not_a_choice("weights", self.weights, Weights)
        yield not_a_choice("balance", self.balance, Balance)
        yield not_a_choice("mixed-precision", self.mixed_precision, Precision)

    def _objective_problems(self) -> Iterable[str]:
        """Check what decides how weights are moved and averaged."""
        if self.ema is not None and not 0 < self.ema < 1:
            yield f"ema must lie between 0 and 1, not {self.ema}"
        if self.ema is not None and self.swa:
            yield "give either ema or swa: one average is kept"
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            yield f"layer-decay must lie in (0, 1], not {self.layer_decay}"
        if self.lora is not None and self.lora < 1:
            yield f"lora must be a rank above 0, not {self.lora}"
        if self.lora is not None and (self.ema is not None or self.swa):
            yield "lora trains factors, whose mean is not that of the weights: leave ema and swa out"
        if self.lora is not None and self.freeze:
            yield "lora leaves all but its low-rank updates as it is: leave freeze out"
        for name, given in (("layer-decay", self.layer_decay), ("lora", self.lora), ("freeze", self.freeze or None)):
            if self.freeze_encoder and given is not None:
                yield f"{name} is about the image encoder, and freeze-encoder leaves that as it is"
        for word in self.objective_param:
            if "=" not in str(word):
                yield f"objective-param is NAME=VALUE, not {word!r}"

    @property
    def identity(self) -> dict[str, Any]:
        """Return the settings that decide about the weights or belong to their record, as JSON types.

        Settings that came later are left out where they are not used: older trainings go on, and are not repeated.
        """
        given = self.to_json()
        defaults = {each.name: each.default for each in fields(self) if each.name in LATER}
        unused = [name for name, default in defaults.items() if given[name] == default]
        return {name: value for name, value in given.items() if name not in ("save_every", "track", *unused)}

    @property
    def paper_warmup(self) -> int:
        """Return the warm-up of the paper whose procedure this is, in steps."""
        return 200 if self.training == "paint" else 500

    @property
    def training(self) -> str:
        """Return the papers' procedure: ``paint``, ``wise-ft`` or ``linear-probe``."""
        if self.freeze_encoder:
            return "linear-probe"
        return "paint" if self.head == "frozen" else "wise-ft"

    @property
    def evaluation(self) -> EvalConfig:
        """Settings for evaluating what was trained: the same precision and loading processes."""
        return EvalConfig(workers=self.workers, mixed_precision=self.mixed_precision)

    @classmethod
    def with_defaults(
        cls, task: str | Sequence[str], *, head: Head | None = None, freeze_encoder: bool = False, **given: Any
    ) -> Self:
        """Fill settings that are not given (``None``) with the defaults of the paper whose procedure is asked for.

        Of several tasks, to be patched together, ``task`` joins the words by comma and ``tasks`` holds them one by one.

        PAINT (section 3): 2,000 steps of 128 images, lr 1e-5, warm-up 200. WiSE-FT (its experimental details): 10 epochs of
        512 images, lr 3e-5, warm-up 500. The linear classifier of WiSE-FT takes lr 1e-3.
        """
        papers: dict[str, Any] = {"steps": 2000, "lr": 1e-5, "batch_size": 128}
        if head == "trained" or freeze_encoder:
            papers = {"epochs": 10.0, "steps": None, "lr": 1e-3 if freeze_encoder else 3e-5, "batch_size": 512}
        chosen = {name: value for name, value in given.items() if value is not None}
        if "epochs" in chosen and "steps" not in chosen:
            papers["steps"] = None
        if "steps" in chosen and "epochs" not in chosen:
            papers.pop("epochs", None)
        words = listed(task)
        if len(words) > 1:
            chosen["tasks"] = words
        return cls(task=",".join(words), head=head or "frozen", freeze_encoder=freeze_encoder, **{**papers, **chosen})
