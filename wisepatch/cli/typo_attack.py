"""``wisepatch typo-attack``: make images with wrong words on them, and measure who is misled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch.cli import options as o
from wisepatch.cli.output import Output, percent
from wisepatch.config import check_precision
from wisepatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wisepatch.datasets.typography import Style

app = typer.Typer(
    help="Typographic attacks: `make` writes wrong class names on images, `eval` measures who is misled; the task `typo:NAME`"
    " attacks on the fly, also in training.\n\nExample: `wisepatch typo-attack make --task Shapes --output attacked`",
    no_args_is_help=True,
)

TextOption = Annotated[
    str,
    typer.Option("--text", help="What is written: wrong (the name of a wrong class), random-word, or your own words."),
]
SizeOption = Annotated[
    str, typer.Option("--size", help="Height of the letters as fractions of the image's shorter side, LOW:HIGH.")
]
FontOption = Annotated[
    list[Path], typer.Option("--font", help="A .ttf or .otf file instead of the free fonts that are found. Repeatable.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="The same seed writes the same.")]
OneTaskOption = Annotated[str | None, typer.Option("--task", "-t", help="A known name, NAME@val, a folder, or a CSV.")]


@app.command("make")
def make(
    task: OneTaskOption = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test; NAME@val wins.")] = "test",
    output_path: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the images.")] = Path(
        "attacked"
    ),
    text: TextOption = "wrong",
    size: SizeOption = "0.2:0.4",
    font: FontOption = [],  # noqa: B006 -- Typer copies defaults
    seed: SeedOption = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first images alone.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Also draw a contact sheet, OUTPUT-preview.png.")] = False,
    classnames: o.ClassnamesOption = None,
    _store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    workers: o.WorkersOption = None,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Write each image of a task with the name of a wrong class on it, as label=dog_text=cat.png, and an index.csv.

    Example: `wisepatch typo-attack make --task SUN397 --split test --output attacked --preview`
    """
    from wisepatch.plugins import find_task
    from wisepatch.workflows.typographic_attacks import make as write

    output, asked = Output(as_json=as_json, quiet=quiet), style(text, size, font, seed)
    if task is None:
        raise UsageError("nothing to attack", "name a task, a folder of images or a CSV with --task")
    found = find_task(task, o.read_classnames(classnames))
    place = output_path.resolve()  # "." has no name
    sheet = place.with_name(f"{place.name}-preview.png") if preview else None
    count = write(
        found, found.split or split, o.data_folder(data), output_path, asked, limit=limit, workers=workers, preview=sheet,
        progress=output.progress(),
    )  # fmt: skip
    output.records([{
        "task": found.name, "split": found.split or split, "images": count, "folder": str(output_path), "text": text,
        "seed": seed, "preview": sheet and str(sheet),
    }])  # fmt: skip
    output.result(f"wrote {count} attacked images and index.csv to {output_path}")
    if sheet:
        output.result(f"the contact sheet is {sheet}")


@app.command("eval")
def evaluate(
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT...", help="As for `wisepatch eval`.")],
    task: OneTaskOption = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="A folder of attacked images, label=dog_text=cat.png.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test; NAME@val wins.")] = "test",
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw the images that mislead most surely (a .png).")
    ] = None,
    text: TextOption = "wrong",
    size: SizeOption = "0.2:0.4",
    font: FontOption = [],  # noqa: B006
    seed: SeedOption = 0,
    classnames: o.ClassnamesOption = None,
    template: o.TemplateOption = [],  # noqa: B006
    store: o.StoreOption = o.DEFAULT_STORE,
    data: o.DataOption = None,
    batch_size: o.EvalBatchOption = None,
    workers: o.WorkersOption = None,
    mixed_precision: o.PrecisionOption = "no",
    cache_images: o.CacheOption = False,
    compiled: o.CompileOption = False,
    as_json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Measure accuracy without and with words on the images, and how often a model says what is written.

    With --images, a folder of photos in the published convention; its classes are the labels and texts, or --classnames.

    Example: `wisepatch typo-attack eval zeroshot patched --task Shapes --output worst.png`
    """
    from wisepatch.datasets.prompts import templates
    from wisepatch.reports.plots import check_picture_path
    from wisepatch.store.checkpoints import Store

    output, place = Output(as_json=as_json, quiet=quiet), Store(store)
    asked, prompts, precision = (
        style(text, size, font, seed),
        templates(template) or None,
        check_precision(mixed_precision),
    )
    if (task is None) == (images is None):
        raise UsageError(
            "give either --task or --images", "--task attacks on the fly, --images reads a folder of attacked images"
        )
    if output_path:
        check_picture_path(output_path, (".png", ".jpg"))
    names, folder = o.read_classnames(classnames), o.data_folder(data)
    found = o.find_checkpoints(place, checkpoints)
    from wisepatch.workflows.patching import new_run, tasks_of
    from wisepatch.workflows.typographic_attacks import find_photos, measure

    rows = measure(
        found, place, folder, task=tasks_of(found, [task], names, prompts)[0] if task else None,
        images=find_photos(images, names, prompts) if images else None, style=asked, split=split, picture=output_path,
        run=new_run("typo-attack"), batch_size=batch_size, workers=workers,
        mixed_precision=precision, cache_images=cache_images, compiled=compiled,
        progress=output.progress(),
    )  # fmt: skip
    output.records(rows)
    output.table(
        ("checkpoint", "clean", "attacked", "says what is written", "says neither", "n"),
        [_line(checkpoint.name, [row for row in rows if row["checkpoint"] == checkpoint.id]) for checkpoint in found],
    )
    output.result("per cent, with 95 % intervals")
    if output_path:
        output.result(f"the picture is {output_path}")


def style(text: str, size: str, fonts: Sequence[Path], seed: int) -> Style:
    """The attack's style from the command line. Raises :class:`UsageError` for a size that is none."""
    from wisepatch.datasets.fonts import FONTS
    from wisepatch.datasets.typography import Style

    low, colon, high = size.partition(":")
    try:
        bounds = float(low), float(high if colon else low)
    except ValueError as error:
        raise UsageError(
            f"the size {size!r} is not understood", "write LOW:HIGH, such as 0.1:0.3, or one fraction"
        ) from error
    return Style(text, *bounds, fonts=tuple(str(path.expanduser()) for path in fonts) or FONTS, seed=seed)


def _line(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[object, ...]:
    """A checkpoint's row of the table; a folder of attacked images has no clean accuracy."""
    attacked = {row["metric"]: row for row in rows if row["metric"] != "top1"}
    tops = [row for row in rows if row["metric"] == "top1"]
    cells = [_cell(tops[0]) if len(tops) > 1 else "-", _cell(tops[-1])]
    return (name, *cells, _cell(attacked["attack_success"]), _cell(attacked["neither"]), tops[-1]["n"])


def _cell(row: Mapping[str, Any]) -> str:
    return f"{percent(row['value'])} ({percent(row['ci_low'])} to {percent(row['ci_high'])})"
