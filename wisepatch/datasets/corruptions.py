"""Corrupted images: the fifteen common corruptions at five severities, as a task of its own, ``corrupt:NAME[:KIND[:SEVERITY]]``.

Hendrycks and Dietterich 2019 (arXiv 1903.12261). Each image is seen once: its kind and severity, where these are not given, and all
that is random follow from its name alone, not from the order or the number of workers. So images stay independent, and
intervals and paired tests hold; the mean over kinds and severities is met in expectation, at the price of a clean task.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from wisepatch.datasets.base import Dataset
from wisepatch.datasets.corruption_parameters import KINDS, SEVERITIES
from wisepatch.datasets.corruption_pictures import corrupt
from wisepatch.datasets.samples import (
    Annotations,
    Samples,
    Transform,
    annotations_of,
    fingerprint,
    image_ids,
    labels_of,
    own_files,
)
from wisepatch.datasets.samples import set_epoch as set_epoch_of
from wisepatch.errors import DataError, UnknownNameError, UsageError

PREFIX = "corrupt:"
VERSION = 2  # of the pictures; another one has answers of its own
SEED_STREAM = 23  # the first number of every seed here, so that no other random numbers are the same


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption and a severity from 1 to 5; each is drawn for each image where it is ``None``."""

    kind: str | None = None
    severity: int | None = None

    def __str__(self) -> str:
        """Return it as it ends the word for a task: ``:fog:3``, ``:fog``, or nothing."""
        return "".join(f":{part}" for part in (self.kind, self.severity) if part is not None)

    @property
    def choices(self) -> list[tuple[int, int]]:
        """List what an image may get: numbers of kinds, and severities."""
        kinds = range(len(KINDS)) if self.kind is None else [KINDS.index(self.kind)]
        return [(kind, level) for kind in kinds for level in ([self.severity] if self.severity else SEVERITIES)]


def split_corruption(word: str) -> tuple[str, Corruption]:
    """Take ``:KIND`` or ``:KIND:SEVERITY`` off the end of a word, where there is a kind that is known."""
    name, colon, last = word.rpartition(":")
    if colon and _kind(last):
        return name, Corruption(_kind(last))
    inner, colon, kind = name.rpartition(":")
    if colon and _kind(kind) and last.isdecimal():
        if int(last) not in SEVERITIES:
            raise UsageError(f"there is no severity {last} of {_kind(kind)}", "severities are 1 to 5")
        return inner, Corruption(_kind(kind), int(last))
    return word, Corruption()


def unknown_corruption(word: str) -> UnknownNameError | UsageError:
    """Return the error for a word that ends in what is no kind or severity, of a task that is known."""
    name, _, last = word.rpartition(":")
    inner, corruption = split_corruption(name)
    if corruption.kind and corruption.severity is None:
        return UsageError(f"there is no severity {last!r} of {corruption.kind}", "severities are 1 to 5")
    if last.isdecimal():
        return UsageError(f"the severity {last} is of no kind", f"name one: {PREFIX}{inner}:fog:{last}")
    return UnknownNameError("corruption", last, KINDS, f"corruptions are {', '.join(KINDS)}")


def _kind(word: str) -> str | None:
    plain = word.strip().lower().replace("-", "_")
    return plain if plain in KINDS else None


def corrupted(dataset: Dataset, corruption: Corruption | None = None) -> Dataset:
    """Make the task ``corrupt:<name>``: the images of ``dataset``, corrupted; its own classes, labels, splits, prompts, metric.

    With several kinds or severities it also reports ``worst_corruption`` and the accuracy on each, and of ImageNet under all of
    them ``mce``. It needs as many images as there are kinds, or severities of one. Raises :class:`UsageError` for a task whose
    images are corrupted already.
    """
    corruption = corruption or Corruption()
    inner: Dataset | None = dataset
    while inner:
        if isinstance(inner.open, CorruptedOpener):
            raise UsageError(f"the images of {dataset.name} are corrupted already", f"leave one {PREFIX} out")
        inner = getattr(inner.open, "dataset", None)
    kinds = {kind for kind, _ in corruption.choices}
    further: tuple[str, ...] = ("worst_corruption",) if len(corruption.choices) > 1 else ()
    further += ("mce",) if dataset.name == "ImageNet" and len(kinds) > 1 else ()
    return replace(
        dataset,
        name=f"{PREFIX}{dataset.name}{corruption}",
        open=CorruptedOpener(dataset, corruption),
        extra_metrics=(*dataset.extra_metrics, *further),
        aliases=(),
        zeroshot={},
        min_images=len(kinds) if len(kinds) > 1 else len(corruption.choices),
    )


