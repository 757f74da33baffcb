"""Limit a split to some of its images (``--limit``): seeded, stratified by class, smaller choices within larger ones."""

from __future__ import annotations

from collections.abc import Sequence

from wisepatch.datasets.samples import Samples, Subset, annotations_of, labels_of

SEED_STREAM = 19  # the first number of every seed here, so that no other random numbers are the same


def limited(samples: Samples, limit: int, *, every_class: bool = True) -> Samples:
    """Choose ``limit`` images, in the order of the split; ``samples`` themselves where these are no more.

    With ``every_class``, as for training, each class gives one image, then as many as its share of the split. Without, each gives
    its share alone, on average: what is measured on the images is then about the whole split, however rare some classes are. Where
    classes are of one size both choose the same. The seed is fixed, so that runs with different seeds see
    the same images. Sequences of frames stay whole: as many as have room, at least one. Where labels are not known
    without decoding, images are drawn at random.
    """
    if len(samples) <= limit:
        return samples
    sequences, labels = annotations_of(samples).sequences, labels_of(samples)
    if sequences is None:
        return Subset(samples, sorted(_stratified(labels or [0] * len(samples), limit, every_class=every_class)))
    chosen: set[int] = set()
    anchors = [labels[row[0]] if labels else 0 for row in sequences]
    for number in _stratified(anchors, len(anchors), every_class=every_class):
        if chosen and len(chosen | set(sequences[number])) > limit:
            break
        chosen |= set(sequences[number])
    return Subset(samples, sorted(chosen))


def _stratified(labels: Sequence[int], limit: int, *, every_class: bool) -> list[int]:
    """Return the places of ``limit`` labels, by the share of their class that was taken before them.

    Without ``every_class`` each has a random place within its own share: the first of a rare class may come late.
    """
    import numpy as np
    from scipy.special import betainc

    order = np.random.default_rng([SEED_STREAM, len(labels)]).permutation(len(labels))
    shuffled = np.asarray(labels)[order]
    by_class = np.argsort(shuffled, kind="stable")
    _, starts, sizes = np.unique(shuffled[by_class], return_index=True, return_counts=True)
    size, before = np.repeat(sizes, sizes), np.arange(len(labels)) - np.repeat(starts, sizes)
    # The place in the shuffle of the k-th image of a class, as a number that is uniform between 0 and 1.
    within = 0.0 if every_class else betainc(before + 1, size - before, (by_class + 0.5) / len(labels))
    taken = np.empty(len(labels))
    taken[by_class] = (before + within) / size
    places: list[int] = order[np.argsort(taken, kind="stable")[:limit]].tolist()
    return places
