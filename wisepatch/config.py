"""Settings of a run: frozen, validated, to and from JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Self, TypedDict

from wisepatch.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_ALPHAS = 10_001
DEFAULT_ALPHAS = "0:1:0.1"
DEMO = "demo"
SCHEMAS = ("hf-hub:", "local-dir:")
PRECISIONS = ("no", "bf16", "fp16")
LINEAR, FISHER = MIXES = ("linear", "fisher")


@dataclass(frozen=True)
class Config:
    """What all settings share: JSON, and one error that lists every field that is off."""

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
        known = {field.name for field in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known})


class Speed(TypedDict, total=False):
    """How fast an evaluation is, and at what price; all may be left out.

    ``batch_size`` images are computed at once: by default as many as the GPU has room for, 64 on a CPU. ``workers`` processes read
    images: by default as the machine and the number of images suggest. ``mixed_precision`` ``bf16`` computes the image tower in
    bf16 (mixes and heads stay in fp32), ``fp16`` by autocast on a GPU. ``cache_images`` keeps decoded pixels in the store.
    ``fast_decode`` decodes large JPEG files of folders small and resizes tensors: other pixels, nearly the same pictures.
    ``compiled`` compiles the image tower.
    """

    batch_size: int | None
    workers: int | None
    mixed_precision: str
    cache_images: bool
    fast_decode: bool
    compiled: bool


def check_speed(speed: Mapping[str, object]) -> None:
    """Raise :class:`TypeError` for a setting that :class:`Speed` does not have."""
    unknown = sorted(set(speed) - set(Speed.__annotations__))
    if unknown:
        raise TypeError(f"no setting {', '.join(unknown)}; there are {', '.join(Speed.__annotations__)}")


@dataclass(frozen=True)
class ModelConfig(Config):
    """Which CLIP: every name, schema or file that open_clip takes, or ``demo`` for the embedded model."""

    model: str = "ViT-B-32"
    pretrained: str = "openai"

    def __post_init__(self) -> None:
        """Drop the tag of a model that brings its own weights."""
        super().__post_init__()
        if self.brings_weights:
            object.__setattr__(self, "pretrained", "")

    @property
    def brings_weights(self) -> bool:
        """Whether the name says where the weights are: ``demo``, ``hf-hub:``, ``local-dir:``."""
        return self.model.lower() == DEMO or self.model.startswith(SCHEMAS)

    def __str__(self) -> str:
        """Return the name for people."""
        return f"{self.model} ({self.pretrained})" if self.pretrained else self.model

    def problems(self) -> Iterable[str]:
        """Check that a model is named."""
        yield "" if self.model else "the model has no name"


@dataclass(frozen=True)
class TrainConfig(Config):
    """One fine-tuning run; exactly one of ``steps`` and ``epochs`` is set.

    A step sees ``batch_size`` images times ``grad_accumulation`` times the number of processes.

    ``head`` is ``frozen`` (PAINT section 3: the image encoder is trained against the text-derived head) or ``trained``
    (WiSE-FT section 3: encoder and head); ``freeze_encoder`` trains the head alone (a linear classifier). ``warmup`` of
    ``None`` is the paper's, at most a tenth of the run. ``eval_every`` counts epochs. ``workers`` processes read images, by default
    as the machine suggests (none where training is on a CPU); the weights do not depend on their number.
    """

    task: str
    supported: tuple[str, ...] = ()
    classnames: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    head: str = "frozen"
    freeze_encoder: bool = False
    steps: int | None = 2000
    epochs: float | None = None
    lr: float = 1e-5
    batch_size: int = 128
    warmup: int | None = None
    wd: float = 0.1
    label_smoothing: float = 0.0
    clip: float = 1.0
    grad_accumulation: int = 1
    seed: int = 0
    mixed_precision: str = "no"
    workers: int | None = None
    start: str | None = None
    eval_every: float | None = None

    def problems(self) -> Iterable[str]:
        """Check every field."""
        if (self.steps is None) == (self.epochs is None):
            yield "give either steps or epochs"
        for name in ("steps", "epochs", "lr", "batch_size", "clip", "grad_accumulation", "eval_every"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                yield f"{name.replace('_', '-')} must be above 0, not {value}"
        for name in ("warmup", "wd", "workers"):
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                yield f"{name} must not be negative"
        if not 0 <= self.seed < 2**32:
            yield f"seed must lie in [0, 2**32), not {self.seed}"
        if not 0 <= self.label_smoothing < 1:
            yield f"label-smoothing must lie in [0, 1), not {self.label_smoothing}"
        if self.head not in ("frozen", "trained"):
            yield f"head is 'frozen' or 'trained', not {self.head!r}"
        if self.mixed_precision not in PRECISIONS:
            yield f"mixed-precision is 'no', 'bf16' or 'fp16', not {self.mixed_precision!r}"

    @property
    def paper_warmup(self) -> int:
        """The warm-up of the paper whose procedure this is, in steps."""
        return 200 if self.method == "paint" else 500

    @property
    def method(self) -> str:
        """``paint``, ``wise-ft`` or ``linear-probe``: which of the papers' procedures this is."""
        if self.freeze_encoder:
            return "linear-probe"
        return "paint" if self.head == "frozen" else "wise-ft"

    @classmethod
    def with_defaults(cls, task: str, *, head: str = "frozen", freeze_encoder: bool = False, **given: Any) -> Self:
        """Fill what is not given (``None``) with the defaults of the paper whose procedure is asked for.

        PAINT (section 3): 2,000 steps of 128 images, lr 1e-5, warm-up 200. WiSE-FT (its experimental details): 10 epochs of
        512 images, lr 3e-5, warm-up 500. The linear classifier of WiSE-FT takes lr 1e-3.
        """
        papers: dict[str, Any] = {"steps": 2000, "lr": 1e-5, "batch_size": 128}
        if head == "trained" or freeze_encoder:
            papers = {"epochs": 10.0, "steps": None, "lr": 3e-5, "batch_size": 512}
        if freeze_encoder:
            papers["lr"] = 1e-3
            head = "trained"
        chosen = {name: value for name, value in given.items() if value is not None}
        if "epochs" in chosen and "steps" not in chosen:
            papers["steps"] = None
        if "steps" in chosen and "epochs" not in chosen:
            papers.pop("epochs", None)
        return cls(task=task, head=head, freeze_encoder=freeze_encoder, **{**papers, **chosen})


