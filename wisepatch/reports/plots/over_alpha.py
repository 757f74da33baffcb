"""Every task over alpha: on one pair of axes, or each on its own with the runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.sweep_frame import patched_tasks
from wisepatch.errors import ResultsError
from wisepatch.reports.plots.literal_text import as_written
from wisepatch.reports.plots.look import MARKERS, STYLES, Look, grid, marker_of
from wisepatch.reports.plots.percent_axes import in_per_cent
from wisepatch.reports.plots.sheet import Sheet
from wisepatch.reports.plots.sweeps import swept_rows
from wisepatch.reports.plots.words import axis_label, chosen_words, describe, images_words, start_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXTRA_METRICS = ("attack_success", "worst_group", "pm10")  # drawn over alpha beside the first metric of a task
COLUMNS = [
    "task", "metric", "alpha", "value", "ci_low", "ci_high", "patching", "patched", "chosen", "selected_on", "start", "split", "n",
]  # fmt: skip
HEIGHT, PANEL_HEIGHT, PANELS_ACROSS = 3.8, 2.1, 3


def alpha_table(results: pd.DataFrame, *, split: str = "test", metric: str | None = None) -> pd.DataFrame:
    """Gather the results of a single run, or of several that differ in their seed, into one row for each task, metric and alpha.

    Its columns are ``task, metric, alpha, value, ci_low, ci_high, patching, patched, chosen, selected_on, start, split, n``;
    ``patched`` tells whether a task is ``patching``, or one of the tasks that are. Of each task the first metric that was measured
    (or ``metric``), and the attack success, worst group or pm10 beside it. Of several seeds, whose number is in ``attrs["seeds"]``,
    ``value`` is the mean, and ``ci_low`` and ``ci_high`` are the smallest and the largest value.

    Raises :class:`ResultsError` where the results hold no sweep, or several.
    """
    rows = swept_rows(results, split, metric)
    rows = rows[rows["metric"] == metric] if metric else rows
    runs = [str(run) for run, of_run in rows.groupby("run", sort=False) if of_run["alpha"].nunique() > 1]
    seeds = rows[rows["run"].isin(runs)].groupby("run")["seed"].first().dropna()
    several = len(runs) > 1 and seeds.nunique() == len(runs)
    if len(runs) != 1 and not several:
        count = f"{len(runs)} sweeps" if runs else "none"
        named = rows.drop_duplicates("run").set_index("run")["run_name"].reindex(runs)
        hint = f"name one with --run: {', '.join(named)}" if runs else "run `wisepatch interpolate`"
        raise ResultsError(f"one sweep is drawn over alpha, and here are {count} on the {split!r} split", hint)
    rows = _with_patched(rows[rows["run"].isin(runs)])
    first = rows.groupby("task", sort=False)["metric"].transform("first")
    rows = rows[(rows["metric"] == first) | rows["metric"].isin(EXTRA_METRICS)]
    rows = rows.drop_duplicates(["run", "task", "metric", "alpha"], keep="last").sort_values("alpha", kind="stable")
    if not several:
        return rows[COLUMNS]
    table = rows.groupby(["task", "metric", "alpha"], sort=False, as_index=False).agg(
        ci_low=("value", "min"), ci_high=("value", "max"), value=("value", "mean"), chosen=("chosen", "any"),
        **{name: (name, "first") for name in ("patching", "patched", "selected_on", "start", "split", "n")},
    )[COLUMNS]  # fmt: skip
    table.attrs["seeds"] = len(runs)
    return table


def _with_patched(rows: pd.DataFrame) -> pd.DataFrame:
    """Add whether a task is what is patched, or one of several that are patched together."""
    return rows.assign(patched=rows["task"].isin(patched_tasks(rows)))


@as_written
def draw_over_alpha(table: pd.DataFrame, title: str | None, look: Look) -> Figure:
    """Draw every task over alpha, in per cent, one curve a task and metric; ``table`` is what :func:`alpha_table` returns.

    The patching task is drawn thick, metrics beside the first of a task dashed, intervals as bands, the chosen alpha as a line.
    """
    patching = list(table["patching"].dropna().unique())
    seeds = table.attrs.get("seeds")
    start = " / ".join(table["start"].map(start_words).unique())
    usual = f"Mixing {start} and fine-tuned weights: {', '.join(patching)}"
    if seeds:
        usual = f"{', '.join(patching)}: mean of {seeds} seeds, and the range between them"
    sheet = Sheet(look, HEIGHT, title=usual, own_title=title, note=_note(table, look), split=table["split"].iloc[0])
    (axes,) = sheet.subplots()
    theme, legend = sheet.theme, {}
    tasks = list(table["task"].unique())
    first_metrics: dict[Any, str] = table.groupby("task")["metric"].first().to_dict()
    for (task, metric), curve in table.groupby(["task", "metric"], sort=False):
        number = tasks.index(task)
        color, marker = theme.colors[number % len(theme.colors)], marker_of(number, len(theme.colors))
        label = f"{task}, {describe(str(metric))[0]}"
        (legend[label],) = axes.plot(
            curve["alpha"], curve["value"], "-" if metric == first_metrics[task] else "--", color=color, marker=marker,
            linewidth=(2.4 if curve["patched"].all() else 1.5) * sheet.scale, markersize=3.5 * sheet.scale, label=label,
        )  # fmt: skip
        axes.fill_between(
            curve["alpha"], curve["ci_low"], curve["ci_high"], color=color, alpha=0.25 if seeds else 0.15, linewidth=0
        )
    legend |= _draw_chosen(axes, table, theme.muted, sheet.scale)
    in_per_cent(axes.yaxis)
    metrics = dict.fromkeys(first_metrics.values())
    sheet.label(axes, f"alpha (0 is {start}, 1 is fine-tuned)", axis_label(metrics))
    return sheet.finish(legend)


def _note(table: pd.DataFrame, look: Look) -> str:
    images = images_words(table["task"], table["n"], look.labels)
    if seeds := table.attrs.get("seeds"):
        return f"{images}; bands: the smallest and the largest of {seeds} seeds"
    bands = "bands: 95 % intervals" if table["ci_low"].notna().any() else "no intervals without it"
    return f"{images}; {bands}"


def _draw_chosen(axes: Axes, table: pd.DataFrame, color: str, scale: float) -> dict[str, Any]:
    """Draw a line at each alpha that was chosen; return the first one with its words."""
    chosen = table[table["chosen"]].drop_duplicates("alpha")
    lines = [
        axes.axvline(alpha, color=color, linewidth=1.2 * scale, linestyle=":") for alpha in sorted(chosen["alpha"])
    ]
    if not lines:
        return {}
    label = f"{chosen_words(chosen.iloc[0])} (alpha {', '.join(f'{alpha:g}' for alpha in sorted(chosen['alpha']))})"
    lines[0].set_label(label)
    return {label: lines[0]}


def per_task_table(
    results: pd.DataFrame, *, split: str = "test", metric: str | None = None, tasks: Sequence[str] | None = None
) -> pd.DataFrame:
    """Gather sweeps into one row for each run, task and alpha, with ``run, run_name`` and the columns of :func:`alpha_table`.

    Of each task the first metric that was measured, or ``metric``; the patching task first, of the others all, or ``tasks``.

    Raises :class:`ResultsError` where the results hold no sweep, lack a task, or the runs patch different tasks.
    """
    import pandas as pd

    rows = swept_rows(results, split, metric)
    rows = rows[rows["metric"] == metric] if metric else rows
    rows = rows[rows.groupby("run")["alpha"].transform("nunique") > 0]
    if rows.empty:
        raise ResultsError(
            f"the results hold no sweep over alpha on the {split!r} split", "run `wisepatch interpolate`"
        )
    patched = rows.dropna(subset=["patching"]).drop_duplicates("run")[["run_name", "patching"]]
    if patched["patching"].nunique() > 1:
        one, other = (patched[patched["patching"] == name].iloc[0] for name in patched["patching"].unique()[:2])
        raise ResultsError(
            f"the runs {one['run_name']!r} and {other['run_name']!r} patch different tasks ({one['patching']}; "
            f"{other['patching']}): they have no axes in common",
            "name runs that can be compared with --run or --compare, or draw them one by one",
        )
    measured = list(rows["task"].unique())
    if missing := [task for task in tasks or () if task not in measured]:
        raise ResultsError(f"{missing[0]!r} was not measured", f"tasks there are: {', '.join(measured)}")
    first = rows.groupby("task", sort=False)["metric"].transform("first")
    rows = _with_patched(rows)[(rows["metric"] == first) & (rows["task"].isin(tasks) if tasks else True)]
    rows = rows.drop_duplicates(["run", "task", "alpha"], keep="last")
    first_ones = set(rows[rows["patched"]]["task"])
    order = {task: place for place, task in enumerate(sorted(measured, key=lambda task: task not in first_ones))}
    parts = [part.sort_values(["task", "alpha"], key=lambda by: by.map(order) if by.name == "task" else by, kind="stable")
             for _, part in rows.groupby("run", sort=False)]  # fmt: skip
    return pd.concat(parts, ignore_index=True)[["run", "run_name", *COLUMNS]]


@as_written
def draw_per_task(table: pd.DataFrame, title: str | None, look: Look) -> Figure:
    """Draw each task over alpha on its own axes, the patching task first, one curve a run, intervals as bands.

    ``table`` is what :func:`per_task_table` returns.
    """
    tasks, runs = list(table["task"].unique()), list(table["run_name"].unique())
    start = " / ".join(table["start"].map(start_words).unique())
    rows, columns = grid(len(tasks), PANELS_ACROSS)
    patching = ", ".join(table["patching"].dropna().unique())
    sheet = Sheet(
        look, PANEL_HEIGHT * rows, title=f"Each task over alpha, {patching} patched", own_title=title, note=_note(table, look),
        split=table["split"].iloc[0], panels=columns > 1,
    )  # fmt: skip
    panels = sheet.subplots(rows, columns, sharex=True)
    legend: dict[str, Any] = {}
    for number, (axes, task) in enumerate(zip(panels, tasks, strict=False)):
        of_task = table[table["task"] == task]
        for run, curve in of_task.groupby("run_name", sort=False):
            place = runs.index(run)
            color = sheet.theme.colors[place % len(sheet.theme.colors)]
            (legend[str(run)],) = axes.plot(
                curve["alpha"], curve["value"], STYLES[place % len(STYLES)], color=color, marker=MARKERS[place % len(MARKERS)],
                markersize=3 * sheet.scale, linewidth=1.5 * sheet.scale,
            )  # fmt: skip
            axes.fill_between(curve["alpha"], curve["ci_low"], curve["ci_high"], color=color, alpha=0.2, linewidth=0)
        if len(runs) == 1:
            legend |= _draw_chosen(axes, of_task, sheet.theme.muted, sheet.scale)
        in_per_cent(axes.yaxis)
        metric = "" if of_task["metric"].iloc[0] == "top1" else f", {axis_label(of_task['metric'])}"
        last = number + columns >= len(tasks)
        role = " (patching)" if of_task["patched"].all() else ""
        sheet.label(axes, f"alpha (0 is {start})" if last else "", title=f"{task}{role}{metric}", share=1 / columns)
        axes.tick_params(labelbottom=last)
    for axes in panels[len(tasks) :]:
        axes.remove()
    return sheet.finish(legend)
