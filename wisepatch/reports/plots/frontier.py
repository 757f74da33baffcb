"""The frontier: accuracy on the patching task against mean accuracy on the supported tasks, alpha by alpha (PAINT, figure 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.intervals import mean_of_rows
from wisepatch.analysis.patching_measures import patching_measures
from wisepatch.analysis.sweep_frame import patched_tasks, with_mean_of_patched
from wisepatch.errors import ResultsError
from wisepatch.reports.plots.labels import Label, place_labels
from wisepatch.reports.plots.literal_text import as_written
from wisepatch.reports.plots.look import MARKERS, STYLES, Look
from wisepatch.reports.plots.percent_axes import in_per_cent
from wisepatch.reports.plots.sheet import Sheet
from wisepatch.reports.plots.sweeps import check_comparable, no_curve, swept_rows
from wisepatch.reports.plots.words import (
    axis_label,
    chosen_words,
    images_words,
    sign_of,
    start_words,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 1.6}
ENDS: dict[float, dict[str, Any]] = {0.0: {"marker": "o", "markersize": 9}, 1.0: {"marker": "s", "markersize": 8.5}}
CHOSEN: dict[str, Any] = {"marker": "*", "markersize": 17}
MAX_AXIS_LETTERS = 44  # of the supported tasks' names
TASK_ARITHMETIC = "task-arithmetic"  # mixes several ends: at alpha 1 there is no end
HEIGHT = 4.1  # inches of the axes


def sweep_table(
    results: pd.DataFrame,
    *,
    patching: str | None = None,
    supported: Sequence[str] | None = None,
    split: str = "test",
    metric: str | None = None,
) -> pd.DataFrame:
    """Gather results into one row for each run and alpha.

    Its columns are ``run, run_name, given_name, model, method, task, metric, split, alpha, patching, supported, chosen,
    selected_on, start``, the intervals of ``patching`` and ``supported`` (``..._low``, ``..._high``), ``images`` (their numbers, by
    task), how many tasks are ``patched``, the names and metrics of the supported tasks, and the measures of
    :func:`~wisepatch.analysis.patching_measures.patching_measures`. Runs come in order of time. The metric is the first that a run
    measured on its patching task, or ``metric``. The patching task is the one that the rows name as such, or ``patching``; the
    supported accuracy is the mean over all other tasks, or over ``supported``. Accuracies are fractions.

    Raises :class:`ResultsError` where the results hold no sweep, or sweeps that have no axes in common.
    """
    import pandas as pd

    of_split, results = results[results["split"].fillna("test") == split], with_mean_of_patched(results)
    curves, without_patching = [], []
    for run, rows in swept_rows(results, split, metric, coefficients=True).groupby("run", sort=False):
        task = patching or next(filter(None, rows["patching"].dropna()), None)
        if task is None:  # a run of zeroshot or eval: no sweep
            without_patching.append(rows)
            continue
        measured = sorted(rows["task"].unique())
        missing = [name for name in (patching, *(supported or ())) if name and name not in measured]
        if missing:
            reason = f"{missing[0]!r} was not measured in run {rows['run_name'].iloc[0]!r}"
            raise ResultsError(reason, f"tasks there are: {', '.join(measured)}")
        if len(curve := _curve(rows, task, supported, metric, of_split[of_split["run"] == run])):
            curves.append(curve)
    if not curves and without_patching:
        raise no_curve(without_patching[0])
    if not curves:
        reason = f"the results hold no sweep over alpha on the {split!r} split"
        raise ResultsError(reason, "run `wisepatch interpolate` or `wisepatch patch`")
    table = pd.concat(curves, ignore_index=True)
    bare = table["supported"].isna()
    if bare.any() and not bare.all():  # their x axis would be another one
        left_out = list(table[bare]["run_name"].unique())
        table = table[~bare].reset_index(drop=True)
        table.attrs["left_out"] = left_out
    check_comparable(table)
    return table


def _curve(
    rows: pd.DataFrame, task: str, supported: Sequence[str] | None, metric: str | None, measured: pd.DataFrame
) -> pd.DataFrame:
    """Summarise the rows of a run by alpha; ``measured`` are those rows before tasks that are patched together were averaged."""
    import pandas as pd

    of_task = rows[rows["task"] == task]
    metric = metric or next(iter(of_task["metric"]), None)
    of_task = of_task[of_task["metric"] == metric].drop_duplicates("alpha", keep="last").set_index("alpha").sort_index()
    others = rows[(rows["task"] != task) & (rows["task"].isin(supported) if supported is not None else True)]
    # Each supported task with the same metric, or with the first of its own.
    others = others.sort_values("metric", key=lambda names: names != metric, kind="stable")
    others = others.drop_duplicates(["alpha", "task"])
    means = _means(others).reindex(of_task.index)
    names, metrics = ", ".join(others["task"].unique()), list(others["metric"].unique())
    images = _images(measured, task, others["task"].unique())
    columns = [
        "run",
        "run_name",
        "given_name",
        "model",
        "method",
        "task",
        "metric",
        "split",
        "chosen",
        "selected_on",
        "start",
    ]
    curve = of_task[columns].assign(
        patching=of_task["value"], patching_low=of_task["ci_low"], patching_high=of_task["ci_high"], **means, names=names,
        supported_metrics=axis_label(metrics), patched=max(len(patched_tasks(measured)), 1),
        images=pd.Series([images] * len(of_task), of_task.index, dtype=object),
    ).reset_index()  # fmt: skip
    signs = sign_of([str(metric)]), sign_of(metrics)
    alphas = curve["alpha"].where((curve["alpha"] != 1) | (curve["method"] != TASK_ARITHMETIC))
    measures = patching_measures(alphas, signs[0] * curve["patching"], signs[1] * curve["supported"])
    return curve.assign(**measures._asdict())


def _images(rows: pd.DataFrame, task: str, supported: Iterable[str]) -> dict[str, float]:
    """Return the number of images of each task of a run, also of those that are patched together as ``task``."""
    patched = patched_tasks(rows)
    tasks = [*(patched if len(patched) > 1 else [task]), *supported]
    numbers = rows[rows["task"].isin(tasks)].groupby("task", sort=False)["n"].max()
    return {str(name): float(n) for name, n in numbers.items()}


def _means(others: pd.DataFrame) -> pd.DataFrame:
    """Average the supported tasks by alpha, with the interval of the mean where each of them has one."""
    import pandas as pd

    rows = {}
    for alpha, group in others.groupby("alpha", dropna=False):
        mean = mean_of_rows(group.to_dict("records"))
        rows[alpha] = {
            "supported": group["value"].mean(),
            "supported_low": mean["ci_low"],
            "supported_high": mean["ci_high"],
        }
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["supported", "supported_low", "supported_high"], dtype=float
    )


@as_written
def draw_sweep(table: pd.DataFrame, title: str | None, look: Look) -> Figure:
    """Draw accuracy on the patching task (y) over mean accuracy on the supported tasks (x), in per cent, one curve a run.

    Zero-shot, fine-tuned and chosen points are marked and carry 95 % intervals where the results have them; of one run, what
    PAINT measures the distance to is marked too. Without supported tasks the x axis is alpha. ``table`` is what
    :func:`sweep_table` returns, ``title`` ``None`` for the usual one and empty for none.
    """
    tasks, start = (" / ".join(table[name].map(start_words).unique()) for name in ("task", "start"))
    over_alpha = bool(table["supported"].isna().all())
    sheet = Sheet(
        look, HEIGHT, title=f"Mixing {start} and fine-tuned weights: {tasks}", own_title=title, note=_note(table, look),
        split=str(table["split"].iloc[0]),
    )  # fmt: skip
    (axes,) = sheet.subplots()
    table = table.assign(x=table["alpha"] if over_alpha else table["supported"])
    one_run = table["run"].nunique() == 1
    legend: dict[str, Any] = {}
    marks: dict[str, dict[str, Any]] = {}
    for number, (_, curve) in enumerate(table.groupby("run", sort=False)):
        color = sheet.theme.colors[number % len(sheet.theme.colors)]
        name = curve["run_name"].iloc[0] + (
            ", weighed by Fisher information" if (curve["method"] == "fisher").any() else ""
        )
        dots: dict[str, Any] = {
            "marker": "." if one_run else MARKERS[number % len(MARKERS)],
            "markersize": (7 if one_run else 4) * sheet.scale,
        }
        line = curve[curve["alpha"].notna()]
        (legend[name],) = axes.plot(
            line["x"], line["patching"], STYLES[number // len(sheet.theme.colors) % len(STYLES)], color=color, zorder=2,
            linewidth=1.8 * sheet.scale, label=name, **dots,
        )  # fmt: skip
        marks |= _mark(sheet, axes, curve, color, one_run=one_run)
    for label, style in marks.items():  # explained once
        color = sheet.theme.colors[0] if one_run else sheet.theme.muted
        (legend[label],) = axes.plot([], [], color=color, label=label, **MARK, **scaled(style, sheet))
    if one_run and not over_alpha:
        legend |= _draw_optimum(sheet, axes, table)
    x = f"alpha (0 is {start}, 1 is fine-tuned)"
    in_per_cent(axes.yaxis)
    axes.margins(0.09)
    if not over_alpha:
        in_per_cent(axes.xaxis)
        axes.locator_params(axis="x", nbins=5)  # a narrow range has labels like 99.650 %
        metrics = " / ".join(dict.fromkeys(table["supported_metrics"]))
        x = f"mean {metrics} on the supported tasks ({supported_words(table)})"
    several, metric = int(table["patched"].max()), axis_label(table["metric"])
    y = f"mean {metric} on the {several} patching tasks" if several > 1 else f"{metric} on the patching task"
    sheet.label(axes, x, f"{y} ({tasks})")
    figure = sheet.finish(legend)
    if not over_alpha:
        _label_alphas(sheet, axes, table)
    return figure


def _note(table: pd.DataFrame, look: Look) -> str:
    counts = [(task, n) for each in table["images"] for task, n in each.items()]
    tasks, numbers = zip(*counts, strict=True)
    intervals = table[["patching_low", "supported_low"]].notna().to_numpy().any()
    bars = "bars: 95 % intervals" if intervals else "no intervals without it"
    if "averaged" in table:
        bars = f"means over {table['averaged'].max():.0f} runs"
    return f"{images_words(tasks, numbers, look.labels)}; {bars}"


def supported_words(table: pd.DataFrame) -> str:
    """Name the supported tasks, or count them where the names are long."""
    runs = list(filter(None, dict.fromkeys(table["names"])))
    if len(" / ".join(runs)) > MAX_AXIS_LETTERS:
        counts = [names.count(", ") + 1 for names in runs]
        runs = [f"{count} task{'s' if count > 1 else ''}" for count in counts]
    return " / ".join(dict.fromkeys(runs))


def scaled(style: dict[str, Any], sheet: Sheet, by: float = 1.0) -> dict[str, Any]:
    """Scale a mark to the sheet; the ends are hollow."""
    hollow = {} if style["marker"] == "*" else {"markerfacecolor": sheet.theme.ground}
    return {**style, **hollow, "markersize": style["markersize"] * sheet.scale * by}


def _mark(sheet: Sheet, axes: Axes, curve: pd.DataFrame, color: str, *, one_run: bool) -> dict[str, dict[str, Any]]:
    """Mark the ends and the chosen point, with intervals; return the label and style of each kind, for the legend."""
    marks: dict[str, dict[str, Any]] = {}
    for _, point in curve[curve["chosen"] | curve["alpha"].isin([0, 1])].iterrows():
        draw_intervals(sheet, axes, point, color, x=point["x"])
        fine_tuned = "fine-tuned" if point["method"] != TASK_ARITHMETIC else "all ends in full"
        end = fine_tuned if point["alpha"] else start_words(point["start"])
        here = {f"{end} (alpha {point['alpha']:g})": ENDS[point["alpha"]]} if point["alpha"] in ENDS else {}
        if point["chosen"]:
            alpha = f" (alpha {point['alpha']:g})" if one_run else ""
            if math.isnan(point["alpha"]):
                alpha = " (a coefficient for each end)"
            here[chosen_words(point) + alpha] = CHOSEN
        for style in here.values():
            axes.plot([point["x"]], [point["patching"]], color=color, zorder=5, **MARK, **scaled(style, sheet))
        marks |= here
    return marks


def draw_intervals(sheet: Sheet, axes: Axes, point: pd.Series[Any], color: str, *, x: float) -> None:
    """Draw the intervals of a point at ``x`` and its ``patching``, as far as there are any."""
    y = point["patching"]
    up_and_down = [[max(y - point["patching_low"], 0)], [max(point["patching_high"] - y, 0)]]
    across = [[max(x - point["supported_low"], 0)], [max(point["supported_high"] - x, 0)]]  # NaN draws nothing
    axes.errorbar(
        x, y, up_and_down, across, "none", ecolor=color, alpha=0.5, elinewidth=sheet.scale, capsize=2.5 * sheet.scale,
        zorder=1,
    )  # fmt: skip


def optimum(table: pd.DataFrame) -> tuple[float, float] | None:
    """Return the supported accuracy at alpha 0 and the patching accuracy at alpha 1, where both were measured."""
    ends = [table[table["alpha"] == alpha] for alpha in (0.0, 1.0)]
    if any(end.empty for end in ends) or (table["method"] == TASK_ARITHMETIC).any():
        return None
    at = float(ends[0]["supported"].iloc[0]), float(ends[1]["patching"].iloc[0])
    return None if any(map(math.isnan, at)) else at


def _draw_optimum(sheet: Sheet, axes: Axes, table: pd.DataFrame) -> dict[str, Any]:
    """Mark what PAINT measures the distance to, where its ends were measured."""
    if (at := optimum(table)) is None:
        return {}
    style: dict[str, Any] = {"markersize": 11 * sheet.scale, "markeredgewidth": 1.6 * sheet.scale, "linestyle": "none"}
    (mark,) = axes.plot(*at, "+", color=sheet.theme.muted, **style)
    return {"optimal: as fine-tuned, and nothing lost": mark}


def _label_alphas(sheet: Sheet, axes: Axes, table: pd.DataFrame) -> None:
    """Write alphas beside their points, the ends and the chosen one first, others where there is room."""
    table = table[table["alpha"].notna()]
    urgent = table["chosen"] | table["alpha"].isin([0.0, 1.0])
    labels = [
        Label(point["x"], point["patching"], f"{point['alpha']:g}", urgent=bool(first))
        for (_, point), first in zip(table.iterrows(), urgent, strict=True)
    ]
    marks = [(label.x, label.y) for label in labels if label.urgent]
    if table["run"].nunique() == 1 and (best := optimum(table)):
        marks.append(best)
    place_labels(axes, labels, marks, size=sheet.small, color=sheet.theme.ink)
