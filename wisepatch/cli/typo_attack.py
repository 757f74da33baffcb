"""``wisepatch typo-attack``: make images with wrong words on them, and measure who is misled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wisepatch import counting
from wisepatch.cli import options as o
from wisepatch.cli.results import labels
from wisepatch.config import EvalConfig
from wisepatch.errors import UsageError
from wisepatch.files import expanded
from wisepatch.reports.numbers import with_interval

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
@o.with_settings
def make(
    names: o.ClassOptions,
    common: o.Common,
    task: OneTaskOption = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test; NAME@val wins.")] = "test",
    output_path: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the images.")] = Path(
        "attacked"
    ),
    text: TextOption = "wrong",
    size: SizeOption = "0.2:0.4",
    font: FontOption = [],  # noqa: B006 -- Typer copies defaults
    seed: SeedOption = 0,
    limit: o.LimitOption = None,
    preview: Annotated[bool, typer.Option("--preview", help="Also draw a contact sheet, OUTPUT-preview.png.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that write. (default: as the machine suggests)")
    ] = None,
) -> None:
    """Write each image of a task with the name of a wrong class on it, as label=dog_text=cat.png, and an index.csv.

    Example: `wisepatch typo-attack make --task SUN397 --split test --output attacked --preview`
    """
    from wisepatch.tasks import find_task
    from wisepatch.workflows.typographic_attacks import make as write

    output, asked = common.output, style(text, size, font, seed)
    if task is None:
        raise UsageError("nothing to attack", "name a task, a folder of images or a CSV with --task")
    attacked = find_task(names.task_word(task), names.names(), names.templates())
    place = output_path.resolve()  # "." has no name
    sheet = place.with_name(f"{place.name}-preview.png") if preview else None
    count = write(
        attacked, attacked.split or split, common.data_folder(), output_path, asked, limit=limit, workers=workers, preview=sheet,
        progress=output.progress(),
    )  # fmt: skip
    output.records([{
        "task": attacked.name, "split": attacked.split or split, "images": count, "folder": str(output_path), "text": text,
        "seed": seed, "preview": sheet and str(sheet),
    }], "attack")  # fmt: skip
    output.result(f"wrote {counting.count(count, 'attacked image')} and index.csv to {output_path}")
    if sheet:
        output.result(f"the contact sheet is {sheet}")


@app.command("eval")
@o.with_settings
def evaluate(
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT", help="As for `wisepatch eval`.")],
    names: o.ClassOptions,
    evaluation: EvalConfig,
    machine: o.Machine,
    common: o.Common,
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
    limit: o.LimitOption = None,
) -> None:
    """Measure accuracy without and with words on the images, and how often a model says what is written.

    With --images, a folder of photos in the published convention; its classes are the labels and texts, or --classnames.

    Example: `wisepatch typo-attack eval zeroshot patched --task Shapes --output worst.png`
    """
    from wisepatch.reports.plots import check_picture_path

    output, store = common.output, common.open_store()
    asked, classnames, templates = style(text, size, font, seed), names.names(), names.templates()
    if (task is None) == (images is None):
        raise UsageError(
            "give either --task or --images", "--task attacks on the fly, --images reads a folder of attacked images"
        )
    if output_path:
        check_picture_path(output_path, (".png", ".jpg"))
    data, named = common.data_folder(), o.find_checkpoints(store, checkpoints)
    from wisepatch.workflows.run import new_run
    from wisepatch.workflows.tasks_of_run import evaluation_tasks
    from wisepatch.workflows.typographic_attacks import find_photos, measure

    rows = measure(
        named, store, data,
        task=evaluation_tasks(named, [names.task_word(task)], classnames, templates, limit)[0] if task else None,
        images=find_photos(images, classnames, templates, limit, names.reading()) if images else None, style=asked, split=split,
        picture=output_path, run=new_run("typo-attack"), settings=evaluation, progress=output.progress(),
    )  # fmt: skip
    output.records(rows)
    called = labels(named)
    output.table(
        ("checkpoint", "clean", "attacked", "says what is written", "says neither", "n"),
        [
            _line(called[checkpoint.id], [row for row in rows if row["checkpoint"] == checkpoint.id])
            for checkpoint in named
        ],
    )
    output.result("per cent, with 95 % intervals")
    if output_path:
        output.result(f"the picture is {output_path}")


def style(text: str, size: str, fonts: Sequence[Path], seed: int) -> Style:
    """Return the style of an attack as it is asked for. Raises :class:`UsageError` for a size that is none."""
    from wisepatch.datasets.fonts import FONTS
    from wisepatch.datasets.typography import Style

    low, colon, high = size.partition(":")
    try:
        bounds = float(low), float(high if colon else low)
    except ValueError as error:
        raise UsageError(
            f"the size {size!r} is not understood", "write LOW:HIGH, such as 0.1:0.3, or one fraction"
        ) from error
    return Style(text, *bounds, fonts=tuple(str(expanded(path)) for path in fonts) or FONTS, seed=seed)


def _line(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[object, ...]:
    """Return the row of a checkpoint in the table; a folder of attacked images has no clean accuracy."""
    attacked = {row["metric"]: row for row in rows if row["metric"] != "top1"}
    tops = [row for row in rows if row["metric"] == "top1"]
    cells = [with_interval(tops[0]) if len(tops) > 1 else "-", with_interval(tops[-1])]
    return (name, *cells, with_interval(attacked["attack_success"]), with_interval(attacked["neither"]), tops[-1]["n"])
