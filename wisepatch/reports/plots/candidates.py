"""The candidates of a merge: mean accuracy on the tasks of its ends against that on the supported tasks, candidate by candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.intervals import of_means
from wisepatch.analysis.sweep_frame import PATCHING, SUPPORTED
from wisepatch.counting import count
from wisepatch.errors import ResultsError
from wisepatch.reports.plots.frontier import CHOSEN, ENDS, HEIGHT, MARK, draw_intervals, scaled, supported_words
from wisepatch.reports.plots.labels import Label, place_labels
from wisepatch.reports.plots.literal_text import as_written
from wisepatch.reports.plots.look import Look
from wisepatch.reports.plots.percent_axes import in_per_cent
from wisepatch.reports.plots.sheet import Sheet
from wisepatch.reports.plots.words import axis_label, chosen_words, images_words
from wisepatch.weights.parameters import label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

START, END, MERGE = "start", "end", "merge"
ENSEMBLES = "output-"  # what methods begin with of which no checkpoint comes


def candidate_table(results: pd.DataFrame, split: str | None = None) -> pd.DataFrame:
    """Gather the results of one merge into a row for each candidate, end and start, on a split.

    Its columns are ``kind`` (``start``, ``end``, ``merge``), ``method, metric, split, chosen, selected_on``, the means ``patching``
    (over the tasks of the ends) and ``supported`` with their intervals (``..._low``, ``..._high``), ``task`` and ``names`` (those
    tasks), ``images`` (their numbers), and of a merge the parameters that vary in words (``params``): ``along`` is the name of the
    number that varies most, ``value`` its value, ``others`` are the others. Without ``split`` it is ``val`` where candidates were
    measured on it, from which one is chosen then, else ``test``.

    Raises :class:`ResultsError` without a candidate on the split, and where no supported task was measured.
    """
    import pandas as pd

    merges = results[results["candidate"].fillna(0) > 0]
    split = split or ("val" if (merges["split"] == "val").any() else "test")
    rows = results[(results["split"] == split) & ~results["method"].str.startswith(ENSEMBLES, na=False)]
    rows = rows[rows["metric"] == rows.groupby("task")["metric"].transform("first")]
    if not (rows["candidate"] > 0).any() or not {PATCHING, SUPPORTED} <= set(rows["role"]):
        reason = f"the results hold no merge with supported tasks on the {split!r} split"
        raise ResultsError(reason, "measure some with --eval, or draw another --split")
    tasks = {role: list(rows[rows["role"] == role]["task"].unique()) for role in (PATCHING, SUPPORTED)}
    images = {str(task): float(n) for task, n in rows.groupby("task", sort=False)["n"].max().items()}
    candidates: list[dict[str, Any]] = []
    for _, measured in rows.groupby("checkpoint", sort=False):
        first = measured.iloc[0]
        number = first["candidate"]
        kind = MERGE if number > 0 else START if number == 0 else END
        candidates.append({
            "kind": kind, "method": first["method"], "metric": axis_label(rows["metric"].unique()), "split": split,
            "chosen": bool(first["chosen"] or False), "selected_on": first["selected_on"], "images": images,
            "task": ", ".join(tasks[PATCHING]), "names": ", ".join(tasks[SUPPORTED]),
            "params": _params(first) if kind == MERGE else {}, **_mean(measured, PATCHING), **_mean(measured, SUPPORTED),
        })  # fmt: skip
    names = _varying([each["params"] for each in candidates if each["kind"] == MERGE])
    for each in candidates:
        varying = {name: value for name, value in each["params"].items() if name in names}
        along = next((name for name in names[:1] if isinstance(varying.get(name), int | float)), "")
        each |= {"params": label(varying), "along": along, "value": varying.pop(along, float("nan"))}
        each["others"] = label(varying)
    return pd.DataFrame(candidates).sort_values(["others", "value"], kind="stable", ignore_index=True)


def _params(row: Any) -> dict[str, Any]:
    """Return the parameters of a merge; a row has ``alpha`` beside the others."""
    params = dict(row["params"]) if isinstance(row["params"], dict) else {}
    return params if row["alpha"] != row["alpha"] or row["alpha"] is None else {"alpha": float(row["alpha"]), **params}


def _mean(rows: pd.DataFrame, role: str) -> dict[str, float]:
    of_role = rows[rows["role"] == role]
    low, high = of_means(of_role["value"], of_role["ci_low"], of_role["ci_high"], list(of_role["task"]))
    return {role: float(of_role["value"].mean()), f"{role}_low": low, f"{role}_high": high}


def _varying(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the parameters that vary, numbers first, and of these the one that has most values; of several the last, a scale."""
    values = {name: [each.get(name) for each in candidates] for name in candidates[0]}
    distinct = {name: len(set(map(str, each))) for name, each in values.items()}
    varying = [name for name in reversed(values) if distinct[name] > 1]
    return sorted(varying, key=lambda name: (not isinstance(values[name][0], int | float), -distinct[name]))


