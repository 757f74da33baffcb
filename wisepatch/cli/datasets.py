"""``wisepatch datasets``: the tasks known by name, what is known of each, and whether their data is whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch.cli import options as o
from wisepatch.cli.output import Output, percent

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Dataset

app = typer.Typer(
    help="List the tasks known by name; `show` tells of one, `check` looks at its data, `download` fetches it.\n\n"
    "Example: `wisepatch datasets`, `wisepatch datasets check Digits`"
)

Tasks = Annotated[list[str], typer.Argument(metavar="TASK...", help="Known names, folders or CSVs.")]
DeepOption = Annotated[bool, typer.Option("--deep", help="Decode every image and name the broken ones.")]


@app.callback(invoke_without_command=True)
def listing(
    ctx: typer.Context,
    _store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """List the tasks known by name: classes, splits, prompts, metric, who provides them, and whether the data is there.

    Example: `wisepatch datasets`
    """
    if ctx.invoked_subcommand is not None:
        return
    from wisepatch.plugins import registry

    known, folder = registry(), o.data_folder(data)
    output = Output(as_json=as_json, quiet=quiet)
    tasks = sorted(known.datasets.values(), key=lambda d: (d.family.lower(), _numbers_by_size(d.name.lower())))
    records = [describe(dataset, known.owners[dataset.name], folder) for dataset in tasks]
    output.records(records)
    output.table(
        ("task", "family", "classes", "splits", "templates", "metric", "data", "from"),
        [
            (
                r["name"], r["family"], len(r["classes"]), " ".join(r["splits"]), len(r["templates"]),
                " ".join(r["metrics"]), r["data"], r["plugin"],
            )
            for r in records
        ],
    )  # fmt: skip
    output.result("A folder of images or a CSV is a task too: --task path/to/folder")


def _numbers_by_size(name: str) -> list[tuple[int, str]]:
    """A key that sorts ImageNet2 before ImageNet16."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def describe(dataset: Dataset, owner: str, folder: Path) -> dict[str, Any]:
    """What is known of a task without opening it."""
    found = dataset.find(folder)
    there = "built in" if dataset.gigabytes == 0 else "yes" if found else "no" if dataset.layouts else "?"
    return {
        "name": dataset.name, "family": dataset.family, "classes": list(dataset.classes), "splits": list(dataset.offered),
        "templates": list(dataset.templates), "metrics": [dataset.metric, *dataset.also], "plugin": owner, "data": there,
        "found": found, "layouts": list(dataset.layouts), "counts": dict(dataset.counts), "gigabytes": dataset.gigabytes,
        "licence": dataset.licence, "source": dataset.source, "downloads": dataset.downloads, "aliases": list(dataset.aliases),
        "zeroshot": dict(dataset.zeroshot), "head_classes": len(dataset.head_names),
    }  # fmt: skip


@app.command("list", hidden=True)
def listing_too(
    ctx: typer.Context,
    store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """The same as `wisepatch datasets`.

    Example: `wisepatch datasets list`
    """
    ctx.invoked_subcommand = None
    listing(ctx, store, data, as_json=as_json, quiet=quiet)


@app.command("show")
def show(
    task: Tasks,
    _store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Tell what is known of a task: class names, prompts, layout on disk, size, licence, source, published accuracy.

    Example: `wisepatch datasets show GTSRB`
    """
    from wisepatch.plugins import find_tasks, registry

    output, folder = Output(as_json=as_json, quiet=quiet), o.data_folder(data)
    tasks = [found.dataset for found in find_tasks(o.split_list(task))]
    records = [describe(dataset, registry().owners.get(dataset.name, "your own"), folder) for dataset in tasks]
    output.records(records)
    for dataset, record in zip(tasks, records, strict=True):
        output.table((dataset.name, ""), _facts(dataset, record, folder))


def _facts(dataset: Dataset, record: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    """The lines of `show`; what is not known has none."""
    counts = ", ".join(f"{dataset.expected(s) or '?'} {s}" for s in dataset.offered) if dataset.counts else ""
    size = f"{dataset.gigabytes:g} GB" if dataset.gigabytes else ""
    by_program = f"`wisepatch datasets download {dataset.name}`" if dataset.downloads else "by hand"
    merged = f"the {len(dataset.head_names)} of another task, of which classes have the largest logit"
    lines = [
        ("family", dataset.family),
        ("from", record["plugin"]),
        ("also called", ", ".join(dataset.aliases)),
        ("splits", ", ".join(dataset.offered)),
        ("images", counts),
        ("metrics", ", ".join(record["metrics"])),
        ("data", f"{folder / record['found']}" if record["found"] else record["data"]),
        ("layout", "\nor ".join(dataset.layouts)),
        ("download", f"{size}, {by_program}" if size else ""),
        ("licence", dataset.licence),
        ("source", dataset.source),
        ("zero-shot", "\n".join(f"{percent(value)} % {model}" for model, value in dataset.zeroshot.items())),
        ("templates", "\n".join(dataset.templates)),
        ("head", merged if dataset.merges else ""),
        (f"{len(dataset.classes)} classes", ", ".join(dataset.classes)),
    ]
    return [(name, text) for name, text in lines if text]


@app.command("check")
def check(
    task: Tasks,
    deep: DeepOption = False,
    _store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Open every split of a task: sizes against the publisher's, images per class, a decoded sample.

    Example: `wisepatch datasets check Digits path/to/folder --deep`
    """
    from wisepatch.datasets.inspection import inspect
    from wisepatch.errors import DataError
    from wisepatch.plugins import find_tasks

    output, folder = Output(as_json=as_json, quiet=quiet), o.data_folder(data)
    reports = []
    for found in find_tasks(o.split_list(task)):
        for name in [found.split] if found.split else found.dataset.offered:
            reports.append(inspect(found.dataset, name, folder, deep=deep, progress=output.progress()))
    output.records([report.to_json() for report in reports])
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
    broken = [problem for report in reports for problem in report.broken]
    for problem in broken:
        output.say(problem)
    if broken:
        raise DataError(f"{len(broken)} images cannot be read", "replace or remove the files named above")


def _spread(per_class: dict[str, int] | None) -> str:
    if per_class is None:
        return "? (--deep counts)"
    least, most, empty = min(per_class.values()), max(per_class.values()), sum(n == 0 for n in per_class.values())
    return (f"{least}" if least == most else f"{least} to {most}") + (f", {empty} without" if empty else "")


@app.command("download")
def download(
    task: Tasks,
    _store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Fetch the data of a task into the data folder, of whatever size; what is there is not fetched again.

    Example: `wisepatch datasets download STL10`
    """
    from wisepatch.datasets.inspection import download as fetch
    from wisepatch.plugins import find_tasks

    output, tasks = Output(as_json=as_json, quiet=quiet), find_tasks(o.split_list(task))
    if data is not None:
        data.expanduser().mkdir(parents=True, exist_ok=True)
    folder = o.data_folder(data)
    for found in tasks:
        dataset = found.dataset
        size = f" ({dataset.gigabytes:g} GB)" if dataset.gigabytes else ""
        output.say(f"fetching {dataset.name}{size} into {folder}")
        fetch(dataset, folder)
        output.records([{"task": dataset.name, "folder": str(folder)}])
        output.result(f"{dataset.name} is below {folder}")