@dataclass(frozen=True)
class CorruptedOpener:
    """``open`` of a corrupted task: equal for equal tasks, and known to workers that are spawned."""

    dataset: Dataset
    corruption: Corruption

    def __call__(self, split: str, root: Path, transform: Transform | None = None) -> CorruptedSamples:
        """Open a split of the clean task, and corrupt its images."""
        return CorruptedSamples(self.dataset.open_guarded(split, root), split, self.corruption, transform)

    def around(self, dataset: Dataset) -> Dataset:
        """Make the same task of another ``dataset``."""
        return corrupted(dataset, self.corruption)


class CorruptedSamples:
    """Images of a split, corrupted. What an image gets is fixed; in training its random numbers change by the epoch."""

    def __init__(
        self, samples: Samples, split: str, corruption: Corruption, transform: Transform | None = None
    ) -> None:
        """Wrap ``samples``, which give images without a transform; ``transform`` follows the corruption."""
        self.samples, self.split, self.corruption, self.transform = samples, split, corruption, transform
        self.epoch: int | None = None
        names = [f"{SEED_STREAM} {split} {name}" for name in _names(image_ids(samples))]
        digests = [sha256(name.encode(errors="surrogateescape")).digest() for name in names]
        choices = corruption.choices
        self.drawn = [choices[int.from_bytes(digest[:8]) % len(choices)] for digest in digests]
        self.seeds = [int.from_bytes(digest[8:16]) for digest in digests]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the corrupted image ``index`` and its label. Raises :class:`DataError` for one that is far too narrow."""
        import numpy as np

        image, label = self.samples[index]
        kind, severity = self.drawn[index]
        epoch = 0 if self.epoch is None else self.epoch + 1
        rng = np.random.default_rng([SEED_STREAM, self.seeds[index], epoch])  # the same for all kinds and severities
        try:
            image = corrupt(image if image.mode == "RGB" else image.convert("RGB"), KINDS[kind], severity, rng)
        except ValueError as error:
            name = image_ids(self.samples)[index]
            raise DataError(f"image {name} cannot be corrupted: {error}", "crop or remove it") from error
        return (self.transform(image) if self.transform else image), label

    def set_epoch(self, epoch: int) -> None:
        """Draw other noise, as training does each epoch; the same epoch gives the same, also after a resume."""
        self.epoch = epoch
        set_epoch_of(self.samples, epoch)

    def image_ids(self) -> list[str]:
        """Name each image as the clean task does."""
        return image_ids(self.samples)

    def own_files(self) -> list[str]:
        """Return the files of the clean images, where they are a user's own."""
        return own_files(self.samples)

    @property
    def labels(self) -> Sequence[int] | None:
        """The labels of all images, where they are known without decoding one."""
        return labels_of(self.samples)

    @property
    def annotations(self) -> Annotations:
        """Annotations of the images, and the corruption of each."""
        return replace(annotations_of(self.samples), corruption=self.drawn)

    def fingerprint(self) -> str:
        """Return a text that differs for other images, and for another corruption of the same."""
        return f"corrupted {VERSION} {self.corruption} {self.split} {self.epoch} on {fingerprint(self.samples)}"


def _names(ids: Sequence[str]) -> list[str]:
    """Return names of images that stay the same where a folder is moved as a whole."""
    if not ids or not all(os.path.isabs(each) for each in ids):  # noqa: PTH117 -- of a million
        return list(ids)
    root = os.path.commonpath([os.path.dirname(each) for each in ids])  # noqa: PTH120
    return [os.path.relpath(each, root).replace(os.sep, "/") for each in ids]
