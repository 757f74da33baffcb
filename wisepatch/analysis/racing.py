"""Race alphas on growing subsets of the validation images: the resolution of a fine grid for a small part of its evaluations.

Coarse alphas come first. An alpha between two measured ones is taken to have right at most the images that either of them has
right (the one assumption: an image that both answer wrongly is not right in between). Intervals and alphas that cannot beat
the best so far by more than ``epsilon`` are dropped, intervals that still can are split, and those that are left answer all images.

What a subset shows is judged by betting against "it is better": the wealth of a game that is fair where it is, over images drawn
without replacement (Waudby-Smith and Ramdas 2020, arXiv 2006.04347), ever exceeds ``1 / delta`` with probability ``delta`` at most
(Ville). So one may look as often as one likes; ``delta`` is divided by the number of comparisons that can hurt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.selection import BEST_MEAN, MAX_DROP, Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EPSILON, CONFIDENCE = 0.01, 0.95
GRID = 101
COARSE = 20  # steps of the grid between the alphas that come first
LEVELS = 6  # intervals that hold one alpha of the grid: of 20, 10, 5, 3 and 2 steps, and itself
FIRST_SHARE, LAST_SHARE, MIN_BLOCKS = (
    16,
    4,
    48,
)  # subsets are a sixteenth to a quarter of the blocks, and no fewer than these
GROWTH = 2
PRIOR_VARIANCE, MAX_BET = 0.02, 0.75

Ask = Callable[[Sequence[int], Sequence["NDArray[np.int64]"]], Sequence["NDArray[np.bool_]"]]


@dataclass(frozen=True)
class Objective:
    """Hold what is to be maximised: ``sum_t weights[t] * accuracy[t]``, the patching task first.

    ``limits`` are what must not drop by more than ``drop``: each a tuple of weights. They are measured from the rows ``baselines``.
    """

    weights: tuple[float, ...]
    limits: tuple[tuple[float, ...], ...] = ()
    drop: float = 0.0
    baselines: tuple[int, ...] = ()


@dataclass
class Race:
    """Answers as they come in, in blocks: block ``j`` holds the same share of the images of every task, at random.

    ``sizes`` are the numbers of images of the tasks. ``ask(rows, images)`` returns by task booleans ``(rows, images)``, whether
    these alphas of the grid (rows beyond it are further baselines) have these images right.
    """

    sizes: Sequence[int]
    objective: Objective
    ask: Ask
    seed: int = 0
    epsilon: float = EPSILON
    confidence: float = CONFIDENCE
    rows: int = GRID
    right: list[NDArray[np.bool_]] = field(init=False)
    seen: NDArray[np.int64] = field(init=False)  # blocks that each row has answered
    evaluations: int = field(default=0, init=False)
    references: set[int] = field(default_factory=set, init=False)
    candidates: set[tuple[int, int]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Draw the blocks."""
        import numpy as np

        generator = np.random.default_rng(self.seed)
        self.blocks = min(self.sizes)
        orders = [np.array_split(generator.permutation(n), self.blocks) for n in self.sizes]
        shuffled = generator.permutation(self.blocks)
        self._images = [np.concatenate([parts[block] for block in shuffled]) for parts in orders]
        self._edges = [np.cumsum([0, *(len(parts[block]) for block in shuffled)]) for parts in orders]
        self._range = max(math.ceil(n / self.blocks) * self.blocks / n for n in self.sizes)
        self.right = [np.zeros((self.rows, n), bool) for n in self.sizes]  # in the order of the blocks
        self.seen = np.zeros(self.rows, np.int64)
        tests = (GRID * LEVELS) + (LEVELS + GRID) * len(self.objective.limits) * len(self.objective.baselines)
        self._threshold = math.log(tests / (1 - self.confidence))

    def answer(self, rows: Iterable[int], blocks: int) -> None:
        """Ask for what ``rows`` have not answered of the first ``blocks`` blocks; nothing is asked twice."""
        import numpy as np

        wanted = np.array(sorted(set(rows)), np.int64)
        for before in np.unique(self.seen[wanted]):
            if before >= blocks:
                continue
            group = wanted[self.seen[wanted] == before]
            parts = [slice(edges[before], edges[blocks]) for edges in self._edges]
            images = [images[part] for images, part in zip(self._images, parts, strict=True)]
            for right, part, given in zip(self.right, parts, self.ask(group.tolist(), images), strict=True):
                right[group, part] = given
            self.evaluations += len(group) * sum(map(len, images))
            self.seen[group] = blocks

    def run(self) -> list[int]:
        """Race; return the alphas, rows of the grid, that have answered all images: both ends, and those to take the best of."""
        self.candidates = {(row, row) for row in range(0, GRID, COARSE)}
        self.candidates |= {(low, low + COARSE) for low in range(0, GRID - 1, COARSE)}
        blocks = min(max(self.blocks // FIRST_SHARE, MIN_BLOCKS), self.blocks)
        self._first = blocks
        while True:  # all at once, as long as subsets are small
            self.answer({*(end for each in self.candidates for end in each), *self.objective.baselines}, blocks)
            self._drop()
            for each in [each for each in self.candidates if each[1] - each[0] > 1 and self._must_be_split(each)]:
                self._split(each)
            blocks *= 2
            if blocks > self.blocks // LAST_SHARE:
                break
        self.answer(self.objective.baselines, self.blocks)
        while self.candidates:  # then the most promising one by one
            self._drop()
            if self.candidates:
                self._go_on(max(self.candidates, key=lambda each: (*self._hope(each), -each[0])))
        self.answer({0, GRID - 1}, self.blocks)  # a sweep reports both ends, whatever came of them
        return [row for row in range(GRID) if self.seen[row] == self.blocks]

    def _go_on(self, ends: tuple[int, int]) -> None:
        """Ask a candidate about more images, or split it; an alpha that has answered all of them is no candidate any more."""
        low, high = ends
        if high - low > 1 and self._must_be_split(ends):
            self._split(ends)
        elif self._blocks(*ends) < self.blocks:
            self.answer(ends, min(GROWTH * self._blocks(*ends), self.blocks))
        else:
            self.candidates.discard(ends)

    def _split(self, ends: tuple[int, int]) -> None:
        low, high = ends
        middle = (low + high) // 2
        self.candidates.discard(ends)
        self.candidates |= {(middle, middle), (low, middle), (middle, high)}
        self.candidates -= {(low, low + 1), (high - 1, high)}  # neighbours have nothing between them
        self.answer([middle], self._first)

    def _blocks(self, *rows: int) -> int:
        return int(self.seen[list(rows)].min())

    def _drop(self) -> None:
        """Drop the candidates that surely cannot win."""
        best = self._best()
        self.references.add(best)
        if self.seen[best] < self.blocks:  # it has to be there in the end, or be beaten
            self.candidates.add((best, best))
        kept = set()
        for ends in self.candidates:
            # What a former best has beaten lost epsilon to it; to drop it with epsilon too would add up to twice that.
            margin = 0.0 if ends[0] == ends[1] and ends[0] in self.references else self.epsilon
            if not self._loses(ends, best, margin):
                kept.add(ends)
        self.candidates = kept

    def _best(self) -> int:
        """Return the best alpha so far, by those that have answered most, of those that surely keep the limits (0 always does)."""
        rows = [row for row in range(GRID) if self.seen[row] and self._keeps_limits(row)]
        most = max(self.seen[row] for row in rows)
        values = {row: self._gains((row, row), self.objective.weights).mean() for row in rows if self.seen[row] == most}
        return max(values, key=lambda row: (values[row], -row))

    def _keeps_limits(self, row: int) -> bool:
        return all(
            row == base or self._at_most(-self._gains((row, row), limit, base), self.objective.drop)
            for limit in self.objective.limits
            for base in self.objective.baselines
        )

    def _loses(self, ends: tuple[int, int], best: int, margin: float) -> bool:
        """Tell whether an interval (or an alpha, with equal ends) surely breaks a limit, or gains no more than ``margin``."""
        for limit in self.objective.limits:
            for base in self.objective.baselines:
                # It keeps the limit where it gains -drop or more; a hair below is none of it.
                if base not in ends and self._at_most(self._gains(ends, limit, base), -self.objective.drop - 1e-6):
                    return True
        return ends != (best, best) and self._at_most(self._gains(ends, self.objective.weights, best), margin)

    def _hope(self, ends: tuple[int, int]) -> tuple[bool, float]:
        """Tell whether a candidate seems to keep the limits, and what it seems to gain."""
        kept = all(
            self._gains(ends, limit, base).mean() >= -self.objective.drop - 1e-6
            for limit in self.objective.limits
            for base in self.objective.baselines
        )
        return kept, float(self._gains(ends, self.objective.weights).mean())

    def _must_be_split(self, ends: tuple[int, int]) -> bool:
        """Tell whether an interval will hardly be dropped by more images: it gains clearly more than epsilon on these."""
        import numpy as np

        best = max((row for row in range(GRID) if self.seen[row]), key=lambda row: self._hope((row, row)))
        gains = self._gains(ends, self.objective.weights, best)
        noise = np.sqrt(gains.var() / len(gains) * (1 - len(gains) / self.blocks))
        return bool(self._hope(ends)[0] and gains.mean() - 2 * noise > self.epsilon + 1e-9) or len(gains) == self.blocks

    def _gains(self, ends: tuple[int, int], weights: Sequence[float], base: int | None = None) -> NDArray[np.float64]:
        """Return by block the weighted accuracy of the images that either end has right, less that of ``base``, ``(blocks,)``.

        Of the blocks that all of them have answered; scaled so that the mean over all blocks is that over all images.
        """
        import numpy as np

        blocks = self._blocks(*ends, *(() if base is None else (base,)))
        total = np.zeros(blocks)
        for right, edges, weight, n in zip(self.right, self._edges, weights, self.sizes, strict=True):
            if weight:
                part = right[:, : edges[blocks]]
                gain = (part[ends[0]] | part[ends[1]]).astype(np.int64)
                gain -= 0 if base is None else part[base]
                total += weight * self.blocks / n * np.add.reduceat(gain, edges[:blocks])
        return total

    def _at_most(self, values: NDArray[np.float64], margin: float) -> bool:
        """Tell whether the mean of all blocks is at most ``margin``, from the first ones: exactly, or by the wealth of bets."""
        import numpy as np

        n = len(values)
        if n == self.blocks:
            return bool(values.mean() <= margin + 1e-9)
        before = np.arange(n)
        sums, squares = (np.concatenate([[0.0], np.cumsum(each)[:-1]]) for each in (values, values**2))
        fair = (self.blocks * margin - sums) / (self.blocks - before)  # what the rest yields at least, were it better
        if (fair > self._range).any():
            return True
        mean = sums / (before + 1)
        variance = (PRIOR_VARIANCE + squares - sums * mean) / (before + 1)
        edge = np.maximum(fair - mean, 0.0)
        bets = np.minimum(edge / (variance + edge**2), MAX_BET / np.maximum(self._range - fair, 1e-9))
        wealth = np.cumsum(np.log1p(bets * (fair - values)))
        return bool(wealth.max() >= self._threshold)


def coefficients(rows: Iterable[int]) -> list[float]:
    """Return the alphas of rows of the grid, exact decimals."""
    return [round(row / (GRID - 1), 2) for row in rows]


def can_be_raced(rule: Rule) -> bool:
    """Tell whether a rule is known here: a certified drop needs alphas that do not depend on the answers."""
    return rule.name in (BEST_MEAN, MAX_DROP, "weights") and not rule.is_certified


def objective_for(rule: Rule, tasks: Sequence[str], baselines: Sequence[int] = (0,)) -> Objective:
    """Return what a rule that can be raced maximises over ``tasks``, the patching task first."""
    others = len(tasks) - 1
    value: Any = rule.value
    if rule.name == BEST_MEAN:
        return Objective((1.0,) if not others else (0.5, *[0.5 / others] * others))
    if rule.name == "weights":
        factors = [dict(value.of).get(task, 1.0) for task in tasks]
        return Objective(tuple(factor / sum(factors) for factor in factors))
    mean = (0.0, *[1 / others] * others)
    each = tuple(tuple(float(task == other) for task in tasks) for other in tasks[1:])
    return Objective((1.0, *[0.0] * others), each if value.each else (mean,), value.drop, tuple(baselines))
