"""Groups of options that several commands take: where things are, the model, the machine, names, a user's own data."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from wisepatch.cli import completion
from wisepatch.cli.output import Output
from wisepatch.cli.tables import Form
from wisepatch.cli.words import split_list
from wisepatch.config import MODEL, SPEED, ModelConfig, setting
from wisepatch.devices import computing_on
from wisepatch.errors import DataError, UsageError
from wisepatch.files import expanded, in_utf8
from wisepatch.process_group import join, leave, meet
from wisepatch.ranks import size
from wisepatch.terminal import pasted
from wisepatch.train_config import Balance

if TYPE_CHECKING:
    from wisepatch.datasets.reading import Reading
    from wisepatch.store.checkpoints import Store

DEFAULT_DATA, DEFAULT_STORE = Path("~/data"), "wisepatch-store"
WHERE = "Where things are"
YOUR_OWN = "Your own folders and CSVs"
SEVERAL = "Several tasks"
Strategy = Literal["joint", "sequential", "parallel"]
Found = Literal["equal", "grid", "search"]


class TrainOptions(dict[str, Any]):
    """The training settings that were given, for :meth:`~wisepatch.train_config.TrainConfig.with_defaults`."""


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
        return pasted(["wisepatch", *words, *where])

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
class FileOptions:
    """Say how a user's own folder or CSV is read."""

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

    def unused(self, tasks: Sequence[str]) -> str:
        """Say which of the options for folders and CSVs change nothing, whatever the tasks that are named; empty where all do."""
        from wisepatch.task_specs import own_path

        given = [f for f in fields(self) if f.metadata["panel"] == YOUR_OWN and getattr(self, f.name) != f.default]
        paths = [path for task in (split_list(tasks) if given else ()) if (path := own_path(task))]
        no_csv = all(path.is_dir() for path in paths)
        idle = [f for f in given if no_csv and (not paths or f.name.endswith("_column"))]
        options = ", ".join(f"--{f.name.replace('_', '-')}" for f in idle)
        change, missing = "changes" if len(idle) == 1 else "change", "CSV" if paths else "folder or CSV"
        return f"{options} {change} nothing: no task is a {missing} of yours" if idle else ""

    def task_words(self, tasks: Sequence[str]) -> list[str]:
        """Return the words for tasks, taken apart, with these options after each folder or CSV. Raises :class:`UsageError`."""
        return [self.task_word(task) for task in split_list(tasks)]

    def task_word(self, task: str) -> str:
        """Return the word for one task, with these options where it is a folder or CSV. Raises :class:`UsageError`."""
        from wisepatch.task_specs import with_reading

        return with_reading(task, self.reading())

    def reading(self) -> Reading:
        """Return these options for the files themselves. Raises :class:`UsageError`."""
        from wisepatch.datasets.reading import Reading

        return Reading(
            self.group, self.path_column, self.label_column, self.split_column, "managed" if self.colour_managed else "",
            "skip" if self.on_bad_image == "skip" else "",
        )  # fmt: skip


@dataclass(frozen=True)
class ClassOptions(FileOptions, NameOptions):
    """Class names and prompts that replace those of the task, and how a user's own folder or CSV is read."""
