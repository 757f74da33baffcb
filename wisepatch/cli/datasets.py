"""``wisepatch datasets``: the tasks known by name, what is known of each, and whether their data is whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch.cli import options as o
from wisepatch.cli.output import Output, percent, print_error
from wisepatch.errors import DataError, EmptySplitError, UsageError, WisepatchError
from wisepatch.files import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wisepatch.datasets.base import Dataset
    from wisepatch.datasets.duplicates import Place
    from wisepatch.tasks import Task

SHOWN = 5  # classes that a note names
NARROW = 120  # columns of a terminal below which the listing leaves some out
MOST_NAMES, MOST_TEMPLATES = 60, 8  # that `show` prints; --json has all
app = typer.Typer(
    help="List the tasks known by name; `show` tells of one, `check` looks at its data, `download` fetches it.\n\n"
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


def _numbers_by_size(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ImageNet2 before ImageNet16."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def describe(dataset: Dataset, owner: str, folder: Path) -> dict[str, Any]:
    """Describe a task without opening it, as JSON types."""
    layout = dataset.find(folder)
    there = "built in" if dataset.gigabytes == 0 else "yes" if layout else "no" if dataset.layouts else "?"
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
    task: Tasks,
) -> None:
    """Tell what is known of a task: class names, prompts, layout on disk, size, licence, source, published accuracy.

    Example: `wisepatch datasets show GTSRB`
    """
    from wisepatch.plugins import registry

    output, folder = common.output, common.data_folder()
    tasks = [each.dataset for each in _named(task)]
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
    merged = f"of another task, {whole} classes; " + (
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
        (f"{len(dataset.classes)} classes", ", ".join(_first(dataset.classes, MOST_NAMES))),
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
    """Open every split of a task: sizes against the publisher's, images per class, a decoded sample.

    Of your own folders and CSVs: which class name goes with which folder, what is left out and why, images that come twice (the
    same bytes; with --deep the same pixels), and how many are turned as their EXIF orientation says.

    Example: `wisepatch datasets check Digits path/to/folder --deep`
    """
    from wisepatch.datasets.inspection import Report, inspect

    output, folder = common.output, common.data_folder()
    reports: list[Report] = []
    problems: list[WisepatchError] = []
    pixels: dict[str, dict[Place, str]] = {}
    tasks = _named(task, names)
    own = {each.name for each in tasks if each.dataset.family == "folder"}
    for each in tasks:
        for name in [each.split] if each.split else each.dataset.available_splits:
            try:
                seen = pixels.setdefault(each.name, {})
                progress = output.progress()
                reports.append(inspect(each.dataset, name, folder, deep=deep, progress=progress, pixels=seen))
            except EmptySplitError as error:
                output.say(f"note: {error.message}")
            except WisepatchError as error:
                known = {problem.message for problem in problems}
                problems += [error] if error.message not in known else []
    output.records([report.to_json() for report in reports], "check")
    if reports:
        output.table(
            ("task", "split", "images", "expected", "classes", "images per class", "sample"),
            [
                (r.task, r.split, r.images, "?" if r.expected is None else r.expected, r.classes, _spread(r.per_class), r.sample)
                for r in reports
            ],
        )  # fmt: skip
    for report in reports:
        if report.expected not in (None, report.images):
            output.say(
                f"note: {report.task} ({report.split}) has {report.images} images, its publisher {report.expected}"
            )
        empty = [name.partition(" ")[2] for name, count in (report.per_class or {}).items() if count == 0]
        if empty and report.task not in own:  # of which it is said already
            more = f", and {len(empty) - SHOWN} more" if len(empty) > SHOWN else ""
            output.say(f"note: {report.task} ({report.split}) has no images of {', '.join(empty[:SHOWN])}{more}")
        if report.turned:
            output.say(f"note: {report.task} ({report.split}): EXIF turns {report.turned} of {report.images} images")
    for each in tasks:
        _tell_of_own_files(each.dataset, folder, pixels.get(each.name, {}), output)
    broken = [problem for report in reports for problem in report.broken]
    for problem in broken:
        output.say(problem)
    if broken:
        problems.append(
            DataError(f"{len(broken)} images cannot be read", "replace or remove the files that are named above")
        )
    _raise(problems, output)


def _tell_of_own_files(dataset: Dataset, folder: Path, pixels: Mapping[Place, str], output: Output) -> None:
    """Say what a user should look at: classes with other names, files left out, images that come twice."""
    from wisepatch.datasets.duplicates import described, same_files, same_pixels, told

    renamed = [(label, name) for label, name in zip(dataset.labels, dataset.classes, strict=False) if label != name]
    if renamed:
        output.table((f"folder or label of {dataset.name}", "class name"), renamed)
    for reason, left_out in dataset.left_out.items():
        output.say(f"left out of {dataset.name}, {len(left_out)}: {reason}:")
        for name in left_out:
            output.say(f"  {name}")
    groups = same_files(dataset, folder)
    found = [(groups, "bytes")]
    known = {frozenset(place.name for place in group) for group in groups}
    found.append(([g for g in same_pixels(pixels) if frozenset(place.name for place in g) not in known], "pixels"))
    for each, what in found:
        for line in told(dataset, each, what):
            output.say(f"note: {line}")
        for group in each:
            output.say(f"  {described(dataset, group)}")


def _named(words: list[str], classes: o.ClassOptions | None = None) -> list[Task]:
    """Look up the tasks that are named. Raises :class:`UsageError` for none."""
    from wisepatch.tasks import find_tasks

    names = classes.task_words(words) if classes else o.split_list(words)
    if not names:
        raise UsageError("no task is named", "`wisepatch datasets` lists those known by name")
    return find_tasks(names, classes.names(), classes.templates()) if classes else find_tasks(names)


def _raise(problems: list[WisepatchError], output: Output) -> None:
    """Raise the last problem, after printing the others: one task's problem does not hide the reports of the rest."""
    for problem in problems[:-1]:
        print_error(problem, as_json=output.as_json)
    if problems:
        raise problems[-1]


def _spread(per_class: dict[str, int] | None) -> str:
    if per_class is None:
        return "? (--deep counts)"
    least, most, empty = min(per_class.values()), max(per_class.values()), sum(n == 0 for n in per_class.values())
    return (f"{least}" if least == most else f"{least} to {most}") + (f", {empty} without" if empty else "")


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
    for each in _named(task):
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
        here = f"is below {folder}" if dataset.downloads else "is there without a download"
        output.result(f"{dataset.name} {here}")
    _raise(problems, output)
