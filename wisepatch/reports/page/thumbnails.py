"""Small pictures of images that are fixed and broken, as data in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wisepatch.counting import count
from wisepatch.errors import WisepatchError
from wisepatch.workflows.comparing import KINDS, Comparison, TaskComparison, changes_to_show, opened_split

if TYPE_CHECKING:
    from PIL import Image

SIDE = 112  # pixels of the longer side
QUALITY = 82  # of JPEG
MAX_BYTES = 2_200_000  # of all pictures of a page


@dataclass(frozen=True)
class Thumbnail:
    """An image as a ``data:`` address, and what is said of it."""

    source: str
    width: int
    height: int
    lines: tuple[str, ...]

    @property
    def words(self) -> str:
        """Return what a screen reader says."""
        return ", ".join(self.lines)


@dataclass(frozen=True)
class Gallery:
    """The images of a task that are fixed, or those that are broken; where none are shown, ``missing`` says why."""

    title: str
    images: list[Thumbnail]
    missing: str = ""


@dataclass
class Budget:
    """Count the bytes that the pictures of a page may still take."""

    left: int = field(default=MAX_BYTES)

    def take(self, size: int) -> bool:
        """Take ``size`` bytes, if there are so many; tell whether."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


def galleries(comparison: Comparison, data: Path, names: tuple[str, str], budget: Budget) -> Iterator[Gallery]:
    """Yield the images of each task that are fixed and broken, from all classes; ``names`` are those of the two models."""
    for task in comparison.tasks:
        if not (task.answers["change"] != "").any():
            continue
        try:
            opened = opened_split(comparison, task, data)
        except WisepatchError as error:
            yield Gallery(f"{task.task}: {_numbers(task)}", [], f"The images are not shown: {error.lines[0]}.")
            continue
        for kind in reversed(KINDS):
            (rows, number), images, missing = changes_to_show(task, kind), [], ""
            for index, row in rows.iterrows():
                said = [
                    f"{name}: {task.classes[row[when]]} ({100 * row[f'confidence_{when}']:.0f}\u00a0%)"
                    for name, when in zip(names, ("before", "after"), strict=True)
                ]
                try:
                    image, _ = opened[int(index)]  # type: ignore[call-overload]
                except WisepatchError as error:
                    missing = f"An image cannot be read: {error.lines[0]}."
                    continue
                shown = _thumbnail(image, (f"shows {task.classes[row['label']]}", *said))
                if not budget.take(len(shown.source)):
                    missing = "The page has no room for more pictures; `wisepatch compare --show` draws them."
                    break
                images.append(shown)
            if number:
                some = (
                    f", {len(images)} shown, from all classes, the surest mistakes first"
                    if len(images) < number
                    else ""
                )
                yield Gallery(f"{task.task}: {count(number, 'image')} {kind}{some}", images, missing)


def _numbers(task: TaskComparison) -> str:
    counted = {kind: int((task.answers["change"] == kind).sum()) for kind in KINDS}
    return f"{counted['fixed']} fixed, {counted['broken']} broken"


def _thumbnail(image: Image.Image, lines: tuple[str, ...]) -> Thumbnail:
    from PIL import Image

    scale = min(SIDE / max(image.size), 1)
    width, height = (max(round(side * scale), 1) for side in image.size)
    small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=QUALITY, optimize=True)
    source = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    larger = max(round(SIDE / max(width, height)), 1)  # whole pixels of small images
    return Thumbnail(source, width * larger, height * larger, lines)
