"""Settings: frozen, validated, to and from JSON; those of a model and of a pass over images."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args

from wisepatch.errors import UsageError

DEMO = "demo"
SCHEMAS = ("hf-hub:", "local-dir:")
Precision = Literal["no", "bf16", "fp16"]
LIMIT_HELP = "At most so many images of each split: the same ones each time, stratified by class."
MODEL, SPEED = "Model", "Speed and precision"  # where --help shows a setting


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
        yield not_a_choice("mixed-precision", self.mixed_precision, Precision)


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


def listed(given: Any) -> tuple[Any, ...]:
    """Return a list as a tuple, and one thing alone as a tuple of one; a text is one thing."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)


def names_by_comma(words: str) -> list[str]:
    """Return the names in a list by comma. Raises :class:`UsageError` as :func:`check_named` does."""
    names = [name.strip() for name in words.split(",") if name.strip()]
    check_named(words, names)
    return names


def check_named(words: str, names: Collection[str]) -> None:
    """Raise :class:`UsageError` for a list of commas alone, of which no ``names`` are left."""
    if words.strip() and not names:
        raise UsageError(f"the list {words!r} names nothing", "put names between the commas, or leave the option out")


def not_a_choice(name: str, value: str, choices: Any) -> str:
    """Say that a value is none of the choices of a literal type; nothing where it is one."""
    known = get_args(choices)
    return "" if value in known else f"{name} is {', '.join(known[:-1])} or {known[-1]}, not {value!r}"
