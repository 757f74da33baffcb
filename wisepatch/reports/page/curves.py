"""Curves of a report: the frontier, tasks over alpha, trainings; each with the sentence and the table behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wisepatch.analysis.intervals import mean_of_rows
from wisepatch.errors import StoreError, WisepatchError
from wisepatch.reports.making_again import public
from wisepatch.reports.numbers import with_interval
from wisepatch.reports.page import charts, tables
from wisepatch.reports.page.charts import Chart
from wisepatch.reports.page.tables import Table
from wisepatch.reports.training_curves import MEASURES, load_trainings
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.workflows.sweep import ZEROSHOT, Sweep


def splits_in_order(sweep: Sweep) -> list[str]:
    """Return the splits of a sweep, test data first."""
    return sorted(sweep.points, key=lambda split: split != "test")


def sweep_charts(sweep: Sweep, alpha: float | None, number: int) -> Iterator[Chart]:
    """Yield for each split the frontier and, of a sweep over alpha, each task over it."""
    for split in splits_in_order(sweep):
        grid, words = tables.sweep_grid(sweep, split, alpha), tables.split_words(split)
        points = frontier_points(sweep, split)
        if len(points) > 1:
            yield frontier_chart(points, sweep, words, f"frontier-{number}-{split}")
        curves = [] if sweep.coefficients else _curve_points(sweep, split)
        if not curves:
            continue
        description = (
            f"Accuracy of each task over alpha, on {words}: {len(sweep.points[split])} alphas, "
            f"{'alpha ' + format(alpha, 'g') + ' is chosen' if alpha is not None else 'none is chosen'}."
        )
        spec = charts.over_alpha_spec(
            curves, alpha, f"alpha (0 is {sweep.start_words}, 1 is {tables.end_words(sweep)})"
        )
        yield Chart(f"alphas-{number}-{split}", f"Each task over alpha, {words}", description, spec, grid)


def frontier_points(sweep: Sweep, split: str) -> list[dict[str, Any]]:
    """Return the points of the frontier in per cent, with the intervals of both means."""
    rows = tables.first_rows(sweep, split)
    name, points = run_name(sweep), []
    chosen = {row["alpha"] for row in sweep.rows if row.get("chosen")}
    ends = {
        0.0: "zero-shot" if sweep.start == ZEROSHOT else "start",
        **({} if sweep.coefficients else {1.0: tables.end_words(sweep)}),
    }
    for point in sweep.points[split]:
        marks = [*(["chosen"] if point.alpha in chosen else []), *([ends[point.alpha]] if point.alpha in ends else [])]
        up = _mean_interval(sweep.patching_tasks, rows, point.alpha)
        bare = point.supported is None
        across = (None, None) if bare else _mean_interval(sweep.supported, rows, point.alpha)
        points.append({
            "run": name, "mix": tables.mix_words(sweep, point.alpha), "label": _label(sweep, point.alpha, marks),
            "alpha": point.alpha, "mark": " and ".join(marks), "line": 0 if sweep.coefficients else 1, "bare": bare,
            "x": point.alpha if bare else _per_cent(point.supported), "y": _per_cent(point.patching),
            "x_low": _per_cent(across[0]), "x_high": _per_cent(across[1]), "x_interval": _interval(*across),
            "y_low": _per_cent(up[0]), "y_high": _per_cent(up[1]), "y_interval": _interval(*up),
        })  # fmt: skip
    return [point for point in points if point["x"] is not None and point["y"] is not None]


def _label(sweep: Sweep, key: float, marks: Sequence[str]) -> str:
    numbers = ", ".join(f"{value:g}" for value in sweep.coefficients.get(key, (key,)))
    return f"{' and '.join(marks)} ({numbers})" if marks else numbers


def run_name(sweep: Sweep) -> str:
    """Return the name that was given to a run, or its id."""
    return str(sweep.rows[0].get("run_name") or sweep.run)


def _mean_interval(
    tasks: Sequence[str], rows: Mapping[tuple[str, float], Mapping[str, Any]], alpha: float
) -> tuple[float | None, float | None]:
    """Return the interval of the mean of some tasks, or nothing where one of them has none."""
    mean = mean_of_rows([rows[task, alpha] for task in tasks if (task, alpha) in rows])
    return (None, None) if math.isnan(mean["ci_low"]) else (mean["ci_low"], mean["ci_high"])


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def _per_cent(value: Any) -> float | None:
    return None if value is None or value != value else 100 * float(value)


def frontier_chart(points: Sequence[Mapping[str, Any]], sweep: Sweep, words: str, identity: str) -> Chart:
    """Return the frontier with its title and description, and the table of its points."""
    bare = all(point["bare"] for point in points)
    runs = list(dict.fromkeys(point["run"] for point in points))
    supported = sweep.supported[0] if len(sweep.supported) == 1 else f"mean of {len(sweep.supported)} supported tasks"
    several = len(sweep.patching_tasks) > 1
    patched = f"mean of {len(sweep.patching_tasks)} patched tasks" if several else sweep.patching
    x_title = "alpha" if bare else f"{supported}, per cent"
    spec = charts.frontier_spec(points, x_title, f"{patched}, per cent")
    marked = [f"{point['mark']} at {point['y']:.1f} %" for point in points if point["mark"]] if len(runs) == 1 else []
    ends = f": {'; '.join(marked)}" if marked else ""
    description = f"{patched} (up) over {x_title} (across) on {words}, {len(points)} points{ends}."
    body = [
        [*([point["run"]] if len(runs) > 1 else []), point["mix"], f"{point['y']:.1f} ({point['y_interval']})",
         *([] if bare else [f"{point['x']:.1f} ({point['x_interval']})"]), point["mark"]]
        for point in points
    ]  # fmt: skip
    columns = (*(["run"] if len(runs) > 1 else []), "mix", patched, *([] if bare else [supported]), "mark")
    strong = tuple(number for number, point in enumerate(points) if "chosen" in point["mark"])
    table = Table(f"Points of the frontier on {words}, per cent with 95 % intervals", columns, body, strong)
    title = f"{patched} over alpha, {words}" if bare else f"Frontier: {patched} over {supported}, {words}"
    return Chart(identity, f"{title[:1].upper()}{title[1:]}" if several else title, description, spec, table)


def _curve_points(sweep: Sweep, split: str) -> list[dict[str, Any]]:
    rows = tables.first_rows(sweep, split)
    metric_of = {task: row["metric"] for (task, _), row in rows.items()}
    several = len(set(metric_of.values())) > 1
    return [
        {
            "task": f"{task} ({row['metric']})" if several else task, "alpha": alpha, "y": _per_cent(row["value"]),
            "low": _per_cent(row["ci_low"]), "high": _per_cent(row["ci_high"]), "weight": 2 if task in sweep.patching_tasks else 1,
            "interval": with_interval(row), "images": "-" if row["n"] is None else f"{row['n']:g}",
        }
        for (task, alpha), row in rows.items()
        if row["value"] is not None
    ]  # fmt: skip


def training_charts(store: Store, ends: Sequence[Checkpoint], number: int, missing: dict[str, str]) -> Iterator[Chart]:
    """Yield loss, rate and validation of the trainings that came to some ends; without a log ``missing`` gets the reason."""
    import pandas as pd

    try:
        if not ends:
            raise StoreError("the fine-tuned checkpoint was removed")
        logs = [load_trainings(store, [end.id]).assign(training=public(str(end.config.get("task")))) for end in ends]
    except WisepatchError as error:
        missing["training"] = f"There are no training curves: {error.lines[0]}."
        return
    log = pd.concat([log[log["value"].notna()] for log in logs])
    several = len(ends) > 1
    entries = [
        {
            "measure": entry["measure"], "step": int(entry["step"]), "value": float(entry["value"]),
            "series": ", ".join(filter(None, [entry["training"] if several else "", entry["task"]])) or MEASURES[entry["measure"]],
        }
        for entry in log.to_dict("records")
    ]  # fmt: skip
    there = [measure for measure in MEASURES if any(entry["measure"] == measure for entry in entries)]
    for measure in there:
        title, points = MEASURES[measure], [entry for entry in entries if entry["measure"] == measure]
        description = f"{title} over {points[-1]['step']} steps, {points[-1]['value']:.4g} at the end."
        spec = charts.curves_spec(points, title)
        table = tables.training_grid(entries, MEASURES) if measure == there[-1] else None
        yield Chart(f"training-{number}-{measure}", title, description, spec, table)
