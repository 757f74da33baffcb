"""Options: a command that takes a settings class gets an option for each field that the class declares as one."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin, get_type_hints

import typer

from wisepatch.alphas import AUTO, parse_alphas
from wisepatch.cli import completion
from wisepatch.cli.output import Output
from wisepatch.cli.tables import Form
from wisepatch.config import LIMIT_HELP, MODEL, SPEED, Balance, ModelConfig, TrainConfig, setting
from wisepatch.devices import computing_on
from wisepatch.errors import DataError, UnknownNameError, UsageError
from wisepatch.files import expanded, in_utf8
from wisepatch.launcher import is_main, size
from wisepatch.process_group import join, leave, meet

if TYPE_CHECKING:
    from wisepatch.store.checkpoints import Checkpoint, Store

DEFAULT_DATA, DEFAULT_STORE = Path("~/data"), "wisepatch-store"
WHERE = "Where things are"
YOUR_OWN = "Your own folders and CSVs"
SEVERAL = "Several tasks"
Strategy = Literal["joint", "sequential", "parallel"]
Found = Literal["equal", "grid", "search"]
COMPLETED = {"objective": completion.objectives}  # of settings that are declared where nothing is completed
SHARED = ("workers", "mixed_precision")  # of training and evaluation: one option for both


class TrainOptions(dict[str, Any]):
    """The training settings that were given, for :meth:`~wisepatch.config.TrainConfig.with_defaults`."""


@dataclass(frozen=True)
class Common:
    """Options of every command, also where one of them has no use: scripts can always pass them."""

    store: Path = setting(Path(DEFAULT_STORE), "Folder of checkpoints and results.", WHERE, envvar="WISEPATCH_STORE")
    data: Path | None = setting(None, "Folder of datasets. (default: ~/data)", WHERE, envvar="WISEPATCH_DATA")
    as_json: bool = setting(
        default=False, help="Print one JSON object a line and nothing else.", panel=None, flags=("--json",)
    )
    quiet: bool = setting(default=False, help="No progress and no messages.", panel=None, flags=("--quiet", "-q"))
    form: Form = "table"  # of tables

    @cached_property
    def output(self) -> Output:
        """Return where the command prints."""
        return Output(as_json=self.as_json, quiet=self.quiet, form=self.form)

    def printing(self, form: Form) -> Common:
        """Return these options with another form of tables. Raises :class:`UsageError` for one beside ``--json``."""
        if form != "table" and self.as_json:
            raise UsageError(f"--json and --format {form} are two forms of the same results", "give one of them")
        return replace(self, form=form)

    def open_store(self) -> Store:
        """Return the store; nothing is read yet."""
        from wisepatch.store.checkpoints import Store

        return Store(self.store)

    def again(self, *words: str) -> str:
        """Return a command that works when it is pasted: with the store and the data folder of this one."""
        where = [] if self.store == Path(DEFAULT_STORE) else ["--store", str(self.store)]
        where += [] if self.data is None else ["--data", str(self.data)]
        return shlex.join(["wisepatch", *words, *where])

    def data_folder(self) -> Path:
        """Return the data folder; one that was named must exist. Raises :class:`DataError` otherwise."""
        if self.data is None:
            return expanded(DEFAULT_DATA)
        folder = expanded(self.data)
        if not folder.is_dir():
            reason = "is no folder" if folder.exists() else "does not exist"
            raise DataError(
                f"the data folder {self.data} {reason}", "make it, or name another with --data or WISEPATCH_DATA"
            )
        return folder


@dataclass(frozen=True)
class ModelOptions:
    """The published model that is asked for."""

    model: str | None = setting(
        None,
        "An open_clip name, hf-hub:, local-dir:, or demo (embedded). (default: ViT-B-32)",
        MODEL,
        complete=completion.models,
    )
    pretrained: str | None = setting(None, "A tag of open_clip, or a file of weights. (default: openai)", MODEL)

    def words(self) -> list[str]:
        """Return the options as they were given."""
        given = (("--model", self.model), ("--pretrained", self.pretrained))
        return [word for name, value in given if value for word in (name, value)]

    def config(self, start: str | None = None) -> ModelConfig:
        """Return the model. Raises :class:`UsageError` where two options contradict each other."""
        if start and (self.model or self.pretrained):
            raise UsageError(f"--from {start} already says which model", "leave --model and --pretrained out")
        if self.pretrained and not self.model and expanded(self.pretrained).is_file():
            raise UsageError(
                f"{self.pretrained} is a file, which does not say of which model",
                "add --model ViT-B-32, or --model ViT-B-32-quickgelu for OpenAI's and what was fine-tuned from them",
            )
        config = ModelConfig(self.model or "ViT-B-32", self.pretrained or "openai")
        if self.pretrained and config.brings_weights:
            raise UsageError(f"the model {config.model} brings its own weights", "leave --pretrained out")
        return config


@dataclass(frozen=True)
class Machine:
    """Name what a command computes on; one that takes these options is shared by the processes that are started for it."""

    device: str | None = setting(None, "cpu, cuda, cuda:1 or mps. (default: a GPU where there is one)", SPEED)
    processes: int = setting(1, "Processes of this machine that share the work, a GPU each.", SPEED, min=1)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Within this every process does its share. Raises :class:`UsageError` for what cannot be shared, before any work."""
        if self.processes > 1 and size() == 1:
            from wisepatch.cli.processes import start_processes

            command = [sys.executable, "-m", "wisepatch", *sys.argv[1:]]
            raise typer.Exit(start_processes(self.processes, command))
        if self.processes not in (1, size()):
            raise UsageError(f"--processes {self.processes}, and a launcher has started {size()}", "leave it out")
        meet()
        with computing_on(self.device):
            join()
            yield
            leave()


