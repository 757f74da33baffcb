"""Rows of sweeps: those of a split, with the runs in order of time, and whether they can share a pair of axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wisepatch.analysis.sweep_frame import is_merge
from wisepatch.errors import ResultsError
from wisepatch.reports.plots.words import ZEROSHOT, run_names

if TYPE_CHECKING:
    import pandas as pd


def swept_rows(results: pd.DataFrame, split: str, metric: str | None, *, coefficients: bool = False) -> pd.DataFrame:
    """Select the rows of a split that belong to an alpha, run by run in order of time, with the names of the runs.

    With ``coefficients`` also those of a chosen mix of several ends that has no alpha: each end has a coefficient of its own.
    Merges are left out. Raises :class:`ResultsError` where there is nothing else, and where no row measures ``metric``.
    """
    import pandas as pd

    swept = results["alpha"].notna()
    if coefficients and "candidate" in results:
        swept |= results["candidate"].notna() & results["chosen"].fillna(value=False).astype(bool)
    rows = results[swept & (results["split"].fillna("test") == split)]
    if metric and not (rows["metric"] == metric).any():
        known = ", ".join(sorted(map(str, rows["metric"].unique())))
        raise ResultsError(f"no row measures {metric!r}", f"metrics there are: {known or 'none'}")
    names = run_names(rows)
    merges = [of_run for _, of_run in rows.groupby("run", sort=False) if is_merge(of_run)]
    if merges and len(merges) == len(names):
        raise no_curve(merges[0].assign(run_name=merges[0]["run"].map(names)))
    rows = rows[~rows["run"].isin([of_run["run"].iloc[0] for of_run in merges])]
    rows = rows.assign(
        start=rows.get("start", pd.Series(index=rows.index, dtype=object)).fillna(ZEROSHOT),
        given_name=rows.get("run_name", rows["run"]).replace("", None).fillna(rows["run"]),
        run_name=rows["run"].map(names),
        chosen=rows["chosen"].fillna(value=False).astype(bool),
        split=split,
    )
    order = {run: place for place, run in enumerate(names)}
    return rows.sort_values("run", key=lambda runs: runs.map(order), kind="stable")


def no_curve(rows: pd.DataFrame) -> ResultsError:
    """Return the error for a run that patched no task."""
    name, run = rows["run_name"].iloc[0], rows["run"].iloc[0]
    if is_merge(rows):
        return ResultsError(
            f"the run {name!r} is a merge, and its candidates lie on no curve over alpha",
            f"`wisepatch select --run {run}` chooses among them; name a run of `wisepatch interpolate` or `wisepatch patch`",
        )
    return ResultsError(f"run {name!r} does not say which task was patched", "name it with --patching TASK")


def mean_over_runs(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Average what ``sweep_table`` returns over runs of one name, such as seeds: one curve a name, without marked choices.

    ``averaged`` is their number. A name of one run keeps it as it is, marks and all.
    """
    import pandas as pd

    curves = []
    for name, rows in table.groupby(table["run"].map(names), sort=False):
        if rows["run"].nunique() == 1:
            curves.append(rows.assign(run_name=name))
            continue
        first = rows.drop_duplicates("alpha").set_index("alpha")
        limits = [str(column) for column in rows if str(column).endswith(("_low", "_high"))]
        means = rows.groupby("alpha")[["patching", "supported"]].mean()
        averaged = first.assign(
            run=name, run_name=name, chosen=False, patching=means["patching"], supported=means["supported"],
            averaged=rows["run"].nunique(),
        )  # fmt: skip
        averaged[limits] = float("nan")
        curves.append(averaged.reset_index())
    return pd.concat(curves, ignore_index=True)


def check_runs(results: pd.DataFrame, split: str) -> None:
    """Raise :class:`ResultsError` for a run that swept alpha, and not on this split: it would be missing from the picture."""
    swept = results[results["alpha"].notna() & results["patching"].notna()]
    for run, rows in swept.groupby("run", sort=False):
        splits = list(rows["split"].fillna("test").unique())
        if split not in splits:
            name = run_names(results)[str(run)]
            reason = f"the run {name!r} was not measured on the {split!r} split"
            raise ResultsError(reason, f"draw --split {splits[0]}; splits there are: {', '.join(splits)}")


def check_comparable(table: pd.DataFrame) -> None:
    """Raise :class:`ResultsError` where the runs of a :func:`sweep_table` have no pair of axes in common.

    They must patch the same task, support the same ones, and measure both by the same metrics.
    """
    first: pd.Series | None = None
    for _, rows in table.groupby("run", sort=False):
        row = rows.iloc[0]
        if first is None:
            first = row
            continue
        for column, what in (("task", "patch"), ("names", "support"), ("metric", "measure")):
            mine, other = str(row[column] or "no task"), str(first[column] or "no task")
            if set(mine.split(", ")) != set(other.split(", ")):
                reason = (
                    f"the runs {first['run_name']!r} and {row['run_name']!r} {what} different things ({other}; {mine}): "
                    "they have no axes in common"
                )
                raise ResultsError(reason, _hint(column, mine.split(", "), other.split(", ")))


def _hint(column: str, mine: Sequence[str], other: Sequence[str]) -> str:
    both = [name for name in other if name in mine]
    if column == "names" and both:
        return f"average the tasks that both have: --supported {','.join(both)}"
    return "name runs that can be compared with --run or --compare, or draw them one by one"
