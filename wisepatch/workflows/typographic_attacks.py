"""Typographic attacks: write a folder of attacked images, and measure how far models are misled by them."""

from __future__ import annotations

import csv
import io
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.metrics import ATTACKS
from wisepatch.datasets.attacked_folder import COLUMNS, INDEX, UNFINISHED, attacked_folder, file_name
from wisepatch.datasets.base import Subset
from wisepatch.datasets.contact_sheet import contact_sheet
from wisepatch.datasets.folder import renamed
from wisepatch.datasets.loading import worker_count
from wisepatch.datasets.typography import PREFIX, AttackedSamples, Style, attacked
from wisepatch.errors import DataError, UsageError, WisepatchError
from wisepatch.files import drawing, is_running, refused, write_durably
from wisepatch.tasks import Task
from wisepatch.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from PIL import Image

    from wisepatch.datasets.base import Samples, Split
    from wisepatch.evaluation.prediction import Predictions
    from wisepatch.config import EvalConfig
    from wisepatch.progress import Progress
    from wisepatch.store.checkpoints import Checkpoint, Store

PREVIEWED = 25
WORST = 10  # images of each checkpoint in the picture of the worst cases
PICTURE = 1 << 21  # bytes that one may take on its way from a worker process
CHUNK = 8  # images that a worker process takes at a time


@dataclass(frozen=True)
class Rendered:
    """One attacked image as PNG, and what it shows and says. ``index`` is its place in the split."""

    index: int
    label: str
    text: str
    png: bytes


def make(
    task: Task,
    split: str,
    data: Path,
    output: Path,
    style: Style,
    *,
    limit: int | None = None,
    workers: int | None = None,
    preview: Path | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the images of a split with words on them into ``output``, as ``label=..._text=....png``, and an ``index.csv``.

    The bytes depend on the style's seed and the index of the image alone, not on ``workers``. The index is written last: a
    folder that has one is whole. What an interrupted call has left is replaced by the next. ``preview`` draws a contact
    sheet of the first images. Returns the number of images.

    Raises :class:`UsageError` for a folder that is not empty, :class:`DataError` where a text fits on an image at no size, and
    :class:`WisepatchError` where the folder cannot be written.
    """
    progress = progress or Silent()
    writing = partial(refused, str(output), WisepatchError, "free space there, or name another with --output")
    with writing():
        _clear(output)
    opened = attacked(task.dataset, style).split(split, data)
    total = min(len(opened), limit if limit is not None else len(opened))
    rows: list[tuple[object, ...]] = []
    first: list[tuple[Image.Image, Sequence[str]]] = []
    taken: set[str] = {INDEX.casefold()}
    unfinished = output / UNFINISHED
    with writing():
        output.mkdir(parents=True, exist_ok=True)
        try:
            marker = unfinished.open("x", encoding="utf-8")
        except FileExistsError:
            raise _taken(output) from None
    progress.start(f"writing on {task.name} ({split})", total)
    with marker:
        print(os.getpid(), file=marker, flush=True)
        for each in _render(opened, total, worker_count(workers, total, PICTURE)):
            name = file_name(each.label, each.text, each.index, taken)
            with writing():
                print(name, file=marker, flush=True)
                (output / name).write_bytes(each.png)
            rows.append((name, each.label, each.text, each.index, task.name, split, style.seed))
            if preview and len(first) < PREVIEWED:
                first.append((_decoded(each.png), (f"shows {each.label}", f"says {each.text}")))
            progress.advance()
    progress.finish()
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerow(COLUMNS)
    csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)  # names may hold any character
    with writing():
        write_durably(output / INDEX, table.getvalue().encode())
        unfinished.unlink(missing_ok=True)
    if preview:
        with drawing(preview):
            contact_sheet([(f"{task.name} ({split}), {len(rows)} images", first)]).save(preview)
    return len(rows)


def _clear(output: Path) -> None:
    """Remove what an interrupted run has written, as its marker says. Raises :class:`UsageError` if anything else is there."""
    unfinished = output / UNFINISHED
    if unfinished.is_file():
        owner, *names = unfinished.read_text(encoding="utf-8").split("\n")
        if owner.isdecimal() and int(owner) != os.getpid() and is_running(int(owner)):
            raise _taken(output)
        for name in names:
            if name and (output / name).parent == output:
                (output / name).unlink(missing_ok=True)
        unfinished.unlink()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        reason = f"the folder {output} is not empty" if output.is_dir() else f"{output} is a file, not a folder"
        raise UsageError(reason, "name a new folder with --output, or remove this one")


def _taken(output: Path) -> UsageError:
    return UsageError(f"another run is writing into {output}", "wait for it, or name a new folder with --output")


def _render(opened: Split, total: int, workers: int) -> Iterator[Rendered]:
    if not workers:
        yield from (_one(opened, index) for index in range(total))
        return
    with ProcessPoolExecutor(workers, initializer=_remember, initargs=(opened,)) as pool:
        yield from pool.map(_one_remembered, range(total), chunksize=CHUNK)


def _one(opened: Split, index: int) -> Rendered:
    try:
        image, label, text = written(opened.samples, index)
    except (OSError, SyntaxError) as error:  # Pillow raises both for broken files
        raise DataError(
            f"{opened.task} ({opened.name}): image {index} cannot be read: {error}", "replace or remove the file"
        ) from error
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Rendered(index, opened.classes[label], text, buffer.getvalue())


_REMEMBERED: list[Split] = []


def _remember(opened: Split) -> None:
    _REMEMBERED[:] = [opened]


def _one_remembered(index: int) -> Rendered:
    return _one(_REMEMBERED[0], index)


def written(samples: Samples, index: int) -> tuple[Image.Image, int, str]:
    """Image ``index`` of attacked samples, also through subsets, its label, and the text on it."""
    if isinstance(samples, Subset):
        return written(samples.samples, samples.indices[index])
    assert isinstance(samples, AttackedSamples)
    return samples.written(index)


def _decoded(png: bytes) -> Image.Image:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGB")


def measure(
    checkpoints: Sequence[Checkpoint],
    store: Store,
    data: Path,
    *,
    task: Task | None = None,
    images: Task | None = None,
    style: Style | None = None,
    split: str = "test",
    picture: Path | None = None,
    run: str = "",
    progress: Progress | None = None,
    settings: EvalConfig | None = None,
) -> list[dict[str, Any]]:
    """Measure checkpoints on a task, clean and under attack, or on a folder of attacked images (``images``).

    The rows are those of :func:`wisepatch.evaluate`: ``top1`` of the clean and the attacked task, and of the attacked
    one ``attack_success`` (the model says what is written) and ``neither``, with 95 % intervals; they are appended to
    the store's results. ``picture`` draws the images that mislead each checkpoint most surely.
    """
    from wisepatch.evaluation.measurement import evaluate

    tasks = [images] if images else _clean_and_attacked(task, style)
    keep: list[Predictions] = []
    how = repr(style or Style())  # rows of two attacks on one task differ in this
    rows = evaluate(
        checkpoints, tasks, store, data, split=split, run=run, progress=progress, watch=keep.append,
        extra_fields=lambda _, of: {"attack": how} if of.name.startswith(PREFIX) else {}, settings=settings,
    )  # fmt: skip
    if picture:
        sheet = draw_worst(keep[-1], data, {c.id: c.name for c in checkpoints})
        with drawing(picture):
            sheet.save(picture)
    return rows


def find_photos(folder: Path, classnames: Sequence[str] | None = None, prompts: Sequence[str] | None = None) -> Task:
    """The task of a folder of attacked images. Raises the errors of :func:`~wisepatch.datasets.attacked_folder.attacked_folder`."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", "name a folder of images called label=dog_text=cat.png")
    return Task(str(folder.resolve()), renamed(attacked_folder(folder, classnames), None, prompts))


