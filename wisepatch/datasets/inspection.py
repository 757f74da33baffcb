"""Look at a split closely: how many images, how they spread over the classes, whether they can be decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wisepatch.counting import count
from wisepatch.datasets.base import Dataset
from wisepatch.datasets.decoding import is_turned
from wisepatch.datasets.duplicates import Place, pixel_digest, same_files, same_pixels
from wisepatch.datasets.image_files import DECODERS, unreadable
from wisepatch.datasets.published.readers import asked
from wisepatch.datasets.samples import Split, labels_of, own_files
from wisepatch.errors import DataError, EmptySplitError, MissingDataError, UsageError, WisepatchError
from wisepatch.progress import Progress, Silent

IMAGES_AHEAD = 1024  # that are waiting for a thread at most


@dataclass(frozen=True)
class Report:
    """Describe a split. ``expected`` is the publisher's number of images, ``broken`` holds the errors of undecodable ones."""

    task: str
    split: str
    images: int
    expected: int | None
    classes: int
    per_class: dict[str, int] | None  # in the order of the classes; None where the labels would need every image
    sample: str
    turned: int = 0  # images that are turned as their EXIF orientation says
    broken: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Missing:
    """Describe a split that is not there, of a task of which others are."""

    task: str
    split: str
    reason: str
    hint: str


@dataclass
class Inspection:
    """Hold what was found of a task: its splits, those that are missing, what is wrong, and the images that come twice.

    ``same`` are the groups of equal images in several splits or under several labels, by what is equal: ``bytes`` or ``pixels``.
    """

    dataset: Dataset
    reports: list[Report] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    problems: list[WisepatchError] = field(default_factory=list)
    same: dict[str, list[list[Place]]] = field(default_factory=dict)


def inspect_all(
    dataset: Dataset, splits: Iterable[str], root: Path, *, deep: bool = False, progress: Progress | None = None
) -> Inspection:
    """Inspect splits one by one, as :func:`inspect` does: one that is missing or broken does not hide the others."""
    found = Inspection(dataset)
    pixels: dict[Place, str] = {}
    absent: dict[str, WisepatchError] = {}
    for split in splits:
        try:
            found.reports.append(inspect(dataset, split, root, deep=deep, progress=progress, pixels=pixels))
        except (EmptySplitError, MissingDataError) as error:
            reason = getattr(error.__cause__, "message", error.message)  # without the name of the task and the place
            found.missing.append(Missing(dataset.name, split, reason, error.hint))
            if isinstance(error, MissingDataError):
                absent[error.message] = error
        except WisepatchError as error:
            if error.message not in [problem.message for problem in found.problems]:
                found.problems.append(error)
    if absent and not found.reports:
        found.missing, found.problems = [], [*absent.values(), *found.problems]
    found.same["bytes"] = same_files(dataset, root)
    known = {frozenset(place.name for place in group) for group in found.same["bytes"]}
    found.same["pixels"] = [g for g in same_pixels(pixels) if frozenset(place.name for place in g) not in known]
    return found


def inspect(
    dataset: Dataset,
    split: str,
    root: Path,
    *,
    deep: bool = False,
    progress: Progress | None = None,
    pixels: dict[Place, str] | None = None,
) -> Report:
    """Open a split, count images and classes, decode one image; with ``deep`` all of them, going on after broken ones.

    A user's own images are read as before a training. With ``deep`` the digest of each image's pixels is put into ``pixels``,
    where given.

    Raises :class:`DataError` where the data is missing, the first image cannot be decoded, or a label is out of range.
    """
    with asked(wanted=False):  # a look fetches nothing
        opened = dataset.split(split, root)
    labels = labels_of(opened.samples)
    if deep:
        decoded, broken = _decode_all(opened, progress or Silent(), {} if pixels is None else pixels)
        whole, labels = sorted(decoded), list(decoded.values())
    else:
        bad = unreadable(opened)
        broken = [f"image {file} cannot be read: {reason}" for file, reason in bad.items()]
        whole = [place for place, file in enumerate(own_files(opened)) if file not in bad] if bad else [0]
    if not whole:
        problem = f"{dataset.name} ({split}): no image can be decoded; the first: {broken[0]}"
        raise DataError(problem, "fetch it again")
    image, label = opened[whole[0]]
    size = len(dataset.classes)
    outside = next((each for each in labels or [label] if not 0 <= each < size), None)
    if outside is not None:
        problem = f"{dataset.name} ({split}) has the label {outside}, and {count(size, 'class', 'classes')}"
        raise DataError(problem, "fetch the data again, or report it to the task's author")
    counts = Counter(labels)
    names = enumerate(dataset.classes)
    per_class = None if labels is None else {f"{index} {name}": counts[index] for index, name in names}
    sample = f"{image.width} x {image.height}, {dataset.classes[label]}"
    return Report(
        dataset.name, split, len(opened), dataset.expected(split), size, per_class, sample, turned(opened), broken
    )


def turned(opened: Split) -> int:
    """Return how many images of a user's own are turned as their EXIF orientation says."""
    return sum(map(is_turned, own_files(opened)))


def _decode_all(opened: Split, progress: Progress, pixels: dict[Place, str]) -> tuple[dict[int, int], list[str]]:
    """Return the labels of all images that can be decoded, by index, and the errors of the others; fill ``pixels``."""
    names = opened.image_ids()

    def decode(index: int) -> int | str:
        try:
            image, label = opened[index]
            pixels[Place(opened.name, names[index], label)] = pixel_digest(image)
            return label
        except WisepatchError as error:
            return error.message

    labels: dict[int, int] = {}
    broken: list[str] = []
    progress.start(f"decoding {opened.task} ({opened.name})", len(opened))
    with ThreadPoolExecutor(DECODERS) as pool:
        for start in range(0, len(opened), IMAGES_AHEAD):
            indices = range(start, min(start + IMAGES_AHEAD, len(opened)))
            for index, outcome in zip(indices, pool.map(decode, indices), strict=True):
                if isinstance(outcome, str):
                    broken.append(outcome)
                else:
                    labels[index] = outcome
                progress.advance()
    progress.finish()
    return labels, broken


def download(dataset: Dataset, root: Path) -> None:
    """Fetch the data of a task that can be downloaded by program.

    Raises :class:`UsageError` for one that cannot, with where to get it, and :class:`DataError` where the download fails.
    """
    if dataset.gigabytes == 0 or not dataset.source.startswith("http"):
        return  # built in, or the user's own
    if not dataset.downloads:
        try:
            with asked(wanted=False):
                dataset.split(dataset.splits[-1], root)
        except MissingDataError as error:
            raise UsageError(f"{dataset.name} cannot be downloaded by wisepatch", error.hint) from error
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"the data folder {root} cannot be made: {error.strerror or error}"
        raise UsageError(problem, "name another with --data") from error
    with asked():
        for split in dataset.splits:
            dataset.split(split, root)
