"""Synthetic sweeps shaped like the published ones: answers image by image, of a population whose accuracies are known.

An image has a smooth random height at every alpha (a Gaussian process); it is right where its height lies below the quantile of the
population's accuracy. So the accuracies are the published ones at every alpha, and the answers to neighbouring alphas
are as alike as ``length`` says: broken and fixed images come along, as they do in real sweeps.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import norm

from wisepatch.store.results import read

DATA = Path(__file__).parent / "data"
ALPHAS = np.round(np.linspace(0, 1, 101), 2)
PAINT, WISE_FT = "paint-vitb32-mnist", "wiseft-vitb16-imagenet"
LENGTHS = (0.3, 1.0)  # of the process, in alphas: many images change, few do


@dataclass(frozen=True)
class Population:
    """The true accuracies by alpha: of the patching task ``(alphas,)``, of the supported ones ``(tasks, alphas)``."""

    patching: np.ndarray
    supported: np.ndarray

    @property
    def drops(self):
        """The drop of each supported task from alpha 0, ``(tasks, alphas)``."""
        return self.supported[:, :1] - self.supported

    @property
    def accuracies(self):
        """Of all tasks, the patching task first."""
        return np.concatenate([self.patching[None], self.supported])


@cache
def population(name):
    """A published sweep at 101 alphas, straight lines between those that were published."""
    frame, _ = read(DATA / f"{name}.jsonl")
    table = frame.pivot(index="alpha", columns="task", values="value")
    patching = {PAINT: "MNIST", WISE_FT: "ImageNet"}[name]
    at_all = {task: np.interp(ALPHAS, table.index, table[task]) for task in table}
    return Population(at_all.pop(patching), np.stack(list(at_all.values())))


def plateau(drop, tasks=1):
    """All alphas above 0 drop by ``drop``, and the patching task gains: the hardest case for a promise of a little less."""
    supported = np.full((tasks, len(ALPHAS)), 0.9)
    supported[:, 1:] -= drop
    return Population(np.linspace(0.3, 0.9, len(ALPHAS)), supported)


@cache
def _shapes(length):
    """The Gaussian process as heights of a few shapes ``(alphas, rank)``, of variance 1 at every alpha."""
    kernel = np.exp(-((ALPHAS[:, None] - ALPHAS) ** 2) / (2 * length**2))
    values, vectors = np.linalg.eigh(kernel)
    kept = values > 1e-4
    shapes = vectors[:, kept] * np.sqrt(values[kept])
    return (shapes / np.sqrt((shapes**2).sum(1, keepdims=True))).astype(np.float32)


def answers(generator, accuracies, n, length, alphas=slice(None)):
    """Draw what ``n`` images a task are answered: booleans ``(tasks, alphas, n)``."""
    shapes = _shapes(length)[alphas]
    limits = norm.ppf(accuracies[:, alphas]).astype(np.float32)
    heights = generator.standard_normal((len(accuracies), shapes.shape[1], n), dtype=np.float32)
    return np.einsum("ar,trn->tan", shapes, heights) < limits[..., None]


def counts(right):
    """Broken and fixed images since the first alpha ``(alphas, tasks)`` of answers ``(tasks, alphas, n)``."""
    broken = (right[:, :1] & ~right).sum(-1).T
    return broken, (~right[:, :1] & right).sum(-1).T
