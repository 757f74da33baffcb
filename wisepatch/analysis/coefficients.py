"""Candidates for the coefficients of several ends: equal ones, a grid, or what a black-box optimiser asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.drops import drops
from wisepatch.analysis.rules import weighted_means
from wisepatch.analysis.selection import BEST_MEAN, MAX_DROP, Rule
from wisepatch.analysis.sweep_frame import axes
from wisepatch.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

MAX_CANDIDATES = 1500  # of a grid: eleven coefficients for each of three ends are 1,331
STEP = 0.2  # the first standard deviation of a search
PENALTY = 10.0  # a drop beyond the bound costs ten times its size, so that a search is led back
DIGITS = 4  # of a coefficient
PACKAGE = "cma"

Candidate = tuple[float, ...]


def equal(alphas: Iterable[float], ends: int) -> list[Candidate]:
    """Return one coefficient for all ends, a candidate each."""
    return [(alpha,) * ends for alpha in alphas]


def grid(alphas: Sequence[float], ends: int) -> list[Candidate]:
    """Return every combination. Raises :class:`UsageError` for more than :data:`MAX_CANDIDATES`, with their number."""
    number = len(alphas) ** ends
    if number > MAX_CANDIDATES:
        raise UsageError(
            f"a grid of {len(alphas)} coefficients for {ends} tasks has {number:,} candidates, and {MAX_CANDIDATES:,} are the most",
            "name fewer with --alpha 0:1:0.25, or use --coefficients search",
        )
    return list(product(alphas, repeat=ends))


def in_order(candidates: Iterable[Candidate]) -> dict[float, Candidate]:
    """Number candidates, those that move least first, each once; number 0 is the start, where nothing moves."""
    distinct = set(candidates)
    distinct.add((0.0,) * len(next(iter(distinct))))
    return dict(
        zip(map(float, range(len(distinct))), sorted(distinct, key=lambda each: (sum(each), each)), strict=True)
    )


def can_be_searched(rule: Rule) -> bool:
    """Tell whether a search can go by the rule: by a number for each candidate that the others do not change."""
    return rule.name in (BEST_MEAN, MAX_DROP, "weights") and not rule.is_certified


def scores(frame: pd.DataFrame, rule: Rule) -> pd.Series[Any]:
    """Return by candidate what a search maximises, so that the largest is what the rule would choose.

    ``best-mean`` and ``weights`` are their means; ``max-drop=d`` is ``P - 10 max(0, drop - d)``, the drop since candidate 0.
    """
    both = axes(frame)
    if rule.name == "weights":
        return weighted_means(frame, rule.value)
    if rule.name != MAX_DROP:
        return both["mean"]
    excess = drops(frame, each=rule.value.each) - rule.value.drop
    penalised: pd.Series[Any] = both["patching"] - PENALTY * excess.clip(lower=0).reindex(both.index)
    return penalised


class Search:
    """Ask for coefficients in [0, 1] by CMA-ES (Hansen 2016, arXiv 1604.00772).

    The same seed and the same answers give the same questions.
    """

    def __init__(self, start: Candidate, seed: int) -> None:
        """Begin around ``start``. Raises :class:`UsageError` without the package pycma."""
        try:
            import cma
        except ImportError as error:
            raise missing_package() from error
        import numpy as np

        options: dict[str, Any] = {
            "bounds": [0, 1], "verbose": -9, "seed": np.nan, "randn": np.random.RandomState(seed).randn, "verb_log": 0,
        }  # fmt: skip
        self._optimiser = cma.CMAEvolutionStrategy(list(start), STEP, options)
        self._asked: list[Any] = []

    def ask(self) -> list[Candidate]:
        """Return the candidates of a round, rounded to four digits."""
        self._asked = self._optimiser.ask()
        return [tuple(round(float(value), DIGITS) + 0.0 for value in each) for each in self._asked]

    def tell(self, values: Sequence[float]) -> None:
        """Take in the score of each candidate of the round, higher is better."""
        self._optimiser.tell(self._asked, [-value for value in values])

    @property
    def is_done(self) -> bool:
        """Tell whether nothing more is to be gained."""
        return bool(self._optimiser.stop())


def searched(
    measure: Callable[[Sequence[Candidate]], Mapping[Candidate, float]],
    begin: Sequence[Candidate],
    evaluations: int,
    seed: int,
) -> dict[Candidate, float]:
    """Return the scores of all candidates measured: those to ``begin`` with, then what a search around the best asks for.

    ``measure`` returns the scores of candidates, each of which it is given once, and at most ``evaluations`` in all. Of equal
    scores the smaller coefficients are the better ones.
    """
    known = dict(measure(list(dict.fromkeys(begin))))
    asking = Search(max(known, key=lambda each: (known[each], -sum(each))), seed)
    while len(known) < evaluations and not asking.is_done:
        asked = asking.ask()
        new = [each for each in dict.fromkeys(asked) if each not in known]
        left = evaluations - len(known)
        if new:
            known |= measure(new[:left])
        if len(new) > left:
            break
        asking.tell([known[each] for each in asked])
    return known


def missing_package(instead: str = "use --coefficients equal or grid") -> UsageError:
    """Return the error for a search without its package."""
    return UsageError(
        f"a search for coefficients needs the package {PACKAGE} (pycma), which is not installed",
        f"pip install 'wisepatch[search]', or {instead}",
    )
