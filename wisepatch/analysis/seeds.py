"""Several seeds of one training: mean and spread of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from wisepatch.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

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


def plus_minus(values: Iterable[float]) -> str:
    """Write the mean of fractions and their standard deviation in per cent: ``90.2 ± 1.1``."""
    from statistics import mean, stdev

    values = list(values)
    return f"{100 * mean(values):.1f} ± {100 * stdev(values):.1f}"