@dataclass(frozen=True)
class SeveralOptions:
    """Hold the options that say how several tasks are patched."""

    strategy: Strategy | None = setting(
        None,
        "joint: one training on all tasks; sequential: one after the other; parallel: an end each. (joint)",
        SEVERAL,
    )
    balance: Balance = setting("examples", "joint: an epoch is every image, or as many images of each task.", SEVERAL)
    coefficients: Found | None = setting(
        None, "parallel: one for all ends, every combination of --alpha, or a search by CMA-ES. (equal)", SEVERAL
    )
    evaluations: int | None = setting(None, "search: candidates to measure on validation data. (100)", SEVERAL, min=1)

    def asked(self) -> dict[str, Any]:
        """Return the settings that :func:`wisepatch.patch` takes."""
        return {"strategy": self.strategy, "coefficients": self.coefficients, "evaluations": self.evaluations}


@dataclass(frozen=True)
class NameOptions:
    """Class names and prompts."""

    classnames: Path | None = setting(
        None, "File with one class name a line, in the order of the task's classes; or names by comma.", None
    )
    template: list[str] | None = setting(
        None, "Prompt with {} for the class name, or the name of a set. Repeatable.", None
    )

    def words(self) -> list[str]:
        """Return the options as they were given."""
        named = ["--classnames", str(self.classnames)] if self.classnames else []
        return named + [f"--template={template}" for template in self.template or ()]

    def names(self) -> tuple[str, ...] | None:
        """Return the lines of the file of class names, or the names. Raises :class:`UsageError` if there are none."""
        path = self.classnames
        if path is None:
            return None
        if "," in str(path) and not expanded(path).exists():
            return tuple(name.strip() for name in str(path).split(",") if name.strip())
        try:
            names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"the class names {path} cannot be read: {error}", "give a text file with one name a line"
            ) from error
        if not names:
            raise UsageError(f"the class names {path} are empty", "write one name a line")
        return names

    def templates(self) -> tuple[str, ...] | None:
        """Return the prompts. Raises :class:`UnknownNameError` for a set that is not known."""
        from wisepatch.datasets.prompts import templates

        return templates([in_utf8(each) for each in self.template or ()]) or None


