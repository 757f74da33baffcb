"""Tasks that show the same images, such as ``Shapes`` and ``corrupt:Shapes``: what they measure varies together.

The distances from values to their limits are squared and added where tasks have images of their own (Zou and Donner 2008), which
takes their errors for independent. Where tasks show the same images the distances are simply added: that holds however
closely their errors go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.task_specs import unwrapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESTRICTED = "ValClasses"  # ends the names of ImageNet's own images of the classes that a shift has
RESTRICTED_FROM = "ImageNet"


def images_of(task: str) -> str:
    """Return the task whose images a task shows: its own name, or that of what it corrupts, writes on, or takes a part of."""
    scheme, inner, _ = unwrapped(task)
    if scheme:
        return images_of(inner)
    return RESTRICTED_FROM if task.endswith(RESTRICTED) else task


def combined(distances: NDArray[np.float64], tasks: Sequence[str] = ()) -> NDArray[np.float64]:
    """Combine distances ``(..., tasks)`` of values to their limits into that of the sum of the values.

    Without the names of the tasks each counts as having images of its own.
    """
    import numpy as np

    shown: Sequence[Any] = [images_of(task) for task in tasks] or range(distances.shape[-1])
    added: dict[Any, Any] = {}
    for place, images in enumerate(shown):
        added[images] = added.get(images, 0.0) + distances[..., place]
    combined: NDArray[np.float64] = np.sqrt((np.stack(list(added.values()), -1) ** 2).sum(-1))
    return combined
