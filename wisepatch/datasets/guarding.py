"""Hold what a dataset gives to its contract: whatever is wrong is one error that names the dataset and the image."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from wisepatch.counting import count
from wisepatch.datasets.decoding import forbid_other_programs
from wisepatch.datasets.samples import (
    Annotations,
    Samples,
    Transform,
    annotations_of,
    fingerprint,
    image_ids,
    images_of,
    labels_of,
    set_epoch,
)
from wisepatch.errors import DataError, WisepatchError, out_of_memory

ITS_AUTHOR = "tell the author of this task; `wisepatch plugins check` says what a task has to give"
THE_FILE = "replace or remove the file, then run the command again"
UNREADABLE = (OSError, SyntaxError, ValueError)  # raised for broken files


class BrokenDatasetError(DataError):
    """A dataset that breaks the contract, or raises something that its author did not foresee."""


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn any error within, and an exit of the program, into a :class:`DataError` about ``what``; memory that runs out stays."""
    try:
        yield
    except WisepatchError:
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        if isinstance(error, Exception) and out_of_memory(error):
            raise
        of_file = isinstance(error, UNREADABLE)
        reason = f"{error}" if of_file and str(error) else f"{type(error).__name__}: {error}"
        raise BrokenDatasetError(
            f"{what}: {' '.join(reason.split())[:300]}", THE_FILE if of_file else ITS_AUTHOR
        ) from error