@as_written
def draw_candidates(table: pd.DataFrame, title: str | None, look: Look) -> Figure:
    """Draw what a merge could choose from: the tasks of its ends (y) over the supported tasks (x), in per cent.

    A curve follows the number that varies most, one for each combination of the other parameters; where these are more than there
    are colours, candidates are dots. Start, ends and the chosen one are marked and carry 95 % intervals. ``table`` is what
    :func:`candidate_table` returns.
    """
    merges, ends = table[table["kind"] == MERGE], int((table["kind"] == END).sum())
    method, tasks, along = merges["method"].iloc[0], merges["task"].iloc[0], merges["along"].iloc[0]
    images = merges["images"].iloc[0]
    beside = f"; numbers beside points: {along}" if along else ""
    sheet = Sheet(
        look, HEIGHT, title=f"Merging {count(ends, 'model')} by {method}: {tasks}", own_title=title,
        note=f"{images_words(images, images.values(), look.labels)}; bars: 95 % intervals{beside}", split=merges["split"].iloc[0],
    )  # fmt: skip
    (axes,) = sheet.subplots()
    legend = _draw_merges(sheet, axes, merges, str(method))
    legend |= _mark_models(sheet, axes, table)
    in_per_cent(axes.xaxis, axes.yaxis)
    axes.margins(0.09)
    axes.locator_params(axis="x", nbins=5)
    metric = merges["metric"].iloc[0]
    sheet.label(axes, f"mean {metric} on the supported tasks ({supported_words(merges)})", f"mean {metric} on {tasks}")
    figure = sheet.finish(legend)
    labels = [
        Label(each["supported"], each["patching"], f"{each['value']:g}", urgent=bool(each["chosen"]))
        for _, each in merges.iterrows()
        if each["along"]
    ]
    marked = table[table["chosen"] | (table["kind"] != MERGE)]
    places = zip(marked["supported"], marked["patching"], strict=True)
    place_labels(axes, labels, places, size=sheet.small, color=sheet.theme.ink)
    return figure


def _draw_merges(sheet: Sheet, axes: Axes, merges: pd.DataFrame, method: str) -> dict[str, Any]:
    """Draw a curve for each combination of parameters beside the one that it follows, or dots; return the legend."""
    colors, legend = sheet.theme.colors, dict[str, Any]()
    style: dict[str, Any] = {"marker": ".", "markersize": 7 * sheet.scale, "linewidth": 1.6 * sheet.scale, "zorder": 2}
    if merges["others"].nunique() > len(colors):
        merges = merges.assign(others="")
        style |= {"linestyle": "none"}
    for number, (others, curve) in enumerate(merges.groupby("others", sort=False)):
        name = ", ".join(filter(None, (method, str(others))))
        (legend[name],) = axes.plot(curve["supported"], curve["patching"], color=colors[number], **style)
    return legend


def _mark_models(sheet: Sheet, axes: Axes, table: pd.DataFrame) -> dict[str, Any]:
    """Mark the start, the ends and the chosen candidate, or the only one; return the legend."""
    legend: dict[str, Any] = {}
    merged, chosen = table["kind"] == MERGE, table["chosen"]
    only = merged if merged.sum() == 1 and not chosen.any() else merged & False
    marked: tuple[tuple[Any, str, dict[str, Any]], ...] = (
        (table["kind"] == START, "the start", ENDS[0.0]), (table["kind"] == END, "the ends", ENDS[1.0]),
        (only, "the merge", CHOSEN), (chosen, "", CHOSEN),
    )  # fmt: skip
    for which, name, mark in marked:
        color = sheet.theme.ink if mark is CHOSEN else sheet.theme.muted
        for _, point in table[which].iterrows():
            draw_intervals(sheet, axes, point, color, x=point["supported"])
            params = f" ({point['params']})" if point["params"] else ""
            (legend[name or f"{chosen_words(point)}{params}"],) = axes.plot(
                [point["supported"]], [point["patching"]], color=color, zorder=5, **MARK, **scaled(mark, sheet)
            )
    return legend
