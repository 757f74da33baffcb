"""``wisepatch datasets``: the tasks known by name, what is known of each, and whether their data is whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch.cli import options as o
from wisepatch.cli.output import Output, print_error
from wisepatch.counting import count
from wisepatch.errors import UsageError, WisepatchError
from wisepatch.files import expanded
from wisepatch.reports.numbers import percent

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Dataset
    from wisepatch.tasks import Task

NARROW = 120  # columns of a terminal below which the listing leaves some out
MOST_NAMES, MOST_TEMPLATES = 60, 8  # that `show` prints; --json has all
app = typer.Typer(
    help="List the tasks known by name; `show` tells of one, `check` looks at its data, `download` fetches it.\n\n"
    "typo:NAME and corrupt:NAME[:KIND[:SEVERITY]] are made of any of them.\n\n"
    "Example: `wisepatch datasets`, `wisepatch datasets check Digits`"
)

Tasks = Annotated[list[str], typer.Argument(metavar="TASK...", help="Known names, folders or CSVs.")]
DeepOption = Annotated[bool, typer.Option("--deep", help="Decode every image and name the broken ones.")]


@app.callback(invoke_without_command=True)
@o.with_settings
def callback(ctx: typer.Context, common: o.Common) -> None:
    """List the tasks known by name: classes, splits, prompts, metric, who provides them, and whether the data is there.

    Example: `wisepatch datasets`
    """
    if ctx.invoked_subcommand is None:
        show_all(common)


@app.command("list", hidden=True)
@o.with_settings
def listing(common: o.Common) -> None:
    """List the tasks, as `wisepatch datasets` does.

    Example: `wisepatch datasets list`
    """
    show_all(common)


def show_all(common: o.Common) -> None:
    """Print every task."""
    from wisepatch.plugins import registry

    output, folder, known = common.output, common.data_folder(), registry()
    tasks = sorted(known.datasets.values(), key=lambda d: (d.family.lower(), _numbers_by_size(d.name.lower())))
    records = [describe(dataset, known.owners[dataset.name], folder) for dataset in tasks]
    output.records(records, "dataset")
    columns = ("task", "family", "classes", "splits", "templates", "metric", "data", "from")
    rows = [
        (
            r["name"], r["family"], len(r["classes"]), " ".join(r["splits"]), len(r["templates"]), " ".join(r["metrics"]),
            r["data"], r["plugin"],
        )
        for r in records
    ]  # fmt: skip
    kept = (0, 2, 3, 6) if output.width and output.width < NARROW else range(len(columns))
    output.table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])
    output.result("A folder of images or a CSV is a task too: --task path/to/folder")
    output.result(
        "Made of any task: typo:NAME (a wrong word on it), corrupt:NAME[:KIND[:SEVERITY]] (noise, blur, weather, ...)"
    )


def _numbers_by_size(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ImageNet2 before ImageNet16."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def describe(dataset: Dataset, owner: str, folder: Path) -> dict[str, Any]:
    """Describe a task without opening it, as JSON types."""
    layout = dataset.find(folder)
    there = "built in" if dataset.gigabytes == 0 else "yes" if layout else dataset.lacking(folder)
    there = "yes" if dataset.family in ("folder", "attacked") else there
    return {
        "name": dataset.name, "family": dataset.family, "classes": list(dataset.classes), "splits": list(dataset.available_splits),
        "templates": list(dataset.templates), "metrics": [dataset.metric, *dataset.extra_metrics], "plugin": owner, "data": there,
        "found": layout, "layouts": list(dataset.layouts), "expected": {s: dataset.expected(s) for s in dataset.available_splits},
        "gigabytes": dataset.gigabytes,
        "licence": dataset.licence, "source": dataset.source, "downloads": dataset.downloads, "aliases": list(dataset.aliases),
        "zeroshot": dict(dataset.zeroshot), "head_classes": len(dataset.head_names),
    }  # fmt: skip


@app.command("show")
@o.with_settings
def show(
    common: o.Common,
    files: o.FileOptions,
    task: Tasks,
) -> None:
    """Tell what is known of a task: class names, prompts, layout on disk, size, licence, source, published accuracy.

    Example: `wisepatch datasets show GTSRB`
    """
    from wisepatch.plugins import registry

    output, folder = common.output, common.data_folder()
    tasks = [each.dataset for each in _named(files.task_words(task))]
    records = [describe(dataset, registry().owners.get(dataset.name, "your own"), folder) for dataset in tasks]
    output.records(records, "dataset")
    for dataset, record in zip(tasks, records, strict=True):
        output.table((dataset.name, ""), _facts(dataset, record, folder))


def _facts(dataset: Dataset, record: dict[str, Any], folder: Path) -> list[tuple[str, str | list[str]]]:
    """Return the rows of `show`; unknown facts have none."""
    counts = ", ".join(f"{dataset.expected(s) or '?'} {s}" for s in dataset.available_splits) if dataset.counts else ""
    size = f"{dataset.gigabytes:g} GB" if dataset.gigabytes else ""
    by_program = f"`wisepatch datasets download {dataset.name}`" if dataset.downloads else "by hand"
    whole = len(dataset.head_names)
    merged = f"of another task, {count(whole, 'class', 'classes')}; " + (
        "each class here takes the largest logit of those that it stands for"
        if any(len(merged) != 1 for merged in dataset.label_map)
        else f"its logits are restricted to the {len(dataset.classes)} here"
    )
    lines = [
        ("family", dataset.family),
        ("from", record["plugin"]),
        ("also called", ", ".join(dataset.aliases)),
        ("splits", ", ".join(dataset.available_splits)),
        ("images", counts),
        ("metrics", ", ".join(record["metrics"])),
        ("data", f"{folder / record['found']}" if record["found"] else record["data"]),
        ("layout", [f"{'or ' if number else ''}{each}" for number, each in enumerate(dataset.layouts)]),
        ("download", f"{size}, {by_program}" if size else ""),
        ("licence", dataset.licence),
        ("source", dataset.source),
        ("zero-shot", [f"{percent(value)} % {model}" for model, value in dataset.zeroshot.items()]),
        ("templates", _first(dataset.templates, MOST_TEMPLATES)),
        ("head", merged if dataset.label_map else ""),
        (count(len(dataset.classes), "class", "classes"), ", ".join(_first(dataset.classes, MOST_NAMES))),
    ]
    return [(name, text) for name, text in lines if text]


def _first(names: tuple[str, ...], most: int) -> list[str]:
    """Return the first names, and how many more there are."""
    return [*names[:most], *([f"... and {len(names) - most} more (--json has all)"] if len(names) > most else [])]


@app.command("check")
@o.with_settings
def check(
    common: o.Common,
    names: o.ClassOptions,
    task: Tasks,
    deep: DeepOption = False,
) -> None:
    """Open every split of a task: sizes against the publisher's, images per class, a decoded sample, and what is missing.

    Archives that lie in the data folder as they were published are unpacked; nothing is downloaded.

    Of your own folders and CSVs: which class name goes with which folder, what is left out and why, images that come twice (the
    same bytes; with --deep the same pixels), and how many are turned as their EXIF orientation says.

    Example: `wisepatch datasets check Digits path/to/folder --deep`
    """
    from wisepatch.cli.datasets_check import tell
    from wisepatch.datasets.inspection import inspect_all
    from wisepatch.tasks import check_names_of_one, distinct, find_task

    output, folder, words = common.output, common.data_folder(), _some(names.task_words(task))
    classnames, templates = names.names(), names.templates()
    check_names_of_one(words, classnames)
    found, problems = [], []
    for word in words:
        try:
            found.append(find_task(word, classnames, templates, names_left_out=True))
        except WisepatchError as error:
            problems.append(error)
    inspections = [
        inspect_all(
            each.dataset,
            [each.split] if each.split else each.dataset.available_splits,
            folder,
            deep=deep,
            progress=output.progress(),
        )
        for each in distinct(found)
    ]
    _raise([*tell(inspections, output), *problems], output)


def _some(words: list[str]) -> list[str]:
    """Return the words. Raises :class:`UsageError` where there is none."""
    if not words:
        raise UsageError("no task is named", "`wisepatch datasets` lists those known by name")
    return words


def _named(words: list[str]) -> list[Task]:
    """Look up the tasks that are named. Raises :class:`UsageError` for none."""
    from wisepatch.tasks import find_tasks

    return find_tasks(_some(words))


def _raise(problems: list[WisepatchError], output: Output) -> None:
    """Raise the last problem, after printing the others: one task's problem does not hide the reports of the rest."""
    for problem in problems[:-1]:
        print_error(problem, as_json=output.as_json)
    if problems:
        raise problems[-1]


@app.command("download")
@o.with_settings
def download(
    common: o.Common,
    task: Tasks,
) -> None:
    """Fetch the data of a task into the data folder, of whatever size; what is there is not fetched again.

    Example: `wisepatch datasets download STL10`
    """
    from wisepatch.datasets.inspection import download as fetch

    output, folder = common.output, expanded(common.data or o.DEFAULT_DATA)
    problems = []
    for each in _named(o.split_list(task)):
        dataset = each.dataset
        if dataset.downloads:
            size = f" ({dataset.gigabytes:g} GB)" if dataset.gigabytes else ""
            output.say(f"fetching {dataset.name}{size} into {folder}, or finding it there")
        try:
            fetch(dataset, folder)
        except WisepatchError as error:
            problems.append(error)
            continue
        output.records([{"task": dataset.name, "folder": str(folder)}], "download")
        place = (dataset.find(folder) or "").partition("/{")[
            0
        ]  # a path of the system where a package of it brings the data
        elsewhere = f"is in {place}" if place.startswith("/") else f"is below {folder}"
        here = elsewhere if dataset.downloads else "is there without a download"
        output.result(f"{dataset.name} {here}")
    _raise(problems, output)