@dataclass(frozen=True)
class Guarded:
    """Samples that keep to the contract of :class:`~wisepatch.datasets.samples.Samples`, or raise :class:`DataError`.

    ``name`` tells the dataset and the split in errors, ``size`` is the number of images that it gave when it was opened.
    """

    samples: Samples
    name: str
    size: int
    classes: int
    transform: Transform | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what else the samples have, unchecked."""
        if name.startswith("_") or "samples" not in self.__dict__:  # asked for while it is unpickled
            raise AttributeError(name)
        return getattr(self.samples, name)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return image and label, checked."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        forbid_other_programs()
        with guarded(f"{self.name}: image {index} cannot be read"):
            item: Any = self.samples[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise self._broken(f"image {index} is given as {_kind(item)}, not as a pair of image and label")
        image, label = item
        self._check_image(image, index)
        return image, self._class(label, f"the label of image {index}")

    def _check_image(self, image: Any, index: int) -> None:
        kind, form = self._expected
        if not isinstance(image, kind):
            wanted = "a PIL image" if self.transform is None else f"a {kind.__name__}, as the transform makes it"
            raise self._broken(f"image {index} is {_kind(image)}, not {wanted}")
        if form and _form(image) != form:
            raise self._broken(f"image {index} is {_form(image)}, and the transform makes {form}")

    @cached_property
    def _expected(self) -> tuple[type, str]:
        """The type of every image, with the form of tensors; any type where the transform fails on the small one it is tried on."""
        from PIL import Image

        if self.transform is None:
            return Image.Image, ""
        torch: Any = sys.modules.get("torch")
        state = torch.get_rng_state() if torch else None  # of random crops
        try:
            example = self.transform(Image.new("RGB", (8, 8)))
        except Exception:  # noqa: BLE001 -- whatever the transform says of it
            return object, ""
        finally:
            if torch:
                torch.set_rng_state(state)
        return type(example), _form(example)

    def _class(self, value: Any, what: str) -> int:
        """Return a class as an integer, checked."""
        try:
            number = operator.index(value)
        except TypeError:
            raise self._broken(f"{what} is {_kind(value)}, not an integer") from None
        if not 0 <= number < self.classes:
            outside = f"outside the {count(self.classes, 'class', 'classes')}, counted from 0"
            raise self._broken(f"{what} is {_kind(number)}, which is {outside}")
        return number

    @cached_property
    def labels(self) -> list[int] | None:
        """The labels of all images, where they are known without decoding."""
        with guarded(f"{self.name}: the labels cannot be read"):
            labels = labels_of(self.samples)
        return (
            None
            if labels is None
            else [self._class(label, f"the label of image {i}") for i, label in enumerate(labels)]
        )

    @property
    def annotations(self) -> Annotations:
        """The annotations of the images, checked."""
        with guarded(f"{self.name}: the annotations cannot be read"):
            annotations: Any = annotations_of(self.samples)
            problem = annotation_problem(annotations, self.size, self.classes)
        if problem:
            raise self._broken(problem)
        checked: Annotations = annotations
        return checked

    def fingerprint(self) -> str:
        """Return the fingerprint of the samples."""
        with guarded(f"{self.name}: the fingerprint cannot be made"):
            return fingerprint(self.samples)

    def images(self) -> tuple[object, ...] | None:
        """Return a value that tells these images from others, whatever their labels."""
        with guarded(f"{self.name}: the images cannot be told"):
            return images_of(self.samples)

    def image_ids(self) -> list[str]:
        """Return a name for each image."""
        with guarded(f"{self.name}: the ids of the images cannot be read"):
            ids = [str(each) for each in image_ids(self.samples)]
        if len(ids) != self.size:
            raise self._broken(f"it gives {count(len(ids), 'id')} for {count(self.size, 'image')}")
        return ids

    def set_epoch(self, epoch: int) -> None:
        """Tell the samples which epoch it is."""
        with guarded(f"{self.name}: epoch {epoch} cannot be set"):
            set_epoch(self.samples, epoch)

    def _broken(self, problem: str) -> DataError:
        return BrokenDatasetError(f"{self.name}: {problem}", ITS_AUTHOR)


def _kind(value: Any) -> str:
    """Return the type of a value for people; of a number the number."""
    if isinstance(value, int) and abs(value) > sys.maxsize:  # Python does not even print one of 5,000 digits
        return "a huge integer"
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def _form(image: Any) -> str:
    """Return type and shape of a tensor; empty for anything else, whose shape may depend on the image."""
    return f"{image.dtype} {tuple(image.shape)}" if type(image).__name__ == "Tensor" else ""


def open_guarded(
    open_split: Callable[..., Any], task: str, classes: int, split: str, root: Path, transform: Transform | None
) -> Guarded:
    """Open a split of a dataset. Raises :class:`DataError` where that fails or gives no map-style dataset."""
    name = f"{task} ({split})"
    with guarded(f"{name} cannot be opened"):
        samples = open_split(split, root, transform)
    if not hasattr(samples, "__len__") or not hasattr(samples, "__getitem__"):
        raise BrokenDatasetError(
            f"{name} is opened as {_kind(samples)}, which has no length or no images by index", ITS_AUTHOR
        )
    with guarded(f"{name}: its length cannot be read"):
        size = len(samples)
    return Guarded(samples, name, size, classes, transform)


def annotation_problem(annotations: Any, images: int, classes: int) -> str:
    """Return what is wrong with the lengths and the numbers of annotations; empty where all is well."""
    if not isinstance(annotations, Annotations):
        return f"the annotations are {_kind(annotations)}, not wisepatch.Annotations"
    for name in ("groups", "accepted", "written", "corruption", "clusters"):
        values: Sequence[Any] | None = getattr(annotations, name)
        if values is not None and len(values) != images:
            return f"{name} has {count(len(values), 'entry', 'entries')} for {count(images, 'image')}"
    written = annotations.written if isinstance(annotations.written, list | tuple) else None  # others may decode images
    for name, numbers, least, bound, things in (  # -1: none
        ("groups", annotations.groups, -1, len(annotations.group_names), "group names"),
        ("written", written, -1, classes, "classes"),
        ("accepted", chain.from_iterable(annotations.accepted or ()), 0, classes, "classes"),
        ("sequences", chain.from_iterable(annotations.sequences or ()), 0, images, "images"),
    ):
        given: Any = () if numbers is None else numbers
        wrong = next((number for number in given if not least <= operator.index(number) < bound), None)
        if wrong is not None:
            return f"{name} has {wrong}, which is outside the {bound} {things}; they are counted from 0"
    return ""
