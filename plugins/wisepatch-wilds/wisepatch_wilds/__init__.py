"""FMoW and iWildCam of WILDS (Koh et al. 2021, arXiv 2012.07421) for wisepatch, read from the files that WILDS publishes.

The two real-world shifts of WiSE-FT (section 4). Each is two tasks of the same classes: one in distribution, with the
training images, and one out of distribution (``FMoWOOD``, ``iWildCamOOD``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import wisepatch as wp
from wisepatch_wilds import fmow, iwildcam

if TYPE_CHECKING:
    from wisepatch.datasets.base import Dataset


@wp.hookimpl
def register_datasets() -> list[Dataset]:
    """FMoW, FMoWOOD, iWildCam and iWildCamOOD."""
    return [*fmow.datasets(), *iwildcam.datasets()]
