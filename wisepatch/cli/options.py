"""Options of commands, each declared once; with the option groups, settings and words that commands take from here as ``o``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from wisepatch.cli import completion
from wisepatch.cli.option_groups import (
    DEFAULT_DATA,
    ClassOptions,
    Common,
    FileOptions,
    Machine,
    ModelOptions,
    NameOptions,
    SeveralOptions,
    TrainOptions,
)
from wisepatch.cli.settings import with_settings
from wisepatch.cli.tables import Form
from wisepatch.cli.words import alphas, find_checkpoints, metric_names, run_names, split_list
from wisepatch.config import LIMIT_HELP
from wisepatch.files import in_utf8

__all__ = [  # from the files beside this one
    "DEFAULT_DATA", "ClassOptions", "Common", "FileOptions", "Machine", "ModelOptions", "NameOptions", "SeveralOptions",
    "TrainOptions", "alphas", "find_checkpoints", "metric_names", "run_names", "split_list", "with_settings",
]  # fmt: skip

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