def check_precision(name: str) -> str:
    """Return a precision that can be asked for. Raises :class:`UsageError` for any other."""
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}", f"--mixed-precision takes {', '.join(PRECISIONS)}")
    return name


def check_mix(name: str) -> str:
    """Return a way of mixing weights: ``linear`` or ``fisher``. Raises :class:`UnknownNameError` for any other."""
    if name not in MIXES:
        raise UnknownNameError("way of mixing", name, MIXES)
    return name


def parse_alphas(text: str | Iterable[str]) -> tuple[float, ...]:
    """Read mixing coefficients: ``0:1:0.1`` (both ends), ``0,0.25,0.5``, ``0.5``, or a mixture; sorted, each once.

    Decimals are exact: ``0:1:0.1`` holds 0.3, never 0.30000000000000004. Raises :class:`UsageError` for anything else,
    and for alphas outside [0, 1].
    """
    words = [text] if isinstance(text, str) else list(text)
    found: set[Decimal] = set()
    for word in (part.strip() for joined in words for part in joined.split(",")):
        bounds = [_decimal(piece, word) for piece in word.split(":")]
        if len(bounds) == 1:
            found.add(bounds[0])
        elif len(bounds) == 3:
            start, stop, step = bounds
            if step <= 0 or stop < start:
                raise UsageError(
                    f"alphas {word!r} lead nowhere", "write START:STOP:STEP with START <= STOP and STEP > 0"
                )
            if stop - start >= step * MAX_ALPHAS:
                raise UsageError(
                    f"alphas {word!r} are more than {MAX_ALPHAS} values", f"at most {MAX_ALPHAS}; take a larger step"
                )
            count = int((stop - start) / step) + 1
            found.update(start + i * step for i in range(count))
            found.add(stop)
        else:
            raise UsageError(f"alphas {word!r} are not understood", "write 0:1:0.1, 0,0.25,0.5 or 0.5")
    outside = [value for value in found if not 0 <= value <= 1]
    if outside:
        raise UsageError(f"alpha {min(outside)} lies outside [0, 1]", "alpha 0 is zero-shot, 1 is fine-tuned")
    return tuple(sorted({float(value) for value in found}))


def _decimal(piece: str, word: str) -> Decimal:
    try:
        value = Decimal(piece.strip())
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise UsageError(
            f"alphas {word!r} are not understood: {piece!r} is no number", "write 0:1:0.1, 0,0.25,0.5 or 0.5"
        )
    return value