@dataclass(frozen=True)
class ClassOptions(NameOptions):
    """Class names and prompts that replace those of the task, and how a user's own folder or CSV is read."""

    group: str = setting(
        "", "Regular expression: images in whose path it finds the same text stay in one split.", YOUR_OWN
    )
    path_column: str = setting("", "Column of a CSV that names the images.", YOUR_OWN)
    label_column: str = setting("", "Column of a CSV that holds the labels.", YOUR_OWN)
    split_column: str = setting("", "Column of a CSV that holds the splits.", YOUR_OWN)
    colour_managed: bool = setting(
        default=False, help="Convert colours to sRGB from the profiles in the files.", panel=YOUR_OWN
    )
    on_bad_image: Literal["error", "skip"] = setting(
        "error", "What to do with an image that cannot be read: error, or skip (counted and named).", YOUR_OWN
    )

    def task_words(self, tasks: Sequence[str]) -> list[str]:
        """Return the words for tasks, taken apart, with these options after each folder or CSV. Raises :class:`UsageError`."""
        return [self.task_word(task) for task in split_list(tasks)]

    def task_word(self, task: str) -> str:
        """Return the word for one task, with these options where it is a folder or CSV. Raises :class:`UsageError`."""
        from wisepatch.datasets.reading import Reading
        from wisepatch.task_specs import with_reading

        reading = Reading(
            self.group, self.path_column, self.label_column, self.split_column, "managed" if self.colour_managed else "",
            "skip" if self.on_bad_image == "skip" else "",
        )  # fmt: skip
        return with_reading(task, reading)


