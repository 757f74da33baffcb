"""Gather accuracy under distribution shifts beside that on the reference task, alpha by alpha, with effective robustness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.intervals import of_means, wilson
from wisepatch.analysis.robustness import LINES, REFERENCE, Line, find_line, restricted, robustness_points
from wisepatch.errors import ResultsError
from wisepatch.reports.plots.sweeps import swept_rows

if TYPE_CHECKING:
    import pandas as pd

MEAN = "mean"  # ends the name of the row of the average over shifts
DERIVED = ("corrupt:", "typo:")  # begin the names of shifted versions of any task
CIFAR = ("CIFAR10.1", "CIFAR10.2")
FIELDS = ("value", "ci_low", "ci_high", "n")
FRACTIONS = ("top1", "top5")  # whose interval follows from value and n


def robustness_table(
    results: pd.DataFrame,
    *,
    reference: str | None = None,
    shifts: Sequence[str] | None = None,
    split: str = "test",
    metric: str | None = None,
    lines: Mapping[str, Line] | None = None,
) -> pd.DataFrame:
    """Gather sweeps into one row for each run, shift and alpha, and one for the mean of several shifts.

    Its columns are ``run, run_name, alpha, shift, reference_task, metric, split, chosen, selected_on, start``, the accuracy on the
    reference task ``reference`` and under the shift ``value``, each with interval and ``n`` (``reference_low``, ``ci_low``, ...),
    the ``slope, intercept, line`` of standard models, what it predicts (``predicted``), and ``rho``, the effective robustness in
    points, with its interval. All accuracies are fractions, those without a line have no ``rho``, and the mean has none.

    The reference task is ImageNet where it was measured, else the patching task, or ``reference``; the shifts are the known ones
    of it that were measured, or ``shifts``. ``lines`` take the place of the published ones. Where the accuracy on ImageNet's own
    images of a shift's classes was measured, it is what the shift is compared with, and the line is that of it.

    Raises :class:`ResultsError` where the reference task or a shift was not measured, or nothing says which tasks are shifts.
    """
    import pandas as pd

    rows = swept_rows(results, split, metric)
    if rows.empty:
        raise ResultsError(
            f"the results hold no sweep over alpha on the {split!r} split", "run `wisepatch interpolate`"
        )
    tables = [
        _of_run(of_run, reference, shifts, metric, lines) for _, of_run in rows.groupby("run", sort=False)
    ]  # fmt: skip
    first = tables[0]
    for table in tables[1:]:
        if list(table["shift"].unique()) != list(first["shift"].unique()):
            names = [str(each["run_name"].iloc[0]) for each in (first, table)]
            both = [name for name in first["shift"].unique() if name in set(table["shift"])]
            raise ResultsError(
                f"the runs {names[0]!r} and {names[1]!r} were measured under different shifts: they have no axes in common",
                f"name those that both have: --shift {','.join(both)}" if both else "draw them one by one",
            )
    return pd.concat(tables, ignore_index=True)


def _of_run(
    rows: pd.DataFrame,
    reference: str | None,
    shifts: Sequence[str] | None,
    metric: str | None,
    lines: Mapping[str, Line] | None,
) -> pd.DataFrame:
    import pandas as pd

    name, measured = rows["run_name"].iloc[0], [str(task) for task in rows["task"].unique()]
    patching = next(iter(rows["patching"].dropna()), None)
    reference = reference or (REFERENCE if REFERENCE in measured else patching)
    there = f"tasks there are: {', '.join(measured)}"
    if reference is None:
        raise ResultsError(f"the run {name!r} does not say which task was patched", f"name --reference-task; {there}")
    if reference not in measured:
        reason = f"the reference task {reference!r} was not measured in the run {name!r} on the {rows['split'].iloc[0]!r} split"
        raise ResultsError(reason, f"name another with --reference-task; {there}")
    shifts = list(shifts) if shifts else known_shifts(reference, measured)
    for shift in shifts:
        if shift not in measured or shift == reference:
            why = "is the reference task itself" if shift == reference else f"was not measured in the run {name!r}"
            raise ResultsError(f"the shift {shift!r} {why}", f"name others with --shift; {there}")
    if not shifts:
        raise ResultsError(
            f"no shift of {reference} that is known was measured in the run {name!r}", f"name --shift; {there}"
        )
    wanted = metric or rows[rows["task"] == reference]["metric"].iloc[0]
    values = {
        task: _values(rows, task, wanted) for task in (reference, *shifts, *map(restricted, shifts)) if task in measured
    }  # fmt: skip
    parts = [_of_shift(values, reference, shift, lines) for shift in shifts]
    if len(shifts) > 1:
        parts.append(_mean(parts, values[reference], reference))
    facts = rows.drop_duplicates("alpha").set_index("alpha")
    chosen = rows.groupby("alpha")["chosen"].any()
    table = pd.concat(parts, ignore_index=True).assign(run=rows["run"].iloc[0], run_name=name, metric=wanted)
    for column in ("start", "split", "model", "method"):
        table[column] = table["alpha"].map(facts[column]) if column in facts else None
    table["selected_on"] = next(iter(rows["selected_on"].dropna()), None)
    return table.assign(chosen=table["alpha"].map(chosen))


def known_shifts(reference: str, measured: Sequence[str]) -> list[str]:
    """Return which of the tasks that were measured are shifts of the reference task, as far as their names tell."""
    published = list(dict.fromkeys(line.shift for line in LINES)) if reference == REFERENCE else []
    published += CIFAR if reference == "CIFAR10" else []
    derived = tuple(f"{prefix}{reference}" for prefix in DERIVED)
    own = [task for task in measured if task in derived or task.startswith(tuple(f"{name}:" for name in derived))]
    return [*(task for task in published if task in measured), *own]


def _values(rows: pd.DataFrame, task: str, metric: str) -> pd.DataFrame:
    """Return ``value, ci_low, ci_high, n`` of a task by alpha; an interval that is missing follows from n."""
    of_task = rows[rows["task"] == task].sort_values("metric", key=lambda names: names != metric, kind="stable")
    of_task = of_task[of_task["metric"] == of_task["metric"].iloc[0]]
    table = of_task.drop_duplicates("alpha", keep="last").set_index("alpha")[list(FIELDS)].sort_index()
    for alpha, row in table[table["ci_low"].isna() & (table["n"] > 0)].iterrows():
        if of_task["metric"].iloc[0] in FRACTIONS and 0 <= row["value"] <= 1:
            table.loc[alpha, ["ci_low", "ci_high"]] = wilson(row["value"], int(row["n"]))
    numbers: pd.DataFrame = table.astype(float)
    return numbers


def _of_shift(
    values: Mapping[str, pd.DataFrame], reference: str, shift: str, lines: Mapping[str, Line] | None
) -> pd.DataFrame:
    line = find_line(shift, list(values), reference) if lines is None else lines.get(shift)
    on = line.reference if line else reference
    return _joined(values[on], values[shift], on, shift, line)


def _joined(reference: pd.DataFrame, shift: pd.DataFrame, on: str, name: str, line: Line | None) -> pd.DataFrame:
    both = shift.join(reference.add_prefix("reference_"), how="inner")
    points = robustness_points(
        line, {field: both[f"reference_{field}"] for field in FIELDS[:3]}, {field: both[field] for field in FIELDS[:3]}
    )
    about: dict[str, Any] = {
        "slope": line.slope if line else None, "intercept": line.intercept if line else None, "line": line.source if line else None,
    }  # fmt: skip
    named = {"reference_value": "reference", "reference_ci_low": "reference_low", "reference_ci_high": "reference_high"}
    return both.rename(columns=named).assign(**points, **about, shift=name, reference_task=on).reset_index()


def _mean(parts: Sequence[pd.DataFrame], reference: pd.DataFrame, on: str) -> pd.DataFrame:
    """Average the shifts at the alphas that all of them have; no line is published for the mean."""
    import pandas as pd

    by_alpha = pd.concat(parts).groupby("alpha")
    rows = {}
    for alpha, group in by_alpha:
        if len(group) == len(parts):
            low, high = of_means(group["value"], group["ci_low"], group["ci_high"], list(group["shift"]))
            rows[alpha] = {
                "value": group["value"].mean(skipna=False),
                "ci_low": low,
                "ci_high": high,
                "n": group["n"].sum(min_count=len(parts)),
            }
    mean = pd.DataFrame.from_dict(rows, orient="index", columns=list(FIELDS), dtype=float).rename_axis("alpha")
    return _joined(reference, mean, on, f"{MEAN} of {len(parts)} shifts", None)
