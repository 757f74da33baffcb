"""Cut a validation split from training images: as the papers do, or by class from a user's own files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from wisepatch.datasets.samples import Samples, Subset
from wisepatch.errors import DataError

SPLITS = ("train", "val", "test")
VAL_FRACTION = 0.1
MAX_VAL_IMAGES = 5000


def cut_validation(samples: Samples, split: str) -> Subset:
    """Cut the ``train`` or ``val`` part from a training split that has no validation split of its own.

    A tenth, at most 5,000 images, by the permutation that ``torch.utils.data.random_split`` draws with seed 0
    (for MNIST's 60,000 images the first of ``train`` is image 36044).
    """
    import torch

    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    stays = len(order) - held_out(len(order))
    return Subset(samples, order[:stays] if split == "train" else order[stays:])


def held_out(size: int) -> int:
    """Return the number of images that are held out of ``size`` training images to validate."""
    return min(max(int(size * VAL_FRACTION), 1), MAX_VAL_IMAGES)


def hold_out_files(
    root: Path, listed: list[tuple[Path, str]], fraction: float, split: str
) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """Split off a fraction of every class, at least one image where that leaves two; return the rest and what is split off."""
    rest, held_out = [], []
    for label in ordered_labels({label for _, label in listed}):
        files = [file for file in listed if file[1] == label]
        # In the order of a hash of the path below the folder: an image that is added moves few others.
        files.sort(key=lambda file: sha256(os.fsencode(os.path.relpath(file[0], root))).digest())
        count = max(round(len(files) * fraction), 1) if len(files) > 2 else 0
        held_out += files[:count]
        rest += files[count:]
    if not held_out:
        problem = f"{root}: too few images to hold out a {split} split, which takes three or more of a class"
        raise DataError(problem, f"add images, or name {split} images yourself")
    return rest, held_out


def ordered_labels(labels: Iterable[str]) -> list[str]:
    """Sort labels as numbers where all are, else as text (as class folders are by every image-folder reader)."""
    return sorted(labels, key=lambda label: (0, int(label), "") if label.isdecimal() else (1, 0, label))
