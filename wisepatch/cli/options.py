"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wisepatch.errors import DataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from wisepatch.config import ModelConfig
    from wisepatch.store.checkpoints import Checkpoint, Store

DEFAULT_STORE = Path("wisepatch-store")
DEFAULT_DATA = Path("~/data")
WHERE, MODEL, SPEED = "Where things are", "Model", "Speed and precision"

# Every command takes --store, --data, --json and --quiet, also where one of them has no use: scripts can always pass them.
StoreOption = Annotated[
    Path,
    typer.Option("--store", envvar="WISEPATCH_STORE", help="Folder of checkpoints and results.", rich_help_panel=WHERE),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", envvar="WISEPATCH_DATA", help="Folder of datasets.  [default: ~/data]", rich_help_panel=WHERE
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no messages.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="An open_clip name, hf-hub:, local-dir:, or demo (embedded).  [default: ViT-B-32]",
        rich_help_panel=MODEL,
    ),
]
PretrainedOption = Annotated[
    str | None,
    typer.Option(
        "--pretrained", help="A tag of open_clip, or a file of weights.  [default: openai]", rich_help_panel=MODEL
    ),
]
TaskOption = Annotated[
    list[str],
    typer.Option("--task", "-t", help="A known name, NAME@val, a folder, or a CSV; several by comma or repeated."),
]
SupportedOption = Annotated[
    list[str], typer.Option("--supported", help="Tasks that must not get worse; by comma or repeated.")
]
ClassnamesOption = Annotated[
    Path | None,
    typer.Option("--classnames", help="File with one class name a line, in the order of the task's classes."),
]
TemplateOption = Annotated[
    list[str], typer.Option("--template", help="Prompt with {} for the class name, or the name of a set. Repeatable.")
]
MetricOption = Annotated[
    list[str], typer.Option("--metric", help="top1, mean_per_class or macro_f1, for each task's own.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that load images.  [default: as the machine suggests]",
        rich_help_panel=SPEED,
    ),
]
EvalBatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, help="Images at once.  [default: what the GPU has room for, up to 64 on a CPU]",
        rich_help_panel=SPEED,
    ),
]  # fmt: skip
CacheOption = Annotated[
    bool,
    typer.Option("--cache-images", help="Keep decoded pixels in the store, for later runs.", rich_help_panel=SPEED),
]
FastDecodeOption = Annotated[
    bool,
    typer.Option(
        "--fast-decode",
        help="Decode large JPEG files small, resize tensors: not the same pixels, nearly.",
        rich_help_panel=SPEED,
    ),
]
CompileOption = Annotated[
    bool,
    typer.Option("--compile", help="Compile the image tower, which pays for long work.", rich_help_panel=SPEED),
]
PrecisionOption = Annotated[str, typer.Option("--mixed-precision", help="no, bf16 or fp16.", rich_help_panel=SPEED)]
AlphaOption = Annotated[list[str], typer.Option("--alpha", help="START:STOP:STEP, or values by comma; mixed too.")]
MethodOption = Annotated[
    str, typer.Option("--method", help="How to mix: linear, or fisher (each weight by its Fisher information).")
]
FisherExamplesOption = Annotated[
    int, typer.Option("--fisher-examples", min=1, help="Training images that the Fisher information is measured on.")
]
SelectOption = Annotated[str | None, typer.Option("--select", help="Choose alpha: best-mean, or max-drop=0.01.")]
SelectOnOption = Annotated[
    str, typer.Option("--select-on", help="val, or test: which data the choice sees. test is labelled everywhere.")
]


def split_list(words: list[str]) -> list[str]:
    """Take apart what was given by comma; an existing path with a comma in it stays whole."""
    found = []
    for word in words:
        found += [word] if _is_path(word) else [part.strip() for part in word.split(",") if part.strip()]
    return found


def model_config(model: str | None, pretrained: str | None, start: str | None = None) -> ModelConfig:
    """The model that is asked for. Raises :class:`UsageError` where two options contradict each other."""
    from wisepatch.config import ModelConfig

    if start and (model or pretrained):
        raise UsageError(f"--from {start} already says which model", "leave --model and --pretrained out")
    config = ModelConfig(model or "ViT-B-32", pretrained or "openai")
    if pretrained and config.brings_weights:
        raise UsageError(f"the model {config.model} brings its own weights", "leave --pretrained out")
    return config


def find_checkpoints(store: Store, words: list[str]) -> list[Checkpoint]:
    """Look checkpoints up, each once; a name with a comma in it is tried whole first."""
    found: dict[str, Checkpoint] = {}
    for word in words:
        try:
            names = [store.find(word)]
        except UnknownNameError:
            if "," not in word:
                raise
            names = [store.find(part) for part in split_list([word])]
        found |= {checkpoint.id: checkpoint for checkpoint in names}
    return list(found.values())


def data_folder(data: Path | None) -> Path:
    """The data folder; one that was named must exist. Raises :class:`DataError` otherwise."""
    if data is None:
        return DEFAULT_DATA.expanduser()
    if not data.expanduser().is_dir():
        reason = "is no folder" if data.expanduser().exists() else "does not exist"
        raise DataError(f"the data folder {data} {reason}", "make it, or name another with --data or WISEPATCH_DATA")
    return data.expanduser()


def read_classnames(path: Path | None) -> tuple[str, ...] | None:
    """The lines of a file of class names. Raises :class:`UsageError` if it cannot be read or is empty."""
    if path is None:
        return None
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the class names {path} cannot be read: {error}", "give a text file with one name a line"
        ) from error
    if not names:
        raise UsageError(f"the class names {path} are empty", "write one name a line")
    return names


def _is_path(word: str) -> bool:
    try:
        return bool(word) and Path(word).exists()
    except OSError:  # longer than a file name can be
        return False
