"""Several seeds of one training: mean and spread of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wisepatch.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

LARGEST = 2**32
GROUPS = ["model", "pretrained", "training", "method", "alpha", "task", "split", "metric"]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read ``0,1,2``: two seeds at least, each once. Raises :class:`UsageError` for anything else."""
    try:
        seeds = tuple(int(word) for word in text.split(","))
    except ValueError:
        seeds = ()
    if len(seeds) < 2 or len(set(seeds)) < len(seeds) or not all(0 <= seed < LARGEST for seed in seeds):
        raise UsageError(
            f"the seeds {text!r} are not several different numbers from 0 to 2**32 - 1", "write --seeds 0,1,2"
        )
    return seeds


def over_seeds(rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Summarise results that differ in nothing but the seed: a row each, with ``seeds``, their number, ``mean, sd, low, high``.

    ``low`` and ``high`` are the smallest and the largest value, ``sd`` is the standard deviation of the sample. ``chosen`` counts
    the seeds whose alpha it is. A row without seed, such as that of a zero-shot model, has the seed of its run where that has one.
    What has one seed alone is left out.
    """
    import pandas as pd

    table = pd.DataFrame(rows)  # type: ignore[arg-type]
    if table.empty or "seed" not in table:
        return pd.DataFrame(columns=[*GROUPS, "seeds", "mean", "sd", "low", "high", "chosen"])
    table = table.assign(
        seed=table["seed"].fillna(table.groupby("run")["seed"].transform(_only)),
        chosen=table["chosen"].fillna(value=False).astype(bool) if "chosen" in table else False,
    )
    table = table[table["seed"].notna()].drop_duplicates([*GROUPS, "seed"], keep="last")
    grouped = table.groupby(GROUPS, sort=False, dropna=False)
    summary = grouped.agg(
        seeds=("seed", "nunique"), mean=("value", "mean"), sd=("value", "std"), low=("value", "min"), high=("value", "max"),
        chosen=("chosen", "sum"),
    )  # fmt: skip
    return summary[summary["seeds"] > 1].reset_index()


def _only(seeds: pd.Series[Any]) -> float | None:
    known = seeds.dropna().unique()
    return float(known[0]) if len(known) == 1 else None


@dataclass(frozen=True)
class SeedsDifference:
    """The mean difference in accuracy of two trainings, over images and seeds, with its 95 % interval and the p-value of none.

    ``by_seed`` are the differences of the seeds.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    by_seed: tuple[float, ...] = ()

    @property
    def is_beyond_chance(self) -> bool:
        """Tell whether the p-value is below 0.05, and the difference goes the same way in every seed."""
        return self.p < 0.05 and all(each * self.value > 0 for each in self.by_seed)


def paired_over_seeds(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> SeedsDifference:
    """Compare two trainings on the same images, each with several seeds: ``(seeds, n)`` says what is right.

    A t-test of the images' differences, each the mean over the seeds: images are drawn from a population, seeds are taken as they
    are (their spread is told by :func:`plus_minus`). Equal answers to all images have p-value 1.
    """
    from scipy.stats import t

    differences = after.mean(0) - before.mean(0)
    n, value = len(differences), float(differences.mean())
    by_seed = tuple((after.mean(1) - before.mean(1)).tolist())
    error = float(differences.std(ddof=1)) / n**0.5 if n > 1 else 0.0
    if error == 0:
        return SeedsDifference(value, value, value, 1.0 if value == 0 else 0.0, n, by_seed)
    reach = float(t.ppf(0.975, n - 1)) * error
    p = float(2 * t.sf(abs(value) / error, n - 1))
    return SeedsDifference(value, value - reach, value + reach, p, n, by_seed)


def plus_minus(values: Iterable[float]) -> str:
    """Write the mean of fractions and their standard deviation in per cent: ``90.2 ± 1.1``."""
    from statistics import mean, stdev

    values = list(values)
    return f"{100 * mean(values):.1f} ± {100 * stdev(values):.1f}"
