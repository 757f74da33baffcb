"""The scatter of distribution shifts: accuracy under a shift over that on the reference task, with the line of standard models.

WiSE-FT, figure 1: logit axes, on which standard models lie on a line; effective robustness is the distance above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.robustness import Line, expit, logit
from wisepatch.reports.plots.frontier import CHOSEN, ENDS, MARK, scaled
from wisepatch.reports.plots.labels import Label, place_labels
from wisepatch.reports.plots.literal_text import as_written
from wisepatch.reports.plots.logit_axes import clamp_of, use_logit_scale
from wisepatch.reports.plots.look import MARKERS, STYLES, Look, grid
from wisepatch.reports.plots.sheet import Sheet
from wisepatch.reports.plots.shifts import MEAN
from wisepatch.reports.plots.words import axis_label, chosen_words, images_words, start_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF: dict[str, Any] = {"marker": "D", "markersize": 7}  # alpha 0.5, WiSE-FT's advice
PANEL_HEIGHT, ALONE_HEIGHT, PANELS_ACROSS = 2.35, 4.0, 3
CURVE_POINTS = 120  # of a line that is straight between logits
SMALL_LETTERS = 0.92  # of rho beside a point, in small letters


def is_mean(shift: str) -> bool:
    """Tell whether the rows of a shift are the mean of several."""
    return shift.startswith(f"{MEAN} of ") and shift.endswith(" shifts")


def marked(table: pd.DataFrame) -> pd.Series:
    """Tell which points of a table are marked: zero-shot, fine-tuned, alpha 0.5, and the chosen one."""
    return table["chosen"] | table["alpha"].isin([0.0, 0.5, 1.0])


@as_written
def draw_robustness(
    table: pd.DataFrame, title: str | None, look: Look, *, models: Mapping[str, Any] | None = None
) -> Figure:
    """Draw accuracy under each shift (y) over that on the reference task (x) on logit axes, a panel a shift and one for the mean.

    Curves go over alpha, one a run; zero-shot, fine-tuned, alpha 0.5 and chosen points are marked, with 95 % intervals where n is
    known, and rho, in points, beside them. The line of standard models is drawn where there is one, as are the ``models`` that it
    was fitted to (accuracies ``(m,)`` by task). ``table`` is what :func:`robustness_table` returns.
    """
    shifts = list(table["shift"].unique())
    rows, columns = grid(len(shifts), PANELS_ACROSS)
    means = table[table["shift"].map(is_mean)]
    reference = str((means if len(means) else table)["reference_task"].iloc[0])
    height = PANEL_HEIGHT * rows if columns > 1 else ALONE_HEIGHT
    sheet = Sheet(
        look, height, title=f"Robustness to shifts of {reference}", own_title=title, note=_note(table, look),
        split=str(table["split"].iloc[0]), panels=columns > 1,
    )  # fmt: skip
    panels = sheet.subplots(rows, columns)
    clamp = clamp_of(table[["value", "reference"]].to_numpy())
    legend: dict[str, Any] = {}
    for number, (axes, shift) in enumerate(zip(panels, shifts, strict=False)):
        of_shift = table[table["shift"] == shift]
        legend |= _draw_panel(sheet, axes, of_shift, clamp, models or {})
        on = str(of_shift["reference_task"].iloc[0])
        across = (
            f"{_accuracy(table)} on {on}" if on != reference or number + columns >= len(shifts) or columns == 1 else ""
        )
        up = f"{_accuracy(table)} under the shift" if number % columns == 0 else ""
        sheet.label(axes, across, up, title=str(shift), share=1 / columns)
    for axes in panels[len(shifts) :]:
        axes.remove()
    lines = ("standard models", "y = x")
    order = sorted(legend, key=lambda label: (label.startswith(lines), legend[label].get_linestyle() == "None"))
    figure = sheet.finish({label: legend[label] for label in order})
    for axes, shift in zip(panels, shifts, strict=False):
        _label_rho(sheet, axes, table[table["shift"] == shift], clamp)
    return figure


def _accuracy(table: pd.DataFrame) -> str:
    return axis_label(table["metric"].unique())


def _note(table: pd.DataFrame, look: Look) -> str:
    measured = table[~table["shift"].map(is_mean)]
    tasks = [*measured["shift"], *measured["reference_task"]]
    images = images_words(tasks, [*measured["n"], *measured["reference_n"]], look.labels)
    words = [images, "bars: 95 % intervals" if table["ci_low"].notna().any() else "no intervals without it"]
    sources = list(measured["line"].dropna().unique())
    if sources:
        words.append("numbers: rho, points above the line of standard models")
        words.append(f"lines: {'; '.join(map(str, sources))}")
    bare = [str(shift) for shift in table["shift"].unique() if table[table["shift"] == shift]["line"].isna().all()]
    if bare:
        words.append(f"no line is known for {', '.join(bare) if len(bare) < 3 else f'{len(bare)} of them'}")
    return "; ".join(words)


def _draw_panel(
    sheet: Sheet, axes: Axes, table: pd.DataFrame, clamp: float, models: Mapping[str, Any]
) -> dict[str, Any]:
    """Draw one shift; return what the legend explains."""
    theme, legend = sheet.theme, dict[str, Any]()
    shift, on = str(table["shift"].iloc[0]), str(table["reference_task"].iloc[0])
    runs = table["run"].nunique()
    for number, (_, curve) in enumerate(table.groupby("run", sort=False)):
        color = theme.colors[number % len(theme.colors)]
        curve = curve.sort_values("alpha")
        (line,) = axes.plot(
            _within(curve["reference"], clamp), _within(curve["value"], clamp), STYLES[number // len(theme.colors) % len(STYLES)],
            color=color, linewidth=1.6 * sheet.scale, marker="." if runs == 1 else MARKERS[number % len(MARKERS)],
            markersize=(4.5 if runs == 1 else 3) * sheet.scale, zorder=3,
        )  # fmt: skip
        legend[f"{curve['run_name'].iloc[0]}, over alpha" if runs == 1 else str(curve["run_name"].iloc[0])] = line
        _draw_marks(sheet, axes, curve, color, clamp, legend, one_run=runs == 1)
    points = table[marked(table)]
    bars = [points[name] for name in ("reference_low", "reference_high", "ci_low", "ci_high")]
    drawn = {name: models[name] for name in (on, shift) if name in models} if {on, shift} <= set(models) else {}
    x = [*table["reference"], *bars[0], *bars[1], *drawn.get(on, ())]
    y = [*table["value"], *bars[2], *bars[3], *points["predicted"], *drawn.get(shift, ())]
    use_logit_scale(axes, x, y, clamp)
    if drawn:
        (dots,) = axes.plot(
            _within(drawn[on], clamp),
            _within(drawn[shift], clamp),
            "x",
            color=theme.muted,
            markersize=4 * sheet.scale,
            zorder=1,
        )
        legend["standard models"] = dots
    import numpy as np

    low, high = logit(axes.get_xlim(), clamp)
    across = expit(np.linspace(float(low), float(high), CURVE_POINTS))
    (same,) = axes.plot(
        across, across, ":", color=theme.muted, linewidth=1.1 * sheet.scale, zorder=1, scalex=False, scaley=False
    )
    legend["y = x"] = same
    if table["slope"].notna().any():
        row = table.iloc[0]
        fitted = Line(shift, on, float(row["slope"]), float(row["intercept"]))
        (standard,) = axes.plot(
            across,
            fitted.predict(across),
            "-",
            color=theme.muted,
            linewidth=1.6 * sheet.scale,
            zorder=2,
            scalex=False,
            scaley=False,
        )
        legend["standard models, the fitted line"] = standard
    return legend


def _draw_marks(
    sheet: Sheet, axes: Axes, curve: pd.DataFrame, color: str, clamp: float, legend: dict[str, Any], *, one_run: bool
) -> None:
    """Mark the named points of a run, with intervals, and add what the marks mean to the legend."""
    import numpy as np

    for _, point in curve[marked(curve)].iterrows():
        if np.isnan([point["reference"], point["value"]]).any():
            continue
        x, y = (float(_within([point[name]], clamp)[0]) for name in ("reference", "value"))
        limits = [
            _within([point[name] for name in pair], clamp)
            for pair in (("ci_low", "ci_high"), ("reference_low", "reference_high"))
        ]
        bars = [[[max(at - low, 0)], [max(high - at, 0)]] for at, (low, high) in zip((y, x), limits, strict=True)]
        axes.errorbar(
            x, y, yerr=bars[0], xerr=bars[1], fmt="none", ecolor=color, alpha=0.55, elinewidth=sheet.scale,
            capsize=2 * sheet.scale, zorder=2,
        )  # fmt: skip
        alpha = point["alpha"]
        styles = {
            0.0: (start_words(str(point["start"])), ENDS[0.0]),
            0.5: ("alpha 0.5", HALF),
            1.0: ("fine-tuned", ENDS[1.0]),
        }
        here = [styles[alpha]] if alpha in styles else []
        if point["chosen"]:
            here.append((chosen_words(point) + (f" (alpha {alpha:g})" if one_run else ""), CHOSEN))
        for label, style in here:
            (mark,) = axes.plot([x], [y], color=color, zorder=5, clip_on=False, **MARK, **scaled(style, sheet, 0.75))
            if label not in legend:
                legend[label] = mark


def _within(values: Any, clamp: float) -> Any:
    """Move accuracies of 0 and 1 to where the axes show them; NaN stays."""
    import numpy as np

    return np.clip(np.asarray(values, float), clamp, 1 - clamp)


def _label_rho(sheet: Sheet, axes: Axes, table: pd.DataFrame, clamp: float) -> None:
    """Write rho, in points, beside the marked points that have one."""
    points = table[marked(table) & table["value"].notna() & table["reference"].notna()]
    places = [(float(x), float(y)) for x, y in _within(points[["reference", "value"]], clamp)]
    labels = [
        Label(*at, f"{rho:+.1f}", urgent=True) for at, rho in zip(places, points["rho"], strict=True) if rho == rho
    ]  # fmt: skip
    place_labels(axes, labels, places, size=sheet.small * SMALL_LETTERS, color=sheet.theme.ink)
