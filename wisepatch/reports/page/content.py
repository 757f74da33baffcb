"""Gather what a report shows of a run: from results, checkpoints, answers, images and logs of a store, as far as they are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.intervals import of_means
from wisepatch.errors import StoreError, WisepatchError
from wisepatch.reports.evidence import Evidence
from wisepatch.reports.making_again import command_lines, public
from wisepatch.reports.numbers import with_interval
from wisepatch.reports.page import charts, sentences, tables
from wisepatch.reports.page.charts import Chart
from wisepatch.reports.page.shifts import robustness_chart
from wisepatch.reports.page.tables import Table
from wisepatch.reports.page.thumbnails import Budget, Gallery, galleries
from wisepatch.reports.training_curves import MEASURES, load_trainings
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.workflows.comparing import Comparison, compare
from wisepatch.workflows.stored_sweep import stored_sweep
from wisepatch.workflows.sweep import ZEROSHOT, Sweep

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunContent:
    """All that the page shows of one run; an empty list is said in words by ``missing``."""

    anchor: str
    heading: str
    facts: Mapping[str, str]
    done: list[str]
    outcome: str
    chosen: list[str]
    certified: str
    results: list[Table]
    charts: list[Chart]
    classes: list[Table]
    galleries: list[Gallery]
    robustness: list[Table]
    robustness_charts: list[Chart]
    lineage: Table | None
    training: list[Chart]
    commands: list[str]
    missing: Mapping[str, str] = field(default_factory=dict)  # by section


def run_content(store: Store, rows: pd.DataFrame, data: Path, number: int, budget: Budget) -> RunContent:
    """Gather the content for one run from its rows; what cannot be shown is named with the reason.

    Raises :class:`ResultsError` where the run swept no alpha.
    """
    sweep = stored_sweep(store, rows)
    alpha = next((float(row["alpha"]) for row in sweep.rows if row.get("chosen")), None)
    split = "test" if "test" in sweep.points else next(iter(sweep.points))
    ends = _ends(store, sweep)
    target = sweep.chosen or _at(sweep, alpha) or next(iter(ends), None)
    missing: dict[str, str] = {}
    compared = _compared(store, sweep, split, alpha, missing)
    names = (sweep.start_words, tables.end_words(sweep) if alpha is None else tables.mix_words(sweep, alpha))
    limit = next((int(row["limit"]) for row in sweep.rows if row.get("limit")), None)
    classes = [table for each in compared.tasks for table in _class_tables(each, names)] if compared else []
    flawless = [each.task for each in compared.tasks if tables.class_table(each, *names) is None] if compared else []
    if flawless:
        said = missing.get("classes", "")
        missing["classes"] = f"{said} Without a mistake, before and after: {', '.join(flawless)}.".strip()
    shown = list(galleries(compared, data, names, budget, limit)) if compared else []
    if compared and not shown:
        missing["images"] = "No image is fixed or broken."
    first, besides = (
        sweep.rows[0],
        tables.besides_table({str(k): v for k, v in row.items()} for row in rows.to_dict("records")),
    )
    robust = robustness_chart(rows, split, number)
    return RunContent(
        anchor=f"run-{number}",
        heading=run_name(sweep),
        facts=_facts(sweep, target),
        done=list(sentences.what_was_done(sweep, ends, sentences.model_words(target, str(first.get("model") or "")))),
        outcome=sentences.what_came_out(sweep, split, alpha),
        chosen=list(sentences.how_chosen(sweep, alpha)),
        certified=sentences.what_is_certified(sweep, alpha),
        results=[
            *_results(sweep, alpha),
            *([besides] if besides else []),
        ],
        charts=list(_charts(sweep, alpha, number)),
        classes=classes,
        galleries=shown,
        robustness=[robust[0]] if robust else [],
        robustness_charts=[robust[1]] if robust and robust[1] else [],
        lineage=tables.lineage_table(store, target) if target else None,
        training=list(_training(store, ends, number, missing)),
        commands=_commands(store, target, rows, sweep.run, missing),
        missing=missing,
    )


def _results(sweep: Sweep, alpha: float | None) -> list[Table]:
    """Return the results on each split; the note, which is the same, stands below the last."""
    *first, last = (tables.results_table(sweep, split, alpha) for split in _test_first(sweep))
    return [*(replace(each, note="") for each in first), last]


def _test_first(sweep: Sweep) -> list[str]:
    return sorted(sweep.points, key=lambda split: split != "test")


def _at(sweep: Sweep, alpha: float | None) -> Checkpoint | None:
    return None if alpha is None else sweep.checkpoints.get(alpha)


def _ends(store: Store, sweep: Sweep) -> list[Checkpoint]:
    """Return the fine-tuned checkpoints of a sweep, of several tasks there may be several; without those that were removed."""
    mixes = [each for key, each in sweep.checkpoints.items() if key not in (0, 1) and each.recipe]
    parents = mixes[0].parents[1:] if mixes else tuple(each.id for key, each in sweep.checkpoints.items() if key == 1)
    found = []
    for identity in parents:
        with suppress(StoreError):
            found.append(store.get(identity))
    return found


def _facts(sweep: Sweep, target: Checkpoint | None) -> dict[str, str]:
    times = sorted(str(row["time"]) for row in sweep.rows if row.get("time"))
    versions = ", ".join(f"{name} {version}" for name, version in target.versions.items()) if target else ""
    facts = {
        "run": sweep.run,
        "patched model": f"{sweep.chosen.name} ({sweep.chosen.id})" if sweep.chosen else "",
        "measured": times[-1][:16].replace("T", " ") + " UTC" if times else "",
        "made with": versions or f"wisepatch {sweep.rows[0].get('version')}",
    }
    return {name: value for name, value in facts.items() if value}


def _compared(
    store: Store, sweep: Sweep, split: str, alpha: float | None, missing: dict[str, str]
) -> Comparison | None:
    """Compare the start with the chosen mix by the answers that the store holds; say what is missing where it cannot be."""
    before, after = sweep.checkpoints.get(0.0), sweep.checkpoints.get(1.0 if alpha is None else alpha)
    if before is None or after is None:
        missing["classes"] = "Alpha 0 or the other end was not measured, or its checkpoint was removed."
    elif before.id == after.id:
        missing["classes"] = "Alpha 0 was chosen: nothing is fixed or broken."
    else:
        found, reasons = [], []
        for task in dict.fromkeys((*sweep.patching_tasks, *sweep.supported)):
            try:
                found += compare(store, before, after, tasks=[task], split=split).tasks
            except WisepatchError as error:
                reasons.append(error.lines[0])
        if reasons:
            missing["classes"] = f"{'; '.join(reasons)}."
        return Comparison(before, after, found) if found else None
    return None


def _class_tables(task: Any, names: tuple[str, str]) -> Iterator[Table]:
    yield from filter(None, (tables.class_table(task, *names), tables.confusion_table(task, *names)))


def _charts(sweep: Sweep, alpha: float | None, number: int) -> Iterator[Chart]:
    for split in _test_first(sweep):
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
    there = [rows[task, alpha] for task in tasks if (task, alpha) in rows]
    if not there or any(row["ci_low"] is None for row in there):
        return None, None
    return of_means(*([row[name] for row in there] for name in ("value", "ci_low", "ci_high")))


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


def _training(store: Store, ends: Sequence[Checkpoint], number: int, missing: dict[str, str]) -> Iterator[Chart]:
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


def _commands(
    store: Store, target: Checkpoint | None, rows: pd.DataFrame, run: str, missing: dict[str, str]
) -> list[str]:
    if target is None:
        missing["commands"] = "The checkpoints of this run were removed: how they were made is not known any more."
        return []
    *made, export = command_lines(store, target, Evidence([], run, rows))
    swept = [] if target.recipe else ["wisepatch interpolate"]
    return [*made, *swept, "wisepatch report --output report.html", export]
