"""Draw sweeps: a DataFrame of results in, a figure out."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.sweep_frame import with_mean_of_patched
from wisepatch.datasets.fonts import has_all, installed_fonts
from wisepatch.errors import ResultsError, UnknownNameError, UsageError, WisepatchError
from wisepatch.files import check_writable, drawing, expanded
from wisepatch.plugins import find_metric
from wisepatch.progress import harmless

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
COLORS = ("#1f5fa8", "#c4541a", "#2f8f4e", "#7b4aa0", "#b0912c", "#4a4a4a")
GREY = "#555555"  # belongs to no run
MARK: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 1.6}
ZEROSHOT = "zeroshot"  # the start of a line that begins at a published model
ENDS: dict[float, dict[str, Any]] = {  # alpha: marker
    0.0: {"marker": "o", "markersize": 9, "markerfacecolor": "white"},
    1.0: {"marker": "s", "markersize": 8.5, "markerfacecolor": "white"},
}
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "loc": "best"}
STYLES = ("-", "--", ":")
EXTRA_METRICS = ("attack_success", "worst_group", "pm10")  # drawn over alpha beside the first metric of a task
MAX_AXIS_LETTERS = 44  # of the supported tasks' names
NAMING = ("task", "run_name", "model", "start", "training")  # columns of names, which may be long
MAX_NAME_LETTERS = 32
FACE = "DejaVuSans"  # matplotlib's own
NOTEBOOK_DPI = 100
LABEL_GAP_POINTS = 9.0  # between the labels of two alphas


def sweep_table(
    results: pd.DataFrame,
    *,
    patching: str | None = None,
    supported: Sequence[str] | None = None,
    split: str = "test",
    metric: str | None = None,
) -> pd.DataFrame:
    """Gather results into one row for each run and alpha.

    Its columns are ``run, run_name, model, method, task, metric, alpha, patching, supported, chosen, selected_on, start``, the
    interval of ``patching``, the half-width of that of ``supported``, and the names and metrics of the supported tasks. The metric
    is the first that a run measured on its patching task, or ``metric``. The patching task is the one that the rows name as such,
    or ``patching``; the supported accuracy is the mean over all other tasks, or over ``supported``. Accuracies are fractions.

    Raises :class:`ResultsError` where the results hold no sweep.
    """
    import pandas as pd

    results = with_mean_of_patched(results)
    curves, without_patching = [], []
    for run, rows in _swept_rows(results, split, metric).groupby("run", sort=True):
        task = patching or next(filter(None, rows["patching"].dropna()), None)
        if task is None:  # a run of zeroshot or eval: no sweep
            without_patching.append(run)
            continue
        measured = sorted(rows["task"].unique())
        missing = [name for name in (patching, *(supported or ())) if name and name not in measured]
        if missing:
            reason = f"{missing[0]!r} was not measured in run {run!r}"
            raise ResultsError(reason, f"tasks there are: {', '.join(measured)}")
        if len(curve := _curve(rows, task, supported, metric)):
            curves.append(curve)
    if not curves and without_patching:
        reason = f"run {without_patching[0]!r} does not say which task was patched"
        raise ResultsError(reason, "name it with --patching TASK")
    if not curves:
        reason = f"the results hold no sweep over alpha on the {split!r} split"
        raise ResultsError(reason, "run `wisepatch interpolate` or `wisepatch patch`")
    table = pd.concat(curves, ignore_index=True)
    bare = table["supported"].isna()
    if bare.any() and not bare.all():  # their x axis would be another one
        left_out = list(table[bare]["run_name"].unique())
        table = table[~bare].reset_index(drop=True)
        table.attrs["left_out"] = left_out
    return table


def _swept_rows(results: pd.DataFrame, split: str, metric: str | None) -> pd.DataFrame:
    """Select the rows of a split that belong to an alpha; raise where none of them measures ``metric``."""
    import pandas as pd

    rows = results[results["alpha"].notna() & (results["split"].fillna("test") == split)]
    if metric and not (rows["metric"] == metric).any():
        known = ", ".join(sorted(map(str, rows["metric"].unique())))
        raise ResultsError(f"no row measures {metric!r}", f"metrics there are: {known}")
    return rows.assign(
        start=rows.get("start", pd.Series(index=rows.index, dtype=object)).fillna(ZEROSHOT),
        run_name=rows.get("run_name", rows["run"]).replace("", None).fillna(rows["run"]),
        chosen=rows["chosen"].fillna(value=False).astype(bool),
    )


def _curve(rows: pd.DataFrame, task: str, supported: Sequence[str] | None, metric: str | None) -> pd.DataFrame:
    """Summarise the rows of a run by alpha."""
    of_task = rows[rows["task"] == task]
    metric = metric or next(iter(of_task["metric"]), None)
    of_task = of_task[of_task["metric"] == metric].drop_duplicates("alpha", keep="last").set_index("alpha").sort_index()
    others = rows[(rows["task"] != task) & (rows["task"].isin(supported) if supported is not None else True)]
    # Each supported task with the same metric, or with the first of its own.
    others = others.sort_values("metric", key=lambda names: names != metric, kind="stable")
    others = others.drop_duplicates(["alpha", "task"]).assign(half=(others["ci_high"] - others["ci_low"]) / 2)
    by_alpha = others.groupby("alpha")
    return of_task[["run", "run_name", "model", "method", "task", "metric", "chosen", "selected_on", "start"]].assign(
        patching=of_task["value"], patching_low=of_task["ci_low"], patching_high=of_task["ci_high"],
        supported=by_alpha["value"].mean(),
        supported_half=by_alpha["half"].agg(lambda half: (half**2).sum() ** 0.5 / len(half)),
        names=", ".join(others["task"].unique()), supported_metrics=_axis_label(others["metric"]),
    ).reset_index()  # fmt: skip


def as_written(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let names stand in pictures as they are: a dollar sign begins no formula, and letters come from a font that has them.

    Long names lose their middle.
    """

    @wraps(draw)
    def run(table: pd.DataFrame, title: str | None = None) -> Figure:
        from matplotlib import rc_context, rcParams

        texts_in = [str(column) for column in table if any(isinstance(value, str) for value in table[column])]
        names = {name for column in texts_in for name in table[column] if isinstance(name, str)}
        written = {name: harmless(name) for name in names}
        long = {
            name
            for column in NAMING
            if column in table
            for name in table[column]
            if len(_start_words(str(name)) if column == "start" else str(name)) > MAX_NAME_LETTERS
        }
        cut = written | {name: _without_middle(written[name]) for name in long}
        if len(set(cut.values())) == len(names):  # two names must not become one
            written = cut
        title = title and harmless(title)
        texts = "".join([*written.values(), title or ""])
        lacking = frozenset(letter for letter in set(texts) if not has_all(FACE, letter))
        families = [*rcParams["font.family"], *(family for family, _ in installed_fonts(lacking))]
        with rc_context({"text.parse_math": False, "font.family": families}), _no_words_about_letters():
            shown = {column: table[column].map(lambda value: written.get(value, value)) for column in texts_in}
            figure = draw(table.assign(**shown), title)
        figure._repr_png_ = partial(_as_png, figure)  # type: ignore[attr-defined]  # what a notebook shows
        return figure

    return run


