"""Typographic attacks: write a folder of attacked images, and measure how far models are misled by them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wisepatch.config import EvalConfig
from wisepatch.counting import count
from wisepatch.datasets.attacked_folder import COLUMNS, INDEX, UNFINISHED, as_text, attacked_folder, file_name
from wisepatch.datasets.contact_sheet import contact_sheet, from_all_classes
from wisepatch.datasets.decoding import read_rgb
from wisepatch.datasets.guarding import Guarded
from wisepatch.datasets.limiting import limited
from wisepatch.datasets.loading import worker_count
from wisepatch.datasets.reading import AS_IT_IS, Reading
from wisepatch.datasets.renaming import renamed
from wisepatch.datasets.samples import Samples, Split, Subset
from wisepatch.datasets.typography import ATTACK_METRICS, PREFIX, AttackedSamples, Style, attacked
from wisepatch.errors import DataError, UsageError, WisepatchError
from wisepatch.evaluation.prediction import Predictions
from wisepatch.files import drawing, refused, remove_leftovers, write_durably
from wisepatch.locks import check_held, locked
from wisepatch.progress import Progress, Silent
from wisepatch.ranks import is_main
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

PREVIEW_IMAGES = 25
WORST_IMAGES = 10  # of each checkpoint in the picture of the worst cases
MAX_PNG_BYTES = 1 << 21  # of an image on its way from a worker process
CHUNK_IMAGES = 8  # that a worker process takes at a time
ANOTHER_FOLDER = "name a new folder with --output, or remove this one"


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
    """Write the attacked images of a split into ``output``, as ``label=..._text=....png``, and an ``index.csv``.

    The bytes depend on the style's seed and the index of the image alone, not on ``workers``. The index is written last: a
    folder that has one is complete. The files of an interrupted call are replaced by the next. ``preview`` draws a contact
    sheet of the first images, ``limit`` is the number of images at most. Returns the number of images.

    Raises :class:`UsageError` for a folder that is not empty or that another call writes into, :class:`DataError` where a
    text fits on an image at no size, and :class:`WisepatchError` where the folder cannot be written.
    """
    progress = progress or Silent()
    opened = attacked(task.dataset, style).split(split, data)
    chosen = limited(opened.samples, limit or len(opened))
    places = range(len(opened)) if chosen is opened.samples else cast("Subset", chosen).indices
    writing = partial(refused, str(output), WisepatchError, "free space there, or name another with --output")
    with ExitStack() as stack:
        with writing():
            stack.enter_context(_claimed(output))
        progress.start(f"writing on {task.name} ({split})", len(places))
        rows: list[tuple[Any, ...]] = []
        taken = {INDEX.casefold()}
        rendered = _render(opened, places, worker_count(workers, len(places), MAX_PNG_BYTES))
        for index, (label, text, png) in zip(places, rendered, strict=True):
            name = file_name(label, text, index, taken)
            with writing():
                with (output / UNFINISHED).open("a", encoding="utf-8") as marker:
                    print(name, file=marker)
                (output / name).write_bytes(png)
            rows.append((name, label, text, index, task.name, split, style.seed))
            progress.advance()
        progress.finish()
        with writing():
            write_durably(output / INDEX, _csv(rows))
            (output / UNFINISHED).unlink()
    if preview:
        numbers = {label: number for number, label in enumerate(opened.classes)}
        shown = [rows[place] for place in from_all_classes((numbers[row[1]] for row in rows), PREVIEW_IMAGES)]
        first = [(read_rgb(output / name), (f"shows {label}", f"says {text}")) for name, label, text, *_ in shown]
        with drawing(preview):
            contact_sheet([(f"{task.name} ({split}), {count(len(rows), 'image')}", first)]).save(preview)
    return len(rows)


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerow(COLUMNS)
    cells = [[as_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(
        cells
    )  # names may hold any character
    return table.getvalue().encode()


@contextmanager
def _claimed(output: Path) -> Iterator[None]:
    """Hold a new or empty folder, or one that an interrupted call has left, for this call alone.

    The marker names each file before it is written, and is locked until the call ends, however it ends. Raises
    :class:`UsageError` for a folder that holds anything else, and for one that another call writes into.
    """
    marker = output / UNFINISHED
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file, not a folder", ANOTHER_FOLDER)
    if not marker.exists():
        _check_empty(output)
        output.mkdir(parents=True, exist_ok=True)
    with locked(marker, wait=False, keep=True) as taken:
        if not taken:
            raise UsageError(f"another run is writing into {output}", "wait for it, or name a new folder with --output")
        check_held(marker)
        for name in marker.read_text(encoding="utf-8", errors="replace").split("\n"):
            if name.startswith("label=") and (output / name).parent == output:
                (output / name).unlink(missing_ok=True)
        remove_leftovers(output)
        try:
            _check_empty(output)
        except UsageError:
            marker.unlink()
            raise
        os.truncate(marker, 0)
        yield


def _check_empty(output: Path) -> None:
    if output.exists() and any(path.name != UNFINISHED for path in output.iterdir()):
        raise UsageError(f"the folder {output} is not empty", ANOTHER_FOLDER)


def _render(opened: Split, places: Sequence[int], workers: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield the label, the text and the PNG of some images, in order."""
    if not workers:
        yield from (_render_one(opened, index) for index in places)
        return
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(opened,)) as pool:
        yield from pool.map(_render_in_worker, places, chunksize=CHUNK_IMAGES)


