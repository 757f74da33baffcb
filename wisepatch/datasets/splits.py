"""Cut a validation split from training images: as the papers do, or by the names of a user's own files."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from wisepatch.datasets.samples import Samples, Subset

SPLITS = ("train", "val", "test")
ALL = "all"  # of them, to evaluate
VAL_FRACTION = 0.1
MAX_VAL_IMAGES = 5000
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
NAMED = re.compile(r"[A-Za-z0-9][\w.-]*")  # a split of a dataset's own, such as testA or val_unseen
TEST_SHARE, VAL_SHARE = 0.2, 0.1  # of a user's images, where they bring no such split; val is of what is not in test
SEED = 10448  # never to be changed: images would move
# Versions of the rule by which a user's files are cut and their labels ordered: 3 is today's, in 2 a split could stay empty, and 1
# is assumed for checkpoints that name none. A checkpoint keeps its version, and is measured on the same cut.
CUT, SECOND_CUT, FIRST_CUT = 3, 2, 1
NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


def cut_validation(samples: Samples, split: str) -> Subset:
    """Cut the ``train`` or ``val`` part from a training split that has no validation split of its own.

    A tenth, at most 5,000 images, by the permutation that ``torch.utils.data.random_split`` draws with seed 0
    (for MNIST's 60,000 images the first of ``train`` is image 36044).
    """
    import torch

    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    stays = len(order) - held_out(len(order))
    return Subset(samples, order[:stays] if split == "train" else order[stays:])


def split_problem(splits: Iterable[str]) -> str:
    """Return what is wrong with the names of splits; empty where all is well.

    Beside ``train``, ``val`` and ``test`` a dataset may have splits of its own (``testA``, ``val_unseen``), which are evaluated.
    """
    seen: set[str] = set()
    for split in splits:
        usual = SPLIT_WORDS.get(split.lower(), ALL if split.lower() == ALL else split)
        if usual == ALL:
            return f"{split!r} stands for all images"
        if usual != split:
            return f"{split!r} is called {usual!r}"
        if not NAMED.fullmatch(split):
            return f"{split!r} is no name of letters, digits, - . _"
        if split.lower() in seen:
            return f"{split!r} comes twice"
        seen.add(split.lower())
    return "" if seen else "there is none"


def number_of(split: str) -> int:
    """Return a number that tells a split from others: the place among the usual ones, or a hash of the name."""
    return SPLITS.index(split) if split in SPLITS else int.from_bytes(sha256(split.encode()).digest()[:8])


def held_out(size: int) -> int:
    """Return the number of images that are held out of ``size`` training images to validate."""
    return min(max(int(size * VAL_FRACTION), 1), MAX_VAL_IMAGES)


def split_of(name: str, missing: Iterable[str]) -> str:
    """Return the split of a user's training image, of those ``missing`` or ``train``, by a hash of its name or group alone.

    Whatever other images there are, it stays where it is; the shares are met in expectation.
    """
    drawn = draws(name)
    for split, share in (("test", TEST_SHARE), ("val", VAL_SHARE)):
        if split in missing and drawn[split] < share * 2**64:
            return split
    return "train"


def draws(name: str) -> dict[str, int]:
    """Return the numbers below 2**64 that are drawn for an image by its name or group; a small one holds it out."""
    text = name if name.isascii() else unicodedata.normalize("NFC", name)  # macOS writes accents in another way
    digest = sha256(f"{SEED} {text}".encode(errors="surrogateescape")).digest()
    return {"test": int.from_bytes(digest[:8]), "val": int.from_bytes(digest[8:16])}


def first_cut(
    root: Path, listed: list[tuple[str, str]], fraction: float
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Split off a fraction of every class, at least one image where that leaves two; return the rest and what is split off."""
    rest: list[tuple[str, str]] = []
    held_out: list[tuple[str, str]] = []
    of_label = defaultdict(list)
    for file in listed:
        of_label[file[1]].append(file)
    for files in of_label.values():
        files.sort(key=lambda file: sha256(os.fsencode(os.path.relpath(file[0], root))).digest())
        count = max(round(len(files) * fraction), 1) if len(files) > 2 else 0
        held_out += files[:count]
        rest += files[count:]
    return rest, held_out


def ordered_labels(labels: Iterable[str], cut: int = CUT) -> list[str]:
    """Sort labels as people do: ``2`` before ``10``, ``class_2`` before ``class_10``; numbers come first.

    In the first cut, numbers came first and the rest as text.
    """
    return sorted(labels, key=natural_key if cut > FIRST_CUT else _first_key)


def natural_key(label: str) -> tuple[object, ...]:
    """Return a key that sorts by the numbers in a text; equal ones, such as ``1`` and ``01``, by the text."""
    parts = re.split(r"([0-9]+)", label)
    by_numbers = [(len(part.lstrip("0")), part.lstrip("0")) if place % 2 else part for place, part in enumerate(parts)]
    return (0, float(label), label) if is_number(label) else (1, by_numbers, label)


def _first_key(label: str) -> tuple[int, int, str]:
    return (0, int(label), label) if label.isdecimal() and len(label) < 4000 else (1, 0, label)


def is_number(label: str) -> bool:
    """Tell whether a label is a number and no name: ``3``, ``-1``, ``2.0``."""
    return NUMBER.fullmatch(label) is not None
