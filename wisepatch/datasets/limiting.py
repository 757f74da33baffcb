"""Limit a split to some of its images (``--limit``): seeded, stratified by class, smaller choices within larger ones."""

from __future__ import annotations

from collections.abc import Sequence

from wisepatch.datasets.samples import Samples, Subset, annotations_of, labels_of

SEED_STREAM = 19  # the first number of every seed here, so that no other random numbers are the same


def limited(samples: Samples, limit: int) -> Samples:
    """Choose ``limit`` images, in the order of the split; ``samples`` themselves where these are no more.

    Each class gives one image, then as many as its share of the split. The seed is fixed, so that runs with different seeds see
    the same images. Sequences of frames stay whole: as many as have room, at least one. Where labels are not known
    without decoding, images are drawn at random.
    """
    if len(samples) <= limit:
        return samples
    sequences, labels = annotations_of(samples).sequences, labels_of(samples)
    if sequences is None:
        return Subset(samples, sorted(_stratified(labels or [0] * len(samples), limit)))
    chosen: set[int] = set()
    anchors = [labels[row[0]] if labels else 0 for row in sequences]
    for number in _stratified(anchors, len(anchors)):
        if chosen and len(chosen | set(sequences[number])) > limit:
            break
        chosen |= set(sequences[number])
    return Subset(samples, sorted(chosen))


def _stratified(labels: Sequence[int], limit: int) -> list[int]:
    """Return the places of ``limit`` labels: the first of each class, in random order, then by the share that was taken."""
    import numpy as np

    order = np.random.default_rng([SEED_STREAM, len(labels)]).permutation(len(labels))
    shuffled = np.asarray(labels)[order]
    by_class = np.argsort(shuffled, kind="stable")
    _, starts, sizes = np.unique(shuffled[by_class], return_index=True, return_counts=True)
    taken = np.empty(len(labels))
    taken[by_class] = (np.arange(len(labels)) - np.repeat(starts, sizes)) / np.repeat(sizes, sizes)
    places: list[int] = order[np.argsort(taken, kind="stable")[:limit]].tolist()
    return places