_WORKER_SPLIT: list[Split] = []  # sent to each worker process once


def _start_worker(opened: Split) -> None:
    _WORKER_SPLIT[:] = [opened]


def _render_in_worker(index: int) -> tuple[str, str, bytes]:
    return _render_one(_WORKER_SPLIT[0], index)


def _render_one(opened: Split, index: int) -> tuple[str, str, bytes]:
    try:
        image, label, text = written(opened.samples, index)
    except (OSError, SyntaxError) as error:  # Pillow raises both for broken files
        problem = f"{opened.task} ({opened.name}): image {index} cannot be read: {error}"
        raise DataError(problem, "replace or remove the file") from error
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return opened.classes[label], text, buffer.getvalue()


def written(samples: Samples, index: int) -> tuple[Image.Image, int, str]:
    """Return image ``index`` of attacked samples, also through subsets, its label, and the text on it."""
    if isinstance(samples, Guarded):
        return written(samples.samples, index)
    if isinstance(samples, Subset):
        return written(samples.samples, samples.indices[index])
    assert isinstance(samples, AttackedSamples)
    return samples.written(index)


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
    one ``attack_success`` (the model answers the written class) and ``neither``, with 95 % intervals; they are appended to
    the store's results. ``picture`` draws the images that mislead each checkpoint most surely.
    """
    from wisepatch.evaluation.measurement import evaluate
    from wisepatch.workflows.preflight import evaluation_splits, preflight

    style = style or Style()
    tasks = [images] if images else _clean_and_attacked(task, style)
    preflight(evaluation_splits(tasks, split), data, store=store)
    attack = {"attack": repr(style)}  # tells rows of two attacks on one task apart
    predictions: list[Predictions] = []
    rows = evaluate(
        checkpoints, tasks, store, data, split=split, run=run, progress=progress, watch=predictions.append,
        extra_fields=lambda _, of: attack if of.name.startswith(PREFIX) else {}, settings=settings,
    )  # fmt: skip
    if picture and is_main():
        with drawing(picture):
            picture.parent.mkdir(parents=True, exist_ok=True)
            draw_worst(predictions[-1], data).save(picture)
    return rows


def find_photos(
    folder: Path,
    classnames: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    limit: int | None = None,
    reading: Reading = AS_IT_IS,
) -> Task:
    """Make a folder of attacked images a task. Raises the errors of :func:`~wisepatch.datasets.attacked_folder.attacked_folder`."""
    if not os.path.isdir(folder):  # noqa: PTH112 -- names that are too long are none
        raise DataError(f"there is no folder {folder}", "name a folder of images called label=dog_text=cat.png")
    dataset = renamed(attacked_folder(folder, classnames, reading), None, prompts)
    return Task(f"{folder.resolve()}{reading.query()}", replace(dataset, limit=limit))


def _clean_and_attacked(task: Task | None, style: Style) -> list[Task]:
    if task is None:
        raise UsageError("nothing to attack", "name a task with --task, or a folder of attacked images with --images")
    written_on = replace(attacked(task.dataset, style), metric="top1", extra_metrics=ATTACK_METRICS)
    clean = replace(task.dataset, metric="top1", extra_metrics=())
    return [replace(task, dataset=clean), Task(f"{PREFIX}{task.spec}", written_on, task.split)]


def draw_worst(predictions: Predictions, data: Path) -> Image.Image:
    """Draw the images of all classes that mislead each checkpoint most surely: its answer is the written class."""
    import numpy as np

    opened = predictions.task.dataset.split(predictions.split, data)
    written_classes = np.asarray(list(predictions.annotations.written or ()))
    groups = []
    answers_of = zip(predictions.checkpoints, predictions.predicted, predictions.confidence, strict=True)
    for checkpoint, answers, confidence in answers_of:
        misled = np.flatnonzero((answers == written_classes) & (answers != predictions.labels))
        images = []
        misled = misled[np.argsort(-confidence[misled], kind="stable")]
        for index in misled[from_all_classes(predictions.labels[misled].tolist(), WORST_IMAGES)].tolist():
            image, label = opened[index]
            answer = f"taken for {opened.classes[answers[index]]}, {100 * confidence[index]:.0f} % sure"
            images.append((image, (f"shows {opened.classes[label]}", answer)))
        title = f"{checkpoint.name}: says what is written on {len(misled)} of {count(len(written_classes), 'image')}"
        groups.append((title, images))
    return contact_sheet(groups)
