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

from wisepatch.analysis.drops import certified, upper_limits
from wisepatch.analysis.racing import Race, coefficients, objective_for
from wisepatch.store.results import read

DATA = Path(__file__).parent / "data"
TENTHS = slice(None, None, 10)
ALPHAS = np.round(np.linspace(0, 1, 101), 2)
PAINT, WISE_FT = "paint-vitb32-mnist", "wiseft-vitb16-imagenet"
# Of the process, in alphas. Between tenths of alpha the embedded model's answers to FashionMNIST, Shapes, Colors and Textures turn
# against the trend for 0 to 1 per cent of the images, which is what 0.5 to 1 gives; with 0.3 twice as many turn.
LENGTHS = (0.3, 0.5, 1.0)


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


def broken_promises(people, n, length, bound, runs, seed=0):
    """Count the sweeps that choose an alpha that drops by more than the bound, certified and as measured; and the mean alpha."""
    generator, drops = np.random.default_rng(seed), people.drops[:, TENTHS]
    true = drops.max(0) if bound.each else drops.mean(0)
    worse, gained = true > bound.drop + 1e-12, []
    broken = np.zeros(2, int)
    for _ in range(runs):
        right = answers(generator, people.accuracies, n, length, TENTHS)
        patching, (lost, won) = right[0].mean(-1), counts(right[1:])
        measured = (lost - won) / n
        seen = measured.max(1) if bound.each else measured.mean(1)
        for kind, allowed in enumerate(
            (certified(upper_limits(won, lost, n, bound), bound), seen <= bound.drop + 1e-9)
        ):
            chosen = np.where(allowed, patching, -1).argmax()
            broken[kind] += worse[chosen]
            if kind == 0:
                gained.append(chosen / 10)
    return broken, float(np.mean(gained))


def raced(people, n, length, rule, seed):
    """Race a simulated sweep; return how far the best of what is left lies below the grid's best, and the share of evaluations."""
    right = answers(np.random.default_rng(seed), people.accuracies, n, length)
    tasks = [f"task {number}" for number in range(len(right))]
    objective = objective_for(rule, tasks)
    race = Race(
        [n] * len(tasks), objective,
        lambda rows, images: [of_task[np.ix_(rows, places)] for of_task, places in zip(right, images, strict=True)], seed=seed,
    )  # fmt: skip
    left = race.run()
    accuracies = right.mean(-1)
    values = np.array(objective.weights) @ accuracies
    for limit in objective.limits:
        values[np.array(limit) @ (accuracies[:, :1] - accuracies) > objective.drop + 1e-9] = -1
    assert race.evaluations <= right.size
    assert all(race.seen[row] == n for row in left)
    assert coefficients(left) == sorted(coefficients(left))
    return values.max() - values[left].max(), race.evaluations / right.size
