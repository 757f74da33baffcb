"""Robustness to distribution shifts in a report, where a sweep holds a reference task and shifts of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.robustness import TESTBED, logit
from wisepatch.errors import WisepatchError
from wisepatch.reports.numbers import percent
from wisepatch.reports.page import charts
from wisepatch.reports.page.charts import Axis, Chart
from wisepatch.reports.page.tables import Table, split_words
from wisepatch.reports.plots.logit_axes import clamp_of, limits, ticks
from wisepatch.reports.plots.shifts import robustness_table
from wisepatch.workflows.sweep import ZEROSHOT

if TYPE_CHECKING:
    import pandas as pd

Rows = Sequence[Mapping[str, Any]]

FIELDS = (
    "run", "alpha", "reference_task", "reference", "shift", "value", "predicted", "rho", "rho_low", "rho_high", "chosen",
)  # fmt: skip
PLACES = {
    "x": "reference", "x_low": "reference_low", "x_high": "reference_high", "y": "value", "y_low": "ci_low", "y_high": "ci_high",
}  # fmt: skip


def robustness_charts(rows: pd.DataFrame, split: str, number: int) -> tuple[Table, list[Chart]] | None:
    """Return accuracy under each shift with rho, in points, and its charts; ``None`` for a run without a shift that is known.

    The charts are accuracy under the shifts over that on the reference task, on logit axes, and rho over alpha. Without a published
    line the table has accuracies alone, and there is no rho (WiSE-FT, section 2).
    """
    try:
        frame = robustness_table(rows, split=split)
    except WisepatchError:
        return None
    points = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    if len({point["alpha"] for point in points}) < 2:
        return _table(points, split), []
    return _table(points, split), [_scatter(points, split, number), *_rho_chart(points, number)]


def _table(points: Rows, split: str) -> Table:
    """Return a row an alpha, with the accuracy on the reference tasks and, shift by shift, that under it and its rho."""
    at = {(point["alpha"], point["shift"]): point for point in points}
    alphas, shifts = sorted({point["alpha"] for point in points}), _shifts(points)
    with_line = {point["shift"] for point in points if _is_number(point["rho"])}
    references = {at[alphas[0], shift]["reference_task"]: shift for shift in reversed(shifts)}
    names = list(dict.fromkeys(at[alphas[0], shift]["reference_task"] for shift in shifts))
    columns = ["alpha", *names]
    for shift in shifts:
        columns += [shift, *([f"rho, {shift}"] if shift in with_line else [])]
    body, strong = [], []
    for place, alpha in enumerate(alphas):
        cells: list[object] = [f"{alpha:g}", *(percent(at[alpha, references[name]]["reference"]) for name in names)]
        for shift in shifts:
            point = at[alpha, shift]
            cells += [percent(point["value"]), *([_rho(point)] if shift in with_line else [])]
        body.append(cells)
        strong += [place] if at[alpha, shifts[0]]["chosen"] else []
    note = (
        "Accuracies in per cent; rho, in points, is the accuracy under the shift less what that on the reference task promises by "
        f"the line of standard models ({TESTBED}), with a 95 % interval where images were counted; the line counts as exact."
        if with_line
        else "Accuracies in per cent. No line of standard models is published for these shifts, and so there is no rho."
    )
    caption = f"Effective robustness on {split_words(split)}, over {names[0]}"
    records = [{name: point[name] for name in FIELDS} for point in points]
    return Table(caption, tuple(columns), body, tuple(strong), note, records)


def _scatter(points: Rows, split: str, number: int) -> Chart:
    """Return accuracy under each shift over that on the reference task, on the axes of ``plot --kind robustness``."""
    clamp = clamp_of([[point["value"], point["reference"]] for point in points])
    references = list(dict.fromkeys(point["reference_task"] for point in points))
    x, y = ([point[PLACES[f"{name}{end}"]] for point in points for end in ("", "_low", "_high")] for name in "xy")
    promised = [point["predicted"] for point in points if _mark(point)]
    axes = {
        "x": _axis(f"accuracy on {references[0]}", x, clamp),
        "y": _axis("accuracy under the shift", [*y, *promised], clamp),
    }
    known = [point for point in points if _is_number(point["value"]) and _is_number(point["reference"])]
    drawn = [
        {
            "series": _series(point, references), "mix": f"alpha {point['alpha']:g}", "alpha": point["alpha"],
            "mark": _mark(point), "under": percent(point["value"]), "on": percent(point["reference"]), "rho": _rho(point),
            **{place: float(logit(point[name], clamp)) if _is_number(point[name]) else None for place, name in PLACES.items()},
        }
        for point in known
    ]  # fmt: skip
    with_line = {point["shift"]: point for point in known if _is_number(point["slope"])}
    lines = [
        {"series": _series(point, references), "x": at, "y": point["slope"] * at + point["intercept"]}
        for point in with_line.values()
        for at in axes["x"].domain
    ]
    legend = [
        "circle: alpha 0",
        "square: alpha 1",
        *(["star: chosen"] if any(point["chosen"] for point in known) else []),
        "dotted: y = x",
    ]
    legend += ["dashed: standard models"] if lines else []
    description = (
        f"Accuracy under {', '.join(_shifts(points))} (up) over accuracy on {', '.join(references)} (across) on "
        f"{split_words(split)}, on logit axes; {', '.join(legend)}."
    )
    title = f"Accuracy under shifts over {references[0]}, {split_words(split)}; {', '.join(legend)}"
    return Chart(f"shifts-{number}", title, description, charts.robustness_spec(drawn, lines, axes))


def _axis(title: str, values: Sequence[Any], clamp: float) -> Axis:
    low, high = limits([value for value in values if _is_number(value)], clamp)
    places = tuple(float(logit(tick, clamp)) for tick in ticks(low, high))
    return Axis(title, (float(logit(low, clamp)), float(logit(high, clamp))), places)


def _series(point: Mapping[str, Any], references: Sequence[str]) -> str:
    """Name a shift, with its reference task where that is not the one of the axis."""
    on = point["reference_task"]
    return str(point["shift"]) if on == references[0] else f"{point['shift']} over {on}"


def _mark(point: Mapping[str, Any]) -> str:
    ends = {0.0: "start" if point["start"] != ZEROSHOT else "zero-shot", 1.0: "fine-tuned"}
    return " and ".join(filter(None, ["chosen" if point["chosen"] else "", ends.get(point["alpha"], "")]))


def _rho_chart(points: Rows, number: int) -> Iterator[Chart]:
    """Yield rho over alpha where there is any."""
    drawn = [
        {"series": point["shift"], "step": point["alpha"], "value": float(point["rho"])}
        for shift in _shifts(points)
        for point in sorted(points, key=lambda each: float(each["alpha"]))
        if point["shift"] == shift and _is_number(point["rho"])
    ]
    if drawn:
        names = ", ".join(dict.fromkeys(point["series"] for point in drawn))
        description = f"Effective robustness over alpha, in points, under {names}."
        spec = charts.curves_spec(drawn, "rho, points", "alpha")
        yield Chart(f"robustness-{number}", "Effective robustness over alpha", description, spec)


def _shifts(points: Rows) -> list[str]:
    return list(dict.fromkeys(str(point["shift"]) for point in points))


def _rho(point: Mapping[str, Any]) -> str:
    if not _is_number(point["rho"]):
        return "-"
    interval = f" ({point['rho_low']:+.1f} to {point['rho_high']:+.1f})" if _is_number(point["rho_low"]) else ""
    return f"{point['rho']:+.1f}{interval}"


def _is_number(value: Any) -> bool:
    return value is not None and value == value
