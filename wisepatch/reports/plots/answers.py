"""Pictures of a checkpoint's answers to a split: which classes are taken for which, and whether its confidence is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.intervals import wilson
from wisepatch.analysis.metrics import BINS, measure
from wisepatch.hookspecs import Scores
from wisepatch.reports.plots.literal_text import as_written
from wisepatch.reports.plots.look import MARKERS, STYLES, Look, contrast
from wisepatch.reports.plots.percent_axes import in_per_cent
from wisepatch.reports.plots.sheet import Sheet
from wisepatch.reports.plots.words import images_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 20  # of a matrix, those with the most mistakes
MOST_NUMBERS = 12  # classes of a matrix that has room for numbers in its cells
MOST_ACROSS, MOST_LETTERS_ACROSS = 5, 8  # classes, and letters of one, whose names stand side by side
OTHERS = "others"
CELL_INCHES, LEAST_INCHES, MOST_INCHES = 0.42, 2.6, 7.0
CONFUSION = ["checkpoint", "task", "split", "label", "answer", "images", "share", "n", "accuracy", "ci_low", "ci_high"]


def confusion_table(
    answers: pd.DataFrame, classes: Sequence[str], *, checkpoint: str = "", task: str = "", split: str = "test"
) -> pd.DataFrame:
    """Count the answers to images by true class and answer, those that are right too, one row a pair of classes.

    ``answers`` has the columns ``label`` and ``answer``, numbers of ``classes``. ``share`` is that of the images of the class;
    ``n``, ``accuracy`` and its Wilson interval are over all images. Of many classes those with the most mistakes have rows of their
    own, all others are ``others``.
    """
    import numpy as np
    import pandas as pd

    labels, said = answers["label"].to_numpy(), answers["answer"].to_numpy()
    names = list(classes)
    if len(classes) > MOST_CLASSES:
        wrong = labels != said
        mistakes = np.bincount(labels[wrong], minlength=len(classes)) + np.bincount(said[wrong], minlength=len(classes))
        kept = np.sort(np.argsort(-mistakes, kind="stable")[: MOST_CLASSES - 1])
        place = np.full(len(classes), len(kept))
        place[kept] = np.arange(len(kept))
        others_right = (place[labels] == len(kept)) & ~wrong
        labels, said = place[labels], place[said]
        names = [*(names[index] for index in kept), OTHERS]
        inner = int(((labels == len(kept)) & (said == len(kept)) & ~others_right).sum())  # mistaken for each other
    else:
        inner = 0
    counts = np.bincount(labels * len(names) + said, minlength=len(names) ** 2).reshape(len(names), -1)
    n = len(answers)
    accuracy = (int(np.trace(counts)) - inner) / n
    low, high = wilson(accuracy, n)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    shared = {
        "checkpoint": checkpoint,
        "task": task,
        "split": split,
        "n": n,
        "accuracy": accuracy,
        "ci_low": low,
        "ci_high": high,
    }
    rows = [
        {**shared, "label": names[i], "answer": names[j], "images": int(counts[i, j]), "share": float(shares[i, j])}
        for i, j in np.ndindex(counts.shape)
    ]
    return pd.DataFrame(rows, columns=CONFUSION)


@as_written
def draw_confusion(table: pd.DataFrame, title: str | None, look: Look) -> Figure:
    """Draw which classes are taken for which: true classes down, answers across, the share of a class's images as shade.

    ``table`` is what :func:`confusion_table` returns, of one checkpoint.
    """
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    names = list(table["label"].unique())
    size = len(names)
    row = table.iloc[0]
    interval = (
        f"accuracy {_percent(row['accuracy'])} (95 % interval {_percent(row['ci_low'])} to {_percent(row['ci_high'])})"
    )
    height = min(max(CELL_INCHES * size + 0.6, LEAST_INCHES), MOST_INCHES)
    sheet = Sheet(
        look, height, title=f"{row['checkpoint']} on {row['task']}: classes and answers", own_title=title,
        note=f"n = {row['n']:,} images; {interval}; shade: the share of the images of a class", split=str(row["split"]),
        panels=size > MOST_NUMBERS,
    )  # fmt: skip
    (axes,) = sheet.subplots()
    shares = table["share"].to_numpy(float).reshape(size, size)
    counts = table["images"].to_numpy().reshape(size, size)
    shades = LinearSegmentedColormap.from_list("share", [sheet.theme.ground, sheet.theme.colors[0]])
    axes.imshow(np.nan_to_num(shares), cmap=shades, vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    if size <= MOST_NUMBERS:
        for i, j in np.ndindex(size, size):
            if counts[i, j]:
                cell = to_hex(shades(float(shares[i, j])))
                color = max((sheet.theme.ground, sheet.theme.ink), key=partial(contrast, cell))
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": sheet.small * 0.9, "color": color}
                axes.text(j, i, f"{counts[i, j]:,}", **style)
    upright = size > MOST_ACROSS or max(map(len, names)) > MOST_LETTERS_ACROSS
    sheet.name_ticks(axes.xaxis, names, rotation=90 if upright else 0)
    sheet.name_ticks(axes.yaxis, names)
    sheet.label(axes, "answer", "the image shows")
    return sheet.finish()


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def calibration_table(answers: Mapping[str, pd.DataFrame], *, task: str = "", split: str = "test") -> pd.DataFrame:
    """Gather answers, by the name of a checkpoint, into one row for each bin of confidence that has images.

    ``answers`` have the columns ``label, answer, confidence``. Columns: ``checkpoint, task, split, low, high`` (of the bin), the
    mean ``confidence``, the ``accuracy`` with its Wilson interval, the bin's ``images``, and of all images ``n`` and the expected
    calibration error ``ece`` with its interval (15 bins of equal width, Guo et al. 2017).
    """
    import numpy as np
    import pandas as pd

    rows = []
    for name, frame in answers.items():
        labels, said = frame["label"].to_numpy(), frame["answer"].to_numpy()
        confidence, right = frame["confidence"].to_numpy(float), labels == said
        empty = np.zeros(len(frame))
        ece = measure("ece", labels, said, int(max(labels.max(), said.max())) + 1, Scores(confidence, empty, empty))
        bins = np.minimum((confidence.astype(np.float32) * BINS).astype(int), BINS - 1)
        shared = {"checkpoint": name, "task": task, "split": split, "n": len(frame)}
        shared |= {"ece": ece.value, "ece_low": ece.low, "ece_high": ece.high}
        for place in np.unique(bins):
            inside = bins == place
            accuracy, count = float(right[inside].mean()), int(inside.sum())
            low, high = wilson(accuracy, count)
            rows.append({
                **shared, "low": place / BINS, "high": (place + 1) / BINS, "images": count,
                "confidence": float(confidence[inside].mean()), "accuracy": accuracy, "ci_low": low, "ci_high": high,
            })  # fmt: skip
    return pd.DataFrame(rows)


@as_written
def draw_calibration(table: pd.DataFrame, title: str | None, look: Look) -> Figure:
    """Draw accuracy over confidence, bin by bin, with 95 % intervals, and below it how many images are in each bin.

    Where a model is calibrated, points lie on the diagonal. ``table`` is what :func:`calibration_table` returns.
    """
    from matplotlib.ticker import MaxNLocator

    row, checkpoints = table.iloc[0], list(table["checkpoint"].unique())
    images = images_words(table["checkpoint"], table["n"], look.labels, each="")
    sheet = Sheet(
        look, 4.6, title=f"Confidence and accuracy on {row['task']}", own_title=title, split=str(row["split"]),
        note=f"{images}; bars: 95 % intervals; ECE: expected calibration error, {BINS} bins",
    )  # fmt: skip
    upper, lower = sheet.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], ":", color=sheet.theme.muted, linewidth=1.2 * sheet.scale)
    legend: dict[str, Any] = {}
    for number, checkpoint in enumerate(checkpoints):
        bins = table[table["checkpoint"] == checkpoint].sort_values("low")
        color = sheet.theme.colors[number % len(sheet.theme.colors)]
        of_all = bins.iloc[0]
        label = f"{checkpoint}: ECE {of_all['ece']:.3f} ({of_all['ece_low']:.3f} to {of_all['ece_high']:.3f})"
        _draw_bins(sheet, upper, lower, bins, (number, color))
        (legend[label],) = upper.plot(
            [], [], STYLES[number % len(STYLES)], color=color, marker=MARKERS[number % len(MARKERS)]
        )
    in_per_cent(upper.yaxis, lower.xaxis)
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.03, 1.03)
    lower.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    upper.tick_params(labelbottom=False)
    sheet.label(upper, y="accuracy")
    sheet.label(lower, "confidence (probability of the answer)", "images")
    return sheet.finish(legend)


def _draw_bins(sheet: Sheet, upper: Axes, lower: Axes, bins: pd.DataFrame, mark: tuple[int, str]) -> None:
    number, color = mark
    bars = [bins["accuracy"] - bins["ci_low"], bins["ci_high"] - bins["accuracy"]]
    upper.errorbar(
        bins["confidence"], bins["accuracy"], bars, fmt=MARKERS[number % len(MARKERS)], linestyle=STYLES[number % len(STYLES)],
        color=color, markersize=5 * sheet.scale, linewidth=1.4 * sheet.scale, elinewidth=sheet.scale, capsize=2.5 * sheet.scale,
    )  # fmt: skip
    lower.bar(
        bins["low"], bins["images"], width=bins["high"] - bins["low"], align="edge", edgecolor=color, linewidth=1.1 * sheet.scale,
        facecolor=color if number == 0 else "none", alpha=0.35 if number == 0 else 1.0,
    )  # fmt: skip
