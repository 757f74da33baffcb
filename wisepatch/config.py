"""Settings of a run: frozen, validated, to and from JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args

from wisepatch.errors import UsageError

DEMO = "demo"
SCHEMAS = ("hf-hub:", "local-dir:")
Precision = Literal["no", "bf16", "fp16"]
Head = Literal["frozen", "trained"]
LIMIT_HELP = "At most so many images of each split: the same ones each time, stratified by class."
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
MODEL, TRAINING, SPEED = "Model", "Training", "Speed and precision"  # where --help shows a setting
OBJECTIVE = "Objective, averages and adapters"


def setting(default: Any, help: str, panel: str | None, **facts: Any) -> Any:  # noqa: A002 -- as Typer calls it
    """Make a field that is an option of the command line too.

    ``facts``: ``flags`` are its names there where these are others, ``min`` its smallest value, ``envvar`` a variable of
    the environment that gives it, ``paper`` says that its default is the paper's and depends on the procedure.
    """
    return field(default=default, metadata={"help": help, "panel": panel, **facts})


@dataclass(frozen=True)
class Config:
    """Settings that go to and from JSON, and name every field that is off in one error."""

    def __post_init__(self) -> None:
        """Raise one :class:`UsageError` that names all fields that are off."""
        problems = [problem for problem in self.problems() if problem]
        if problems:
            raise UsageError("; ".join(problems), "see --help for what each setting takes")

    def problems(self) -> Iterable[str]:
        """Yield one sentence for each field that is off."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read settings back; fields of a newer version are passed over."""
        known = {each.name for each in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known})


@dataclass(frozen=True)
class PassConfig(Config):
    """Settings of a pass over images; they change its speed, and its predictions only through the precision.

    ``batch_size`` of ``None`` is as many images as the GPU has room for, at most 64 on a CPU; ``workers`` of ``None`` as the
    machine and the number of images suggest. ``bf16`` computes the image tower in bf16 (mixes and
    heads stay in fp32), ``fp16`` by autocast on a GPU.
    """

    batch_size: int | None = setting(
        None, "Images at once. (default: what the GPU has room for, up to 64 on a CPU)", SPEED, min=1
    )
    workers: int | None = setting(None, "Processes that load images. (default: as the machine suggests)", SPEED, min=0)
    mixed_precision: Precision = setting("no", "Precision of the image tower.", SPEED)
    compiled: bool = setting(
        default=False, help="Compile the image tower, which pays for long work.", panel=SPEED, flags=("--compile",)
    )

    def problems(self) -> Iterable[str]:
        """Check every field."""
        if self.batch_size is not None and self.batch_size < 1:
            yield f"batch-size must be above 0, not {self.batch_size}"
        if self.workers is not None and self.workers < 0:
            yield f"workers must not be negative, as {self.workers} is"
        yield _not_a_choice("mixed-precision", self.mixed_precision, Precision)


@dataclass(frozen=True)
class EvalConfig(PassConfig):
    """Settings of an evaluation, which may keep decoded pixels, and recalls the answers that the store holds."""

    cache_images: bool = setting(default=False, help="Keep decoded pixels in the store, for later runs.", panel=SPEED)
    again: bool = setting(default=False, help="Compute answers that the store holds already anew.", panel=SPEED)


@dataclass(frozen=True)
class ModelConfig(Config):
    """A CLIP by name: every name, schema or file that open_clip takes, or ``demo`` for the embedded model.

    A model that open_clip has no name for brings its ``settings`` instead: the text of an ``open_clip_config.json``.
    """

    model: str = "ViT-B-32"
    pretrained: str = "openai"
    settings: str = ""

    def __post_init__(self) -> None:
        """Drop the tag of a model that brings its own weights."""
        if not all(isinstance(each, str) for each in (self.model, self.pretrained, self.settings)):
            raise UsageError(f"the model {self.model!r} ({self.pretrained!r}) is named by no text", "name a model")
        super().__post_init__()
        if self.brings_weights:
            object.__setattr__(self, "pretrained", "")

    @property
    def brings_weights(self) -> bool:
        """Tell whether the name says where the weights are: ``demo``, ``hf-hub:``, ``local-dir:``, or an imported model."""
        return bool(self.settings) or self.model.lower() == DEMO or self.model.startswith(SCHEMAS)

    @property
    def is_local(self) -> bool:
        """Tell whether the design lies on this disk: ``demo``, ``local-dir:``, or an imported model."""
        return bool(self.settings) or self.model.lower() == DEMO or self.model.startswith("local-dir:")

    def __str__(self) -> str:
        """Return the name for people."""
        return f"{self.model} ({self.pretrained})" if self.pretrained else self.model

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON types, those of a model that travels with them only where there are any."""
        return {name: value for name, value in asdict(self).items() if value or name != "settings"}

    def problems(self) -> Iterable[str]:
        """Check that a model is named."""
        yield "" if self.model else "the model has no name"


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
        words = (part.strip() for word in self.freeze for part in str(word).split(","))
        object.__setattr__(self, "freeze", tuple(word for word in words if word))
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
        yield _not_a_choice("head", self.head, Head)
        yield _not_a_choice("weights", self.weights, Weights)
        yield _not_a_choice("balance", self.balance, Balance)
        yield _not_a_choice("mixed-precision", self.mixed_precision, Precision)

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


def listed(given: Any) -> tuple[Any, ...]:
    """Return a list as a tuple, and one thing alone as a tuple of one; a text is one thing."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)


def _not_a_choice(name: str, value: str, choices: Any) -> str:
    known = get_args(choices)
    return "" if value in known else f"{name} is {', '.join(known[:-1])} or {known[-1]}, not {value!r}"
