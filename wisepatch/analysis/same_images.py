"""Tasks that show the same images, such as ``Shapes`` and ``corrupt:Shapes``, or two folders with copies: they vary together.

The distances from values to their limits are squared and added where tasks have images of their own (Zou and Donner 2008), which
takes their errors for independent. Where tasks show the same images the distances are simply added: that holds however
closely their errors go together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.task_specs import unwrapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGES = "images"  # the column of results that names the task whose images a task shows, where its own name tells less
SUBSETS = re.compile(r"(ImageNet|CLEVR)\d+")  # few images a class to train on, and some of the counts
RESTRICTED = "ValClasses"  # ends the names of ImageNet's own images of the classes that a shift has
RESTRICTED_FROM = "ImageNet"


def images_of(task: str) -> str:
    """Return the task whose images a task shows: its own name, or that of what it corrupts, writes on, or takes a part of."""
    scheme, inner, _ = unwrapped(task)
    if scheme:
        return images_of(inner)
    if subset := SUBSETS.fullmatch(task):
        return subset[1]
    return RESTRICTED_FROM if task.endswith(RESTRICTED) else task


def shown_together(
    images: Mapping[str, Sequence[str]], share: Callable[[Sequence[str], Sequence[str]], bool]
) -> dict[str, str]:
    """Return by task the first one that it shows images of: by their names, or by the ids of their images, as ``share`` tells.

    Tasks that share none with each other, but with a third, are together too.
    """
    first: dict[str, str] = {}
    for task, ids in images.items():
        same = {first[other] for other in first if images_of(other) == images_of(task) or share(images[other], ids)}
        first[task] = next((each for each in first if each in same), task)
        first = {each: first[task] if of in same else of for each, of in first.items()}
    return first


def shown_by(row: Mapping[Any, Any]) -> str:
    """Return the name of the task whose images a row of results was measured on, as far as the row tells."""
    named = row.get(IMAGES)
    return named if isinstance(named, str) and named else str(row["task"])


def effective_number(clusters: Sequence[str]) -> float:
    """Return as how many independent images ``n`` count that belong together in clusters, were those of each all alike.

    It is ``n ** 2 / sum(sizes ** 2)``, the number of clusters where they are of one size (Kish 1965, section 8.2).
    """
    sizes = Counter(clusters).values()
    return len(clusters) ** 2 / sum(size**2 for size in sizes)


def combined(distances: NDArray[np.float64], tasks: Sequence[str] = ()) -> NDArray[np.float64]:
    """Combine distances ``(..., tasks)`` of values to their limits into that of the sum of the values.

    ``tasks`` names each task, or another with the same images; without them each counts as having images of its own.
    """
    import numpy as np

    shown: Sequence[Any] = [images_of(task) for task in tasks] or range(distances.shape[-1])
    added: dict[Any, Any] = {}
    for place, images in enumerate(shown):
        added[images] = added.get(images, 0.0) + distances[..., place]
    combined: NDArray[np.float64] = np.sqrt((np.stack(list(added.values()), -1) ** 2).sum(-1))
    return combined
