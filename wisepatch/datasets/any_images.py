"""Images without labels: those that people name on the command line, and those that a program hands over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from wisepatch.counting import count
from wisepatch.datasets.csv_listing import SUFFIXES, URL, csv_images
from wisepatch.datasets.decoding import as_seen, read_rgb
from wisepatch.datasets.folder_listing import images_below
from wisepatch.datasets.notes import shortened
from wisepatch.errors import DataError, UsageError, out_of_memory
from wisepatch.files import expanded

READABLE, UNREADABLE = 0, 1


@dataclass(frozen=True)
class AnyImages:
    """Hold paths, PIL images and arrays as a map-style dataset; read as a viewer shows them: upright, transparent parts white.

    An array is ``(h, w)``, ``(h, w, 3)`` or ``(h, w, 4)``, of bytes or of floating point in [0, 1]; a tensor of torch may also be
    ``(3, h, w)``. The second of each pair is not a label, but 1 where the image cannot be read, and stands black there.
    """

    sources: Sequence[Any]
    transform: Callable[[Any], Any] | None = None
    managed: bool = False  # colours of files are converted to sRGB

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the image, transformed, and whether it can be read."""
        try:
            return self._transformed(self.open(index)), READABLE
        except ValueError:
            return self._blank, UNREADABLE

    def _transformed(self, image: Any) -> Any:
        return self.transform(image) if self.transform else image

    @cached_property
    def _blank(self) -> Any:
        from PIL import Image

        return self._transformed(Image.new("RGB", (64, 64)))

    def open(self, index: int) -> Any:
        """Return an image as 8-bit RGB. Raises :class:`ValueError` with the reason where it cannot be read."""
        source = self.sources[index]
        if isinstance(source, str | Path):
            return read_rgb(source, as_seen=True, managed=self.managed)
        return as_seen(source if hasattr(source, "getexif") else _from_array(source))

    def problem(self, index: int) -> str:
        """Return why an image cannot be read; empty where it can."""
        try:
            self._transformed(self.open(index))
        except ValueError as error:
            return " ".join(str(error).split()) or type(error).__name__
        except Exception as error:
            if out_of_memory(error):
                raise
            return type(error).__name__
        return ""

    def names(self) -> list[str]:
        """Return the paths, and ``image 3`` for what has none."""
        return [str(each) if isinstance(each, str | Path) else f"image {n}" for n, each in enumerate(self.sources)]


def _from_array(array: Any) -> Any:
    """Make a PIL image of an array. Raises :class:`ValueError` for one of another type or shape."""
    import numpy as np
    from PIL import Image

    if hasattr(array, "detach"):  # a tensor of torch, whose channels often come first
        array = array.detach().cpu()
        array = array.movedim(0, -1) if array.ndim == 3 and array.shape[0] in (1, 3, 4) else array
    array = np.asarray(array)
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"an array of shape {array.shape} is no image; give (height, width, 3)")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError("floating-point values of an image lie in [0, 1]")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"an array of {array.dtype} is no image; give bytes, or floating point in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array))


@dataclass
class ImageListing:
    """Hold the paths of images that were named, and what is no image in the folders, by reason."""

    paths: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def note(self) -> str:
        """Say how many files are left out, why, and which are the first; an empty text where none is."""
        reasons = "; ".join(f"{reason}: {shortened(names)}" for reason, names in self.left_out.items())
        number = sum(map(len, self.left_out.values()))
        return f"{count(number, 'file is', 'files are')} left out ({reasons})" if number else ""


def list_images(words: Iterable[Path | str], columns: Mapping[str, str] | None = None) -> ImageListing:
    """List the images that are named: files, folders with all that is below them, and CSVs (``columns`` as in other CSVs).

    Raises :class:`DataError` for a path that is not there, an address, and a folder or CSV without images.
    """
    listing = ImageListing()
    for word in words:
        if URL.match(str(word)):
            raise DataError(f"{word} is an address", "fetch the image, and name the file")
        path, before = expanded(word), len(listing.paths)
        try:
            if path.is_dir():
                below, left_out = images_below(path)
                listing.paths += below
                for reason, names in left_out.items():
                    listing.left_out.setdefault(reason, []).extend(names)
            elif path.suffix.lower() in SUFFIXES and path.exists():
                listing.paths += csv_images(path, columns)
            elif path.is_file():
                listing.paths.append(str(path))
        except OSError as error:
            raise DataError(
                f"{error.filename or path} cannot be read: {error.strerror}", "look at its permissions"
            ) from error
        if len(listing.paths) == before:
            exists = path.exists()
            problem = f"{word} holds no images" if exists else f"there is no image, folder or CSV {word}"
            raise DataError(problem, listing.note() if exists else "check the path")
    if not listing.paths:
        raise UsageError("no images are named", "name images, folders, or CSVs")
    return listing
