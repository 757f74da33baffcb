"""Effective robustness in a report: rho at each alpha, where a sweep holds a reference task and shifts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.analysis.robustness import TESTBED
from wisepatch.errors import WisepatchError
from wisepatch.reports.numbers import percent
from wisepatch.reports.page import charts
from wisepatch.reports.page.charts import Chart
from wisepatch.reports.page.tables import Table, split_words
from wisepatch.reports.plots.shifts import robustness_table

if TYPE_CHECKING:
    import pandas as pd


def robustness_chart(rows: pd.DataFrame, split: str, number: int) -> tuple[Table, Chart | None] | None:
    """Return accuracy under each shift with rho, in points, and rho over alpha; ``None`` for a run without a shift that is known.

    Without a published line the table has accuracies alone, and there is no chart (WiSE-FT, section 2).
    """
    try:
        frame = robustness_table(rows, split=split)
    except WisepatchError:
        return None
    reference, shifts = str(frame["reference_task"].iloc[0]), list(map(str, frame["shift"].unique()))
    at = {(row["alpha"], str(row["shift"])): row for row in frame.to_dict("records")}
    alphas = sorted({alpha for alpha, _ in at})
    with_line = [shift for shift in shifts if any(_is_number(at[alpha, shift]["rho"]) for alpha in alphas)]
    columns = ["alpha", *dict.fromkeys(str(at[alphas[0], shift]["reference_task"]) for shift in shifts)]
    references = {str(at[alphas[0], shift]["reference_task"]): shift for shift in reversed(shifts)}
    for shift in shifts:
        columns += [shift, *([f"rho, {shift}"] if shift in with_line else [])]
    body, strong = [], []
    for place, alpha in enumerate(alphas):
        cells: list[object] = [
            f"{alpha:g}",
            *(percent(at[alpha, references[name]]["reference"]) for name in columns[1:] if name in references),
        ]
        for shift in shifts:
            row = at[alpha, shift]
            cells += [percent(row["value"]), *([_rho(row)] if shift in with_line else [])]
        body.append(cells)
        strong += [place] if at[alpha, shifts[0]]["chosen"] else []
    note = (
        "Accuracies in per cent; rho, in points, is the accuracy under the shift less what that on the reference task promises by "
        f"the line of standard models ({TESTBED}), with a 95 % interval where images were counted; the line counts as exact."
        if with_line
        else "Accuracies in per cent. No line of standard models is published for these shifts, and so there is no rho."
    )
    caption = f"Effective robustness on {split_words(split)}, over {reference}"
    table = Table(caption, tuple(columns), body, tuple(strong), note, _records(frame))
    points = [
        {"series": shift, "step": alpha, "value": float(at[alpha, shift]["rho"])}
        for shift in with_line
        for alpha in alphas
        if _is_number(at[alpha, shift]["rho"])
    ]
    if len(alphas) < 2 or not points:
        return table, None
    description = f"Effective robustness over alpha, in points, under {', '.join(with_line)}."
    spec = charts.curves_spec(points, "rho, points", "alpha")
    return table, Chart(f"robustness-{number}", "Effective robustness over alpha", description, spec)


def _rho(row: dict[Any, Any]) -> str:
    if not _is_number(row["rho"]):
        return "-"
    interval = f" ({row['rho_low']:+.1f} to {row['rho_high']:+.1f})" if _is_number(row["rho_low"]) else ""
    return f"{row['rho']:+.1f}{interval}"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    names = (
        "run",
        "alpha",
        "reference_task",
        "reference",
        "shift",
        "value",
        "predicted",
        "rho",
        "rho_low",
        "rho_high",
        "chosen",
    )
    return [{name: row[name] for name in names} for row in frame.to_dict("records")]


def _is_number(value: Any) -> bool:
    return value is not None and value == value