def _without_middle(name: str) -> str:
    half = MAX_NAME_LETTERS // 2
    return f"{name[:half]}…{name[-half:]}"


@contextmanager
def _no_words_about_letters() -> Iterator[None]:
    """Draw letters that no font here has as boxes, and those of a font in its only weight, without a warning for each."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield
    finally:
        logger.setLevel(level)


def _as_png(figure: Figure) -> bytes:
    content = io.BytesIO()
    with _no_words_about_letters():
        figure.savefig(content, format="png", dpi=NOTEBOOK_DPI)
    return content.getvalue()


@as_written
def draw_sweep(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw accuracy on the patching task (y) over mean accuracy on the supported tasks (x), in per cent, one curve a run.

    Zero-shot, fine-tuned and chosen points are marked and carry 95 % intervals where the results have them. Without supported
    tasks the x axis is alpha. ``table`` is what :func:`sweep_table` returns.
    """
    from matplotlib.ticker import PercentFormatter

    tasks = ", ".join(table["task"].unique())
    figure, axes = _new_axes(5.4, title, tasks, table["start"])
    over_alpha = bool(table["supported"].isna().all())
    table = table.assign(x=table["alpha"] if over_alpha else table["supported"])
    one_run = table["run"].nunique() == 1
    marks: dict[str, dict[str, Any]] = {}
    for number, (run, curve) in enumerate(table.groupby("run", sort=False)):
        color, dashes = COLORS[number % len(COLORS)], STYLES[number // len(COLORS) % len(STYLES)]
        first = curve.iloc[0]
        name = str(first["model"] or run) if one_run and first["run_name"] == run else str(first["run_name"])
        name += ", weighed by Fisher information" if (curve["method"] == "fisher").any() else ""
        axes.plot(curve["x"], curve["patching"], dashes, color=color, linewidth=1.8, zorder=2, label=name)
        axes.plot(curve["x"], curve["patching"], ".", color=color, markersize=7, zorder=3)
        marks |= _mark(axes, curve, color, one_run=one_run)
    for label, style in marks.items():  # explained once
        axes.plot([], [], color=COLORS[0] if one_run else GREY, label=label, **MARK, **style)
    axes.set_ylabel(f"{_axis_label(table['metric'])} on the patching task ({tasks})")
    axes.margins(0.09)
    axes.legend(**LEGEND)
    if not over_alpha:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.locator_params(axis="x", nbins=5)  # a narrow range has labels like 99.650 %
        metrics = " / ".join(dict.fromkeys(table["supported_metrics"]))
        axes.set_xlabel(f"mean {metrics} on the supported tasks ({_supported_words(table)})")
        _label_alphas(figure, axes, table)
    return figure


def mean_over_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Average what :func:`sweep_table` returns over runs of one name, such as seeds: one curve a name, without marked choices.

    Names of one run keep it as it is.
    """
    import pandas as pd

    curves = []
    for name, rows in table.groupby("run_name", sort=False):
        if rows["run"].nunique() == 1:
            curves.append(rows)
            continue
        first = rows.drop_duplicates("alpha").set_index("alpha")
        means = rows.groupby("alpha")[["patching", "supported"]].mean()
        curves.append(
            first.assign(
                run=name, chosen=False, patching_low=float("nan"), patching_high=float("nan"), supported_half=float("nan"),
                patching=means["patching"], supported=means["supported"],
            ).reset_index()
        )  # fmt: skip
    return pd.concat(curves, ignore_index=True)


def alpha_table(results: pd.DataFrame, *, split: str = "test", metric: str | None = None) -> pd.DataFrame:
    """Gather the results of a single run, or of several that differ in their seed, into one row for each task, metric and alpha.

    Its columns are ``task, metric, alpha, value, ci_low, ci_high, patching, chosen, selected_on, start``. Of each task the first
    metric that was measured (or ``metric``), and the attack success, worst group or pm10 beside it. Of several seeds, whose number
    is in ``attrs["seeds"]``, ``value`` is the mean, and ``ci_low`` and ``ci_high`` are the smallest and the largest value.

    Raises :class:`ResultsError` where the results hold no sweep, or several.
    """
    rows = _swept_rows(results, split, metric)
    rows = rows[rows["metric"] == metric] if metric else rows
    runs = [str(run) for run, of_run in rows.groupby("run", sort=False) if of_run["alpha"].nunique() > 1]
    seeds = rows[rows["run"].isin(runs)].groupby("run")["seed"].first().dropna()
    several = len(runs) > 1 and seeds.nunique() == len(runs)
    if len(runs) != 1 and not several:
        count = f"{len(runs)} sweeps" if runs else "none"
        hint = f"name one with --run: {', '.join(runs)}" if runs else "run `wisepatch interpolate`"
        raise ResultsError(f"one sweep is drawn over alpha, and here are {count} on the {split!r} split", hint)
    rows = rows[rows["run"].isin(runs)]
    first = rows.groupby("task", sort=False)["metric"].transform("first")
    rows = rows[(rows["metric"] == first) | rows["metric"].isin(EXTRA_METRICS)]
    columns = ["task", "metric", "alpha", "value", "ci_low", "ci_high", "patching", "chosen", "selected_on", "start"]
    rows = rows.drop_duplicates(["run", "task", "metric", "alpha"], keep="last").sort_values("alpha", kind="stable")
    if not several:
        return rows[columns]
    table = rows.groupby(["task", "metric", "alpha"], sort=False, as_index=False).agg(
        ci_low=("value", "min"), ci_high=("value", "max"), value=("value", "mean"), chosen=("chosen", "any"),
        **{name: (name, "first") for name in ("patching", "selected_on", "start")},
    )[columns]  # fmt: skip
    table.attrs["seeds"] = len(runs)
    return table


@as_written
def draw_over_alpha(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw every task over alpha, in per cent, one curve a task and metric; ``table`` is what :func:`alpha_table` returns.

    The patching task is drawn thick, metrics beside the first of a task dashed, intervals as bands, the chosen alpha as a line.
    """
    patching = table["patching"].dropna().unique()
    seeds = table.attrs.get("seeds")
    if seeds and not title:
        title = f"{', '.join(map(str, patching))}: mean of {seeds} seeds, and the range between them"
    figure, axes = _new_axes(5.0, title, ", ".join(map(str, patching)), table["start"])
    colors = {task: COLORS[number % len(COLORS)] for number, task in enumerate(table["task"].unique())}
    first_metrics: dict[Any, str] = table.groupby("task")["metric"].first().to_dict()
    for (task, metric), curve in table.groupby(["task", "metric"], sort=False):
        style = "-" if metric == first_metrics[task] else "--"
        color, width = colors[task], 2.4 if task in patching else 1.5
        label = f"{task}, {_describe(str(metric))[0]}"
        axes.plot(curve["alpha"], curve["value"], style, color=color, linewidth=width, marker=".", label=label)
        axes.fill_between(
            curve["alpha"], curve["ci_low"], curve["ci_high"], color=color, alpha=0.25 if seeds else 0.12, linewidth=0
        )
    chosen = table[table["chosen"]].drop_duplicates("alpha")
    for number, (_, point) in enumerate(chosen.iterrows()):
        label = f"{_chosen_words(point)} (alpha {', '.join(f'{alpha:g}' for alpha in chosen['alpha'])})"
        axes.axvline(point["alpha"], color=GREY, linewidth=1, linestyle=":", label=None if number else label)
    axes.legend(**LEGEND)
    return figure


def _new_axes(height: float, title: str | None, tasks: str, starts: Iterable[str]) -> tuple[Figure, Axes]:
    """Make a figure of a height in inches, with per cent up and alpha across."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.2, height), layout="constrained", dpi=144)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    start = " / ".join(dict.fromkeys(map(_start_words, starts)))
    axes.set_xlabel(f"alpha (0 is {start}, 1 is fine-tuned)")
    axes.set_title(title or f"Mixing {start} and fine-tuned weights: {tasks}", loc="left", fontsize=11)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _describe(metric: str) -> tuple[str, str]:
    """Return the label of a metric and a note on its direction."""
    try:
        row = find_metric(metric)
    except UnknownNameError:  # from the papers' records, or of a plugin that is not installed
        return metric, ""
    return row.label or metric, "" if row.higher_is_better else " (lower is better)"


def _axis_label(metrics: Iterable[str]) -> str:
    return " / ".join("".join(_describe(metric)) for metric in dict.fromkeys(metrics))


def _supported_words(table: pd.DataFrame) -> str:
    """Name the supported tasks, or count them where the names are long."""
    runs = list(filter(None, dict.fromkeys(table["names"])))
    if len(" / ".join(runs)) > MAX_AXIS_LETTERS:
        counts = [names.count(", ") + 1 for names in runs]
        runs = [f"{count} task{'s' if count > 1 else ''}" for count in counts]
    return " / ".join(runs)


def _start_words(start: str) -> str:
    """Return what the model at alpha 0 is called."""
    return "zero-shot" if start == ZEROSHOT else start.rpartition(" (")[0] or start


def _chosen_words(point: Any) -> str:
    split = {"val": "validation", "test": "TEST"}.get(str(point["selected_on"]))
    return f"chosen on {split} data" if split else "chosen"


def _mark(axes: Axes, curve: pd.DataFrame, color: str, *, one_run: bool) -> dict[str, dict[str, Any]]:
    """Mark the ends and the chosen point, with intervals; return the label and style of each kind, for the legend."""
    marks: dict[str, dict[str, Any]] = {}
    for _, point in curve[curve["chosen"] | curve["alpha"].isin([0, 1])].iterrows():
        x, y, half = point["x"], point["patching"], point["supported_half"]
        up_and_down = [[max(y - point["patching_low"], 0)], [max(point["patching_high"] - y, 0)]]
        across = [[min(half, x)], [min(half, 1 - x)]]  # NaN draws nothing
        axes.errorbar(x, y, up_and_down, across, "none", ecolor=color, alpha=0.45, elinewidth=1, capsize=2.5, zorder=1)
        end = "fine-tuned" if point["alpha"] else _start_words(point["start"])
        here = {f"{end} (alpha {point['alpha']:g})": ENDS[point["alpha"]]} if point["alpha"] in ENDS else {}
        if point["chosen"]:
            alpha = f" (alpha {point['alpha']:g})" if one_run else ""
            here[_chosen_words(point) + alpha] = {"marker": "*", "markersize": 17}
        for style in here.values():
            axes.plot([x], [y], color=color, zorder=5, **MARK, **style)
        marks |= here
    return marks


def _label_alphas(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    """Write alphas beside their points, the ends and the chosen one first, others where there is room."""
    figure.canvas.draw()
    scale = figure.dpi / 72
    placed: list[tuple[float, float]] = []
    urgent = table["chosen"] | table["alpha"].isin([0.0, 1.0])
    for _, point in [*table[urgent].iterrows(), *table[~urgent].iterrows()]:
        at = (point["x"], point["patching"])
        x, y = axes.transData.transform(at) / scale
        if any(abs(x - px) < 2.6 * LABEL_GAP_POINTS and abs(y - py) < LABEL_GAP_POINTS for px, py in placed):
            continue
        placed.append((x, y))
        axes.annotate(f"{point['alpha']:g}", at, xytext=(8, 4), textcoords="offset points",
                      fontsize=8, color="#333333", zorder=6)  # fmt: skip


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write PNG, SVG or PDF by suffix. Raises :class:`UsageError` for any other, and for a folder that cannot be written."""
    path = expanded(path)
    check_picture_path(path)
    with drawing(path), _no_words_about_letters():
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def check_picture_path(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Raise :class:`UsageError` if the picture cannot be written there or the suffix cannot be drawn; nothing is made."""
    if path.suffix.lower() not in suffixes:
        reason = f"cannot draw {path.suffix or 'a file without suffix'!r} ({path})"
        raise UsageError(reason, f"pictures end in {', '.join(suffixes)}")
    with drawing(path):
        check_writable(path)


def picture_problems(path: Path) -> list[WisepatchError]:
    """Return why a picture cannot be drawn there, to be said with all else that is wrong."""
    try:
        check_picture_path(path)
    except UsageError as error:
        return [error]
    return []
