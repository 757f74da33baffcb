"""``wisepatch predict``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.config import EvalConfig, PassConfig, setting
from wisepatch.counting import count
from wisepatch.errors import DataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wisepatch.datasets.any_images import AnyImages
    from wisepatch.evaluation.answers import Answer
    from wisepatch.store.checkpoints import Checkpoint, Store

MAX_NAMED = 20  # images that cannot be read; --json and --output have them all


@dataclass(frozen=True)
class PredictOptions:
    """Say which checkpoints are asked about which classes, and where the answers go."""

    checkpoint: list[str] | None = setting(
        None, "Checkpoints to ask, by comma; then all words may be images.", None, complete=completion.checkpoints
    )
    task: str | None = setting(
        None,
        "Choose from the classes of this task. (default: of the one that was trained)",
        None,
        flags=("--task", "-t"),
        complete=completion.tasks,
    )
    top: int = setting(5, "How many classes to tell.", None, min=1)
    output: list[Path] | None = setting(
        None, "A table (.csv, .parquet), or a sheet of images (.png, .jpg).", None, flags=("--output", "-o")
    )
    images_per_class: int = setting(10, "Surest images of each class on a sheet.", None, min=1)
    path_column: str = setting("", "Column of a CSV that names the images.", None)
    colour_managed: bool = setting(default=False, help="Convert colours to sRGB.", panel=None)


@o.with_settings
def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT IMAGE|DIR|CSV...",
            help=f"A checkpoint ({o.CHECKPOINT_HELP.rstrip('.')}), then images, folders, or CSVs with a column of paths.",
            autocompletion=completion.checkpoints,
        ),
    ],
    told: PredictOptions,
    names: o.NameOptions,
    passes: PassConfig,
    machine: o.Machine,
    common: o.Common,
) -> None:
    """Say what images show: class names with probabilities, from one checkpoint or several.

    A trained head answers where its classes are asked for, else a head from text.

    Examples: `wisepatch predict patched photo.jpg`

    `wisepatch predict patched photos/ --classnames "cat,dog,no animal" --template "a photo of a {}." --output answers.csv`

    `wisepatch predict --checkpoint zeroshot,patched photos/ --output sheet.png --images-per-class 5`
    """  # fmt: skip
    from wisepatch.datasets.any_images import AnyImages, list_images
    from wisepatch.datasets.csv_listing import SUFFIXES
    from wisepatch.reports.answer_files import check_output

    output, store = common.output, common.open_store()
    classnames, templates = names.names(), names.templates()
    paths = told.output or []
    for path in paths:
        check_output(path)
    asked, images = _take_apart(store, words, told.checkpoint or [])
    if told.path_column and not any(Path(word).suffix.lower() in SUFFIXES for word in images):
        output.say("note: --path-column changes nothing: no CSV is named")
    listing = list_images(images, {"path": told.path_column} if told.path_column else None)
    if note := listing.note():
        output.say(f"note: {note}")
    from wisepatch.evaluation.answers import answers
    from wisepatch.workflows.predicting import asked_task

    wanted = asked_task(asked, told.task, classnames, templates)
    sources = AnyImages(listing.paths, managed=told.colour_managed)
    settings = EvalConfig(**passes.to_json())
    stream = answers(asked, sources, wanted, store, top=told.top, settings=settings, progress=output.progress())
    shown = _Shown(common, several=len(asked) > 1, lines=not paths)
    _keep(shown, stream, sources, paths, told)
    if output.helps:
        return
    if shown.unreadable == len(sources):
        raise DataError("none of the images can be read", "name others")
    read = f"answered {len(sources) - shown.unreadable:,} of {count(len(sources), 'image')}"
    rest = f", {shown.unreadable} cannot be read" if shown.unreadable else ""
    written = f"; written to {' and '.join(map(str, paths))}" if paths else ""
    output.say(f"{read}{rest}{written}")


class _Shown:
    """Print answers as they come: a line or a record each, and on stderr which images cannot be read."""

    def __init__(self, common: o.Common, *, several: bool, lines: bool) -> None:
        self.output, self.several, self.lines = common.output, several, lines
        self.unreadable, self.last = 0, -1

    def add(self, answer: Answer) -> None:
        if answer.problem:
            if answer.index != self.last:
                self.unreadable += 1
                if self.unreadable <= MAX_NAMED:
                    more = "; further ones are counted" if self.unreadable == MAX_NAMED else ""
                    self.output.say(f"note: {answer.image} cannot be read: {answer.problem}{more}")
                self.output.records([{"image": answer.image, "problem": answer.problem}], "unreadable")
            self.last = answer.index
            return
        self.output.records([{
            "image": answer.image, "checkpoint": answer.checkpoint.id, "name": answer.checkpoint.name,
            "classes": answer.classes, "probabilities": answer.probabilities,
        }], "prediction")  # fmt: skip
        if self.lines:
            of = f" [{answer.checkpoint.name}]" if self.several else ""
            pairs = zip(answer.classes, answer.probabilities, strict=True)
            told = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in pairs)
            self.output.result(f"{answer.image}{of}: {told}")


def _keep(shown: _Shown, stream: Iterable[Answer], sources: AnyImages, paths: list[Path], told: PredictOptions) -> None:
    """Print answers, and write them to every file that was asked for."""
    from wisepatch.reports.answer_files import TABLES, Sheet, table

    if shown.output.helps:
        paths = []
    with ExitStack() as stack:
        tables = [stack.enter_context(table(path, told.top)) for path in paths if path.suffix.lower() in TABLES]
        pictures = [path for path in paths if path.suffix.lower() not in TABLES]
        sheet = Sheet(told.images_per_class)
        for answer in stream:
            shown.add(answer)
            for each in tables:
                each.add(answer)
            if pictures:
                sheet.add(answer)
    for path in pictures:
        sheet.save(sources, path)


def _take_apart(store: Store, words: list[str], named: list[str]) -> tuple[list[Checkpoint], list[str]]:
    """Return the checkpoints and the words for images; the first word is a checkpoint unless --checkpoint names some."""
    from wisepatch.task_specs import existing

    first, rest = words[0], words[1:]
    if named and existing(first):
        return o.find_checkpoints(store, named), words
    try:
        checkpoints = o.find_checkpoints(store, [first, *named])
    except UnknownNameError as error:
        if existing(first):
            raise UsageError(f"{first} is no checkpoint", "name one before the images, such as patched") from error
        raise
    if not rest:
        raise UsageError("no images are named", "name images, folders, or CSVs after the checkpoint")
    return checkpoints, rest