TaskOption = Annotated[
    list[str],
    typer.Option(
        "--task",
        "-t",
        help="A known name, NAME@val, a folder, a CSV, typo:NAME, corrupt:NAME[:KIND[:SEVERITY]]; by comma or repeated.",
        autocompletion=completion.tasks,
    ),
]
OneTaskOption = Annotated[
    str,
    typer.Option(
        "--task", "-t", help="The task to learn: a known name, a folder, or a CSV.", autocompletion=completion.tasks
    ),
]
PatchTaskOption = Annotated[
    list[str],
    typer.Option(
        "--task",
        "-t",
        help="What to learn: a known name, a folder, or a CSV; several tasks by comma or repeated.",
        autocompletion=completion.tasks,
    ),
]
AlsoOption = Annotated[
    list[str],
    typer.Option(
        "--also",
        help="Tasks to measure at the end, with no part in training or choice; by comma or repeated.",
        autocompletion=completion.tasks,
    ),
]
SupportedOption = Annotated[
    list[str],
    typer.Option(
        "--supported",
        help="Tasks that must not get worse, also corrupt:NAME; by comma or repeated.",
        autocompletion=completion.tasks,
    ),
]
MetricOption = Annotated[
    list[str],
    typer.Option(
        "--metric",
        help="top1, top5, balanced_accuracy, macro_f1, ece, brier, ..., for each task's own.",
        autocompletion=completion.metrics,
    ),
]
CHECKPOINT_HELP = "zeroshot, finetuned, patched, latest, a name, an id, or a folder."
CheckpointsArgument = Annotated[
    list[str],
    typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP, autocompletion=completion.checkpoints),
]
SplitOption = Annotated[
    str, typer.Option("--split", help="test, val, train, all, or one of the tasks' own, for tasks that name none.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help=LIMIT_HELP)]
FormatOption = Annotated[
    Form, typer.Option("--format", help="How tables are printed: table, markdown, latex (booktabs) or csv.")
]
PerClassOption = Annotated[bool, typer.Option("--per-class", help="Show each class by itself.")]
ConfusionOption = Annotated[bool, typer.Option("--confusion", help="Show which classes are taken for which.")]
WideOption = Annotated[bool, typer.Option("--wide", help="Print the papers' wide records, a JSON object a checkpoint.")]
AlphaOption = Annotated[
    list[str],
    typer.Option(
        "--alpha",
        help="START:STOP:STEP, or values by comma; mixed too. auto: the best of 0:1:0.01 for about a tenth of the work.",
    ),
]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        help="How to merge: linear, or fisher (each weight by its Fisher information).",
        autocompletion=completion.methods,
    ),
]
FisherExamplesOption = Annotated[
    int, typer.Option("--fisher-examples", min=1, help="Training images that the Fisher information is measured on.")
]
RULE_HELP = (
    "How to choose alpha: best-mean, max-drop=0.01 (as measured), max-drop=0.01@95 (certified at 95 %), max-drop=...,each "
    "(every supported task), knee, alpha=0.5, weights=TASK:2,..."
)
SelectOption = Annotated[str | None, typer.Option("--select", help=RULE_HELP, autocompletion=completion.rules)]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Train anew, also where this very training stopped or is finished already.")
]
SeedsOption = Annotated[
    str | None,
    typer.Option(
        "--seeds", metavar="0,1,2", help="Train once a seed; show mean and spread. Takes the place of --seed."
    ),
]
NameOption = Annotated[
    str, typer.Option("--name", help="A name for this run, in results and pictures.", callback=in_utf8)
]
SelectOnOption = Annotated[
    Literal["val", "test"],
    typer.Option("--select-on", help="The data that the choice sees; test is labelled everywhere."),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a settings class by the options of its fields; the command gets the class filled in.

    Where training and evaluation have a field of one name, the evaluation's is called ``--eval-NAME``, but for those that one
    option sets for both.
    """
    hints = get_type_hints(command, include_extras=True)
    options: dict[str, inspect.Parameter] = {}
    groups: dict[str, tuple[type, dict[str, str]]] = {}  # parameter: its class, and field: option
    for parameter in sorted(
        inspect.signature(command).parameters.values(), key=lambda each: hints[each.name] is Common
    ):
        kind = hints[parameter.name]
        declared = TrainConfig if kind is TrainOptions else kind
        if not (isinstance(declared, type) and is_dataclass(declared)):
            options[parameter.name] = parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        names, kinds = {}, get_type_hints(declared)
        for field in (each for each in fields(declared) if "help" in each.metadata):
            name = f"eval_{field.name}" if field.name in options and field.name not in SHARED else field.name
            names[field.name] = name
            options.setdefault(name, _option(name, field, kinds[field.name]))
        groups[parameter.name] = (kind, names)

    @wraps(command)
    def run(**given: Any) -> None:
        filled = {
            name: kind(**{field: given[option] for field, option in names.items()})
            for name, (kind, names) in groups.items()
        }
        grouped = {option for _, names in groups.values() for option in names.values()}
        machine = next((each for each in filled.values() if isinstance(each, Machine)), None)
        if machine is None and not is_main():
            return  # the main process does alone what is not shared
        with machine.shared() if machine else nullcontext():
            command(**{name: value for name, value in given.items() if name not in grouped}, **filled)

    run.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: option.annotation for name, option in options.items()}
    return run


def _option(name: str, field: Field[Any], kind: Any) -> inspect.Parameter:
    facts = field.metadata
    several = get_origin(kind) is tuple
    if several:  # not given is None, and given ones are as many as there are
        kind = list[str] | None
    flags = facts.get("flags", (f"--{name.replace('_', '-')}",))
    if kind is not bool and facts.get("paper"):
        kind = kind | None
    option = typer.Option(
        *flags,
        help=facts["help"],
        rich_help_panel=facts["panel"],
        min=facts.get("min"),
        envvar=facts.get("envvar"),
        autocompletion=facts.get("complete", COMPLETED.get(name)),
    )
    default = None if several or facts.get("paper") or field.default is MISSING else field.default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def alphas(words: Sequence[str]) -> tuple[float, ...] | str:
    """Return the alphas that were asked for, or ``auto``. Raises :class:`UsageError`."""
    return AUTO if list(words) == [AUTO] else parse_alphas(words)


def split_list(words: Sequence[str] | None) -> list[str]:
    """Take apart what was given by comma; an existing path with a comma in it stays whole."""
    from wisepatch.task_specs import listed_by_comma

    return [part for word in words or () for part in listed_by_comma(word)]


def metric_names(words: Sequence[str]) -> list[str]:
    """Return the metrics that were named. Raises :class:`UnknownNameError`."""
    from wisepatch.plugins import find_metric

    return [find_metric(name).name for name in split_list(words)]


def find_checkpoints(
    store: Store, words: list[str], find: Callable[[str], Checkpoint] | None = None
) -> list[Checkpoint]:
    """Look checkpoints up, with ``store.find`` or ``find``, each once; a name with a comma in it is tried whole first."""
    find = find or store.find
    checkpoints: dict[str, Checkpoint] = {}
    for word in words:
        try:
            named = [find(word)]
        except UnknownNameError:
            if "," not in word:
                raise
            named = [find(part) for part in split_list([word])]
        checkpoints |= {checkpoint.id: checkpoint for checkpoint in named}
    return list(checkpoints.values())
