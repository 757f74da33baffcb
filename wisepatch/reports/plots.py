"""Pictures of sweeps: a DataFrame of results in, a figure out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.errors import ResultsError, UsageError
from wisepatch.files import drawing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
COLORS = ("#1f5fa8", "#c4541a", "#2f8f4e", "#7b4aa0", "#b0912c", "#4a4a4a")
METRIC_WORDS = {
    "top1": "accuracy", "macro_f1": "macro F1", "mean_per_class": "mean per-class accuracy",
    "attack_success": "says what is written", "worst_group": "accuracy of the worst group",
}  # fmt: skip
BESIDE = ("attack_success", "worst_group", "pm10")  # metrics that are drawn over alpha beside the first of a task
STYLES = ("-", "--", ":")
FISHER_WORDS = ", weighed by Fisher information"
MOST_LETTERS = 44  # of the supported tasks' names on the axis
LABEL_GAP = 9.0  # pixels on the axes between the labels of two alphas


def sweep_table(
    results: pd.DataFrame,
    *,
    patching: str | None = None,
    supported: Sequence[str] | None = None,
    split: str = "test",
    metric: str | None = None,
) -> pd.DataFrame:
    """One row for each run and alpha.

    Its columns are ``run, model, method, task, metric, alpha, patching, supported, chosen, selected_on``, the interval of
    ``patching`` and the half-width of that of ``supported``. The metric is the first that a run measured on its patching task, or
    ``metric``. The patching task is the one that the rows name as such, or ``patching``; the supported accuracy is the mean
    over all other tasks, or over ``supported``. Accuracies are fractions.

    Raises :class:`ResultsError` where the results hold no sweep.
    """
    import pandas as pd

    rows = results[results["alpha"].notna()]
    rows = rows[rows["split"].fillna("test") == split]
    if metric and not (rows["metric"] == metric).any():
        known = ", ".join(sorted(map(str, rows["metric"].unique())))
        raise ResultsError(f"no row measures {metric!r}", f"metrics there are: {known}")
    records: list[dict[str, Any]] = []
    unnamed = []
    for (run, alpha), group in rows.groupby(["run", "alpha"], sort=True):
        named = [name for name in group["patching"].dropna().unique() if name]
        target = patching or (named[0] if named else None)
        if target is None:  # a run of zeroshot or eval: no sweep
            unnamed.append(run)
            continue
        strange = sorted(set(supported or ()) - set(group["task"]))
        if strange:
            tasks = ", ".join(sorted(group["task"].unique()))
            raise ResultsError(f"{strange[0]!r} was not measured in run {run!r}", f"tasks there are: {tasks}")
        mine = group[group["task"] == target]
        if mine.empty and patching:
            tasks = ", ".join(sorted(group["task"].unique()))
            raise ResultsError(f"{patching!r} was not measured in run {run!r}", f"tasks there are: {tasks}")
        shown = metric or (mine["metric"].iloc[0] if len(mine) else None)
        mine = mine[mine["metric"] == shown].drop_duplicates("task", keep="last")
        # Each supported task with the same metric, or with the first of its own.
        others = group[group["task"] != target]
        others = others[others["task"].isin(supported)] if supported is not None else others
        others = others.sort_values("metric", key=lambda names: names != shown, kind="stable").drop_duplicates("task")
        if mine.empty:
            continue
        half = (others["ci_high"] - others["ci_low"]) / 2
        picked = group[group["chosen"].fillna(value=False).astype(bool)]
        records.append({
            "run": run, "model": mine["model"].iloc[0], "method": mine["method"].iloc[0], "task": target, "metric": shown,
            "alpha": alpha,
            "patching": mine["value"].iloc[0], "supported": others["value"].mean() if len(others) else float("nan"),
            "patching_low": mine["ci_low"].iloc[0], "patching_high": mine["ci_high"].iloc[0],
            "supported_half": float((half**2).sum() ** 0.5 / len(half)) if len(half) else float("nan"),
            "names": ", ".join(others["task"]), "chosen": not picked.empty,
            "selected_on": picked["selected_on"].iloc[0] if len(picked) else None,
        })  # fmt: skip
    if unnamed and not records:
        raise ResultsError(f"run {unnamed[0]!r} does not say which task was patched", "name it with --patching TASK")
    if not records:
        raise ResultsError(
            f"the results hold no sweep over alpha on the {split!r} split",
            "run `wisepatch interpolate` or `wisepatch patch`",
        )
    table = pd.DataFrame(records)
    bare = table["supported"].isna()
    if bare.any() and not bare.all():  # their x axis would be another one
        left_out = list(table[bare]["run"].unique())
        table = table[~bare].reset_index(drop=True)
        table.attrs["left_out"] = left_out
    return table


def draw_sweep(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw accuracy on the patching task (y) over mean accuracy on the supported tasks (x), in per cent, one curve a run.

    Zero-shot, fine-tuned and chosen points are marked and carry 95 % intervals where the results have them. Without supported
    tasks the x axis is alpha. ``table`` is what :func:`sweep_table` returns.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.2, 5.4), layout="constrained", dpi=144)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    over_alpha = bool(table["supported"].isna().all())
    marks: dict[str, tuple[str, float, str]] = {}
    alone = table["run"].nunique() == 1
    for number, (run, curve) in enumerate(table.groupby("run", sort=False)):
        color = COLORS[number % len(COLORS)]
        name = str(curve["model"].iloc[0] or run) if alone else str(run)
        name += FISHER_WORDS if (curve["method"] == "fisher").any() else ""
        x = curve["alpha"] if over_alpha else curve["supported"]
        style = STYLES[number // len(COLORS) % len(STYLES)]
        axes.plot(x, curve["patching"], style, color=color, linewidth=1.8, zorder=2, label=name)
        axes.plot(x, curve["patching"], ".", color=color, markersize=7, zorder=3)
        for _, point in curve.iterrows():
            marks |= _mark(axes, point, color, over_alpha=over_alpha, alone=alone)
    for label, (marker, size, face) in marks.items():  # explained once, in a colour that belongs to no run
        edge = COLORS[0] if alone else "#555555"
        axes.plot([], [], marker, markersize=size, markerfacecolor=face if face == "white" else edge, markeredgecolor=edge,
                  markeredgewidth=1.6, linestyle="none", label=label)  # fmt: skip
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    tasks = ", ".join(table["task"].unique())
    measure = " / ".join(METRIC_WORDS.get(name, name) for name in table["metric"].unique())
    axes.set_ylabel(f"{measure} on the patching task ({tasks})")
    if over_alpha:
        axes.set_xlabel("alpha (0 is zero-shot, 1 is fine-tuned)")
    else:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.locator_params(axis="x", nbins=5)  # a narrow range has labels like 99.650 %
        names = " / ".join(name for name in dict.fromkeys(table["names"]) if name)
        counts = [len(name.split(", ")) for name in dict.fromkeys(table["names"]) if name]
        count = " / ".join(f"{number} task{'s' if number > 1 else ''}" for number in counts)
        axes.set_xlabel(f"mean {measure} on the supported tasks ({names if len(names) <= MOST_LETTERS else count})")
    axes.margins(0.09)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title or f"Mixing zero-shot and fine-tuned weights: {tasks}", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8.5, loc="best")
    if not over_alpha:
        _label_alphas(figure, axes, table)
    return figure


def alpha_table(results: pd.DataFrame, *, split: str = "test", metric: str | None = None) -> pd.DataFrame:
    """One row for each task, metric and alpha of a single run.

    Its columns are ``task, metric, alpha, value, ci_low, ci_high, patching, chosen, selected_on``. Of each task the first
    metric that was measured (or ``metric``), and the attack success, worst group or pm10 beside it.

    Raises :class:`ResultsError` where the results hold no sweep, or several.
    """
    rows = results[results["alpha"].notna() & (results["split"].fillna("test") == split)]
    runs = [run for run, mine in rows.groupby("run", sort=False) if mine["alpha"].nunique() > 1]
    if len(runs) != 1:
        found = f"{len(runs)} sweeps" if runs else "none"
        raise ResultsError(
            f"one sweep is drawn over alpha, and here are {found} on the {split!r} split",
            f"name one with --run: {', '.join(map(str, runs))}" if runs else "run `wisepatch interpolate`",
        )
    rows = rows[rows["run"] == runs[0]]
    first = rows.groupby("task", sort=False)["metric"].transform("first")
    shown = rows["metric"] == (metric or first)
    if not shown.any():
        known = ", ".join(sorted(map(str, rows["metric"].unique())))
        raise ResultsError(f"no row measures {metric!r}", f"metrics there are: {known}")
    kept = rows[shown | (rows["metric"].isin(BESIDE) & (metric is None))]
    columns = ["task", "metric", "alpha", "value", "ci_low", "ci_high", "patching", "chosen", "selected_on"]
    return kept.drop_duplicates(["task", "metric", "alpha"], keep="last").sort_values("alpha", kind="stable")[columns]


def draw_over_alpha(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw every task over alpha, in per cent, one curve a task and metric; ``table`` is what :func:`alpha_table` returns.

    The patching task is drawn thick, metrics beside the first of a task dashed, intervals as bands, the chosen alpha as a line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.2, 5.0), layout="constrained", dpi=144)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = {task: COLORS[number % len(COLORS)] for number, task in enumerate(table["task"].unique())}
    for (task, metric), curve in table.groupby(["task", "metric"], sort=False):
        patching = task in set(table["patching"].dropna())
        style = "--" if _beside(table, task, metric) else "-"
        axes.plot(curve["alpha"], curve["value"], style, color=colors[task], linewidth=2.4 if patching else 1.5,
                  marker=".", label=f"{task}, {METRIC_WORDS.get(str(metric), metric)}")  # fmt: skip
        axes.fill_between(
            curve["alpha"], curve["ci_low"], curve["ci_high"], color=colors[task], alpha=0.12, linewidth=0
        )
    picked = table[table["chosen"].fillna(value=False).astype(bool)]
    if len(picked):
        on = {"val": "validation", "test": "TEST"}.get(str(picked["selected_on"].iloc[0]), "")
        axes.axvline(picked["alpha"].iloc[0], color="#555555", linewidth=1, linestyle=":",
                     label=f"chosen on {on} data (alpha {picked['alpha'].iloc[0]:g})")  # fmt: skip
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_xlabel("alpha (0 is zero-shot, 1 is fine-tuned)")
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    tasks = ", ".join(str(name) for name in table["patching"].dropna().unique())
    axes.set_title(title or f"Mixing zero-shot and fine-tuned weights: {tasks}", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8.5, loc="best")
    return figure


def _beside(table: pd.DataFrame, task: object, metric: object) -> bool:
    """Whether a metric stands beside another, first one of its task."""
    return bool(table[table["task"] == task]["metric"].iloc[0] != metric)


def _mark(axes: Axes, point: Any, color: str, *, over_alpha: bool, alone: bool) -> dict[str, tuple[str, float, str]]:
    """Mark an end of the line or the chosen point, with its interval; return what the legend has to explain."""
    marks: dict[str, tuple[str, float, str]] = {}
    if point["alpha"] == 0:
        marks["zero-shot (alpha 0)"] = ("o", 9, "white")
    if point["alpha"] == 1:
        marks["fine-tuned (alpha 1)"] = ("s", 8.5, "white")
    if point["chosen"]:
        on = f" on {'validation' if point['selected_on'] == 'val' else 'TEST'} data" if point["selected_on"] else ""
        marks[f"chosen{on} (alpha {point['alpha']:g})" if alone else f"chosen{on}"] = ("*", 17, color)
    x, y = point["alpha"] if over_alpha else point["supported"], point["patching"]
    for marker, size, face in marks.values():
        if point["patching_low"] == point["patching_low"]:  # not NaN
            half = point["supported_half"]
            across = None if over_alpha or half != half else [[min(half, x)], [min(half, 1 - x)]]
            down = [[max(y - point["patching_low"], 0)], [max(point["patching_high"] - y, 0)]]
            axes.errorbar(x, y, yerr=down, xerr=across, color=color, alpha=0.45, linewidth=1, capsize=2.5, zorder=1)
        axes.plot([x], [y], marker, markersize=size, markerfacecolor=face, markeredgecolor=color, markeredgewidth=1.6,
                  zorder=5, linestyle="none")  # fmt: skip
    return marks


def _label_alphas(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    """Write alphas beside their points, the ends and the chosen one first, others where there is room."""
    figure.canvas.draw()
    scale = figure.dpi / 72
    placed: list[tuple[float, float]] = []
    urgent = table["chosen"] | table["alpha"].isin([0.0, 1.0])
    for _, point in [*table[urgent].iterrows(), *table[~urgent].iterrows()]:
        x, y = axes.transData.transform((point["supported"], point["patching"])) / scale
        if any(abs(x - px) < 2.6 * LABEL_GAP and abs(y - py) < LABEL_GAP for px, py in placed):
            continue
        placed.append((x, y))
        axes.annotate(f"{point['alpha']:g}", (point["supported"], point["patching"]), xytext=(8, 4), textcoords="offset points",
                      fontsize=8, color="#333333", zorder=6)  # fmt: skip


def save_figure(figure: Figure, path: Path) -> None:
    """Write PNG, SVG or PDF by suffix. Raises :class:`UsageError` for any other, and for a folder that cannot be written."""
    check_picture_path(path)
    with drawing(path):
        figure.savefig(path)


def check_picture_path(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Make the picture's folder; raise :class:`UsageError` if it cannot be made or the suffix cannot be drawn."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(
            f"cannot draw {path.suffix or 'a file without suffix'!r} ({path})", f"pictures end in {', '.join(suffixes)}"
        )
    with drawing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
