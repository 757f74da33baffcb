"""Read image files as samples, and find those of a user's own that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from wisepatch.counting import count
from wisepatch.datasets.decoding import check_header, read_rgb
from wisepatch.datasets.notes import printable, shortened, tell_once
from wisepatch.datasets.samples import Annotations, Split, Transform, own_files
from wisepatch.errors import DataError

DECODERS = 4  # threads; Pillow decodes outside Python's lock
MOST_DECODED_BYTES = 200 << 20  # before a training, which takes some seconds
REPLACE_IT = "replace it or take it out, then run again"
SKIP_IT = "; --on-bad-image skip leaves out what cannot be read"


@dataclass(frozen=True)
class FileSamples:
    """Read image files, or the boxes in them (left, upper, right, lower, in pixels), as RGB when they are asked for.

    A user's own images are read ``as_seen``: turned upright, transparent parts white. Published ones stay as they are stored.
    """

    files: Sequence[tuple[Path | str, int]]
    transform: Transform | None = None
    annotations: Annotations | None = None
    boxes: Sequence[tuple[int, int, int, int]] | None = None
    as_seen: bool = False
    managed: bool = False  # colours converted to sRGB

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> list[int]:
        """Return the labels of all files."""
        return [label for _, label in self.files]

    def images(self) -> tuple[object, ...]:
        """Return a value that tells these images, transformed, from others, whatever their labels."""
        return (id(self.transform), self.as_seen, self.managed, *self.image_ids())

    def image_ids(self) -> list[str]:
        """Return the paths of all files as they were given, with the boxes where there are any."""
        if self.boxes is None:
            return [str(path) for path, _ in self.files]
        return [f"{path}#{','.join(map(str, box))}" for (path, _), box in zip(self.files, self.boxes, strict=True)]

    def fingerprint(self) -> str:
        """Return names, labels, sizes and times of change of all images."""
        try:
            stats = [Path(path).stat() for path, _ in self.files]
        except OSError as error:
            raise DataError(f"image {error.filename} cannot be read: {error.strerror}", REPLACE_IT) from error
        rows = zip(self.image_ids(), self.labels, stats, strict=True)
        text = str([(name, label, stat.st_size, stat.st_mtime_ns) for name, label, stat in rows])
        return f"{'as seen, ' * self.as_seen}{'managed, ' * self.managed}{text}"

    def own_files(self) -> list[str]:
        """Return the paths of all files, where they are a user's own."""
        return [str(path) for path, _ in self.files] if self.as_seen else []

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image and its label; a file that is no image is a :class:`DataError` that names it."""
        path, label = self.files[index]
        try:
            image = read_rgb(path, as_seen=self.as_seen, managed=self.managed)
            image = image if self.boxes is None else image.crop(self.boxes[index])
        except ValueError as error:
            hint = REPLACE_IT + (SKIP_IT if self.as_seen else "")
            raise DataError(f"image {path} cannot be read: {error}", hint) from error
        try:
            return (self.transform(image) if self.transform else image), label
        except ValueError as error:
            raise DataError(f"image {path} cannot be read: {error}", REPLACE_IT) from error


def unreadable(split: Split, *, decode: bool = True) -> dict[str, str]:
    """Return the files of a user's own that are broken or no images, each with the reason.

    To ``decode`` all of them takes at most :data:`MOST_DECODED_BYTES` together; of more, and without it, the header alone is read.
    """
    files = own_files(split)
    sizes = (Path(file).stat().st_size for file in files if Path(file).exists())
    whole = decode and sum(sizes) <= MOST_DECODED_BYTES
    with ThreadPoolExecutor(DECODERS) as pool:
        problems = list(pool.map(_problem if whole else _problem_of_header, files))
    return {file: problem for file, problem in zip(files, problems, strict=True) if problem}


def check_readable(split: Split, *, decode: bool = True) -> None:
    """Raise :class:`DataError` that names the images of a user's own that :func:`unreadable` finds in a split."""
    if bad := unreadable(split, decode=decode):
        number, listed = count(len(bad), "image"), shortened([f"{file} ({reason})" for file, reason in bad.items()])
        raise DataError(f"{split.task} ({split.name}): {number} cannot be read: {listed}", REPLACE_IT + SKIP_IT)


def readable(where: str, files: Sequence[Path | str]) -> list[int]:
    """Return the places of the files that can be decoded, and warn of the number and the names of the others."""
    with ThreadPoolExecutor(DECODERS) as pool:
        problems = list(pool.map(_problem, map(str, files)))
    bad = [printable(str(file)) for file, problem in zip(files, problems, strict=True) if problem]
    if bad:
        tell_once(f"{where}: {len(bad)} of {len(files)} images cannot be read and are skipped: {', '.join(bad)}")
    return [place for place, problem in enumerate(problems) if not problem]


@cache
def _problem(file: str) -> str:
    return _reason(partial(read_rgb, file, as_seen=True))


def _problem_of_header(file: str) -> str:
    return _reason(partial(check_header, file))


def _reason(read: Callable[[], object]) -> str:
    try:
        read()
    except ValueError as error:
        return str(error) or type(error).__name__
    return ""
