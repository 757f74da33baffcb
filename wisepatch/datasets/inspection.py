"""Look at a split closely: how many images, how they spread over the classes, whether they can be decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset, Split, labels_of
from wisepatch.datasets.published.readers import asked
from wisepatch.errors import DataError, UsageError, WisepatchError
from wisepatch.progress import Progress, Silent

DECODERS = 4  # threads; Pillow decodes outside Python's lock


@dataclass(frozen=True)
class Report:
    """What was found in a split. ``expected`` is the publisher's number of images, ``broken`` says what cannot be decoded."""

    task: str
    split: str
    images: int
    expected: int | None
    classes: int
    per_class: dict[str, int] | None  # in the order of the classes; None where the labels would need every image
    sample: str
    broken: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "task": self.task, "split": self.split, "images": self.images, "expected": self.expected, "classes": self.classes,
            "per_class": self.per_class, "sample": self.sample, "broken": list(self.broken),
        }  # fmt: skip


def inspect(
    dataset: Dataset, split: str, root: Path, *, deep: bool = False, progress: Progress | None = None
) -> Report:
    """Open a split, count images and classes, decode one image; with ``deep`` all of them, going on after broken ones.

    Raises :class:`DataError` where the data is missing, the first image cannot be decoded, or a label is out of range.
    """
    with asked(wanted=False):  # a look fetches nothing
        opened = dataset.split(split, root)
    labels = labels_of(opened.samples)
    broken: list[str] = []
    first = 0
    if deep:
        decoded, broken = _decode_all(opened, progress or Silent())
        if not decoded:
            raise DataError(
                f"{dataset.name} ({split}): no image can be decoded; the first: {broken[0]}", "fetch it again"
            )
        first, labels = min(decoded), list(decoded.values())
    image, label = opened[first]
    strange = next((each for each in (labels or [label]) if not 0 <= each < len(dataset.classes)), None)
    if strange is not None:
        raise DataError(
            f"{dataset.name} ({split}) has the label {strange}, and {len(dataset.classes)} classes",
            "fetch the data again, or report it to the task's author",
        )
    counted = None
    if labels is not None:
        found = Counter(labels)
        counted = {f"{i} {name}": found.get(i, 0) for i, name in enumerate(dataset.classes)}
    return Report(
        dataset.name, split, len(opened), dataset.expected(split), len(dataset.classes), counted,
        f"{image.width} x {image.height}, {dataset.classes[label]}", tuple(broken),
    )  # fmt: skip


def _decode_all(opened: Split, progress: Progress) -> tuple[dict[int, int], list[str]]:
    """The labels of all images that can be decoded, by index, and what is wrong with the others."""

    def decode(index: int) -> int | str:
        try:
            return opened[index][1]
        except WisepatchError as error:
            return error.message

    labels: dict[int, int] = {}
    broken: list[str] = []
    progress.start(f"decoding {opened.task} ({opened.name})", len(opened))
    with ThreadPoolExecutor(DECODERS) as pool:
        for index, found in enumerate(_in_order(pool, decode, len(opened))):
            if isinstance(found, str):
                broken.append(found)
            else:
                labels[index] = found
            progress.advance()
    progress.finish()
    return labels, broken


def _in_order(pool: ThreadPoolExecutor, decode: Any, total: int) -> Iterator[int | str]:
    """Results in order, never more than a few images ahead: a set may be larger than the memory."""
    indices = iter(range(total))
    waiting = [pool.submit(decode, index) for index in islice(indices, 8 * DECODERS)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(decode, index) for index in islice(indices, 1)]


def download(dataset: Dataset, root: Path) -> None:
    """Fetch the data of a task that can be downloaded by program.

    Raises :class:`UsageError` for one that cannot, with where to get it, and :class:`DataError` where the download fails.
    """
    if dataset.gigabytes == 0 or not dataset.source.startswith("http"):
        return  # built in, or the user's own
    if not dataset.downloads:
        where = f"fetch it from {dataset.source}" if dataset.source else "ask its author where to get it"
        layouts = " or as ".join(dataset.layouts)
        raise UsageError(
            f"{dataset.name} cannot be downloaded by wisepatch",
            f"{where}{f' and put it below {root} as {layouts}' if layouts else ''}",
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the data folder {root} cannot be made: {error.strerror or error}", "name another with --data"
        ) from error
    with asked():
        for split in dataset.splits:
            dataset.split(split, root)
