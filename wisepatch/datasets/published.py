"""What all families of published datasets share: torchvision opens them, and its failures become plain words."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from wisepatch.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from wisepatch.datasets.base import Samples, Transform


def open_torchvision(
    class_name: str, task: str, root: Path, transform: Transform | None, source: str, **arguments: Any
) -> Samples:
    """Open ``torchvision.datasets.<class_name>`` below ``root``, downloading it as torchvision does.

    Raises :class:`DataError` that says what to fetch, from where and into which folder.
    """
    import torchvision.datasets

    make = getattr(torchvision.datasets, class_name)
    arguments["transform"] = RgbTransform(transform)
    try:
        return _open(make, root, arguments, download=False)
    except (OSError, RuntimeError):  # torchvision's words for "not there, or not whole"
        pass
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints; stdout is for results
            return _open(make, root, arguments, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a corrupt archive is a RuntimeError
        reason = " ".join(str(error).split())
        raise DataError(
            f"{task} is not below {root} and could not be downloaded: {reason}",
            f"fetch it from {source} and put it below {root} as torchvision.datasets.{class_name} expects it",
        ) from error


def _open(make: Any, root: Path, arguments: dict[str, Any], *, download: bool) -> Samples:
    samples: Samples = make(str(root), download=download, **arguments)
    return samples


class RgbTransform:
    """Convert to RGB, then transform: greyscale sets reach the model as every other. A class, so that workers can be spawned."""

    def __init__(self, transform: Transform | None) -> None:
        """Keep the transform that follows; ``None`` gives the RGB image."""
        self.transform = transform

    def __call__(self, image: Any) -> Any:
        """Convert and transform one PIL image."""
        image = image.convert("RGB")
        return self.transform(image) if self.transform else image