def _clean_and_attacked(task: Task | None, style: Style | None) -> list[Task]:
    if task is None:
        raise UsageError("nothing to attack", "name a task with --task, or a folder of attacked images with --images")
    written_on = replace(attacked(task.dataset, style), metric="top1", extra_metrics=ATTACKS)
    return [
        replace(task, dataset=replace(task.dataset, metric="top1", extra_metrics=())),
        Task(f"{PREFIX}{task.spec}", written_on, task.split),
    ]


def draw_worst(found: Predictions, data: Path, names: dict[str, str]) -> Image.Image:
    """The images that mislead each checkpoint most surely: it says what is written, with the highest probability."""
    import numpy as np

    opened = found.task.dataset.split(found.split, data)
    texts = np.asarray(list(found.annotations.written or ()))
    groups = []
    for checkpoint, predicted, sure in zip(found.checkpoints, found.predicted, found.confidence, strict=True):
        fooled = np.flatnonzero((predicted == texts) & (predicted != found.labels))
        worst = fooled[np.argsort(-sure[fooled], kind="stable")][:WORST]
        title = f"{names[checkpoint.id]}: says what is written on {len(fooled)} of {len(texts)} images"
        images = []
        for index in worst.tolist():
            image, label = opened[index]
            said = found.task.dataset.classes[int(predicted[index])]
            shown = f"shows {found.task.dataset.classes[label]}"
            images.append((image, (shown, f"taken for {said}, {100 * sure[index]:.0f} % sure")))
        groups.append((title, images))
    return contact_sheet(groups)
