"""Place labels beside points so that none covers another or leaves its axes, and leave out ticks that would."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox
    from numpy.typing import NDArray

DIRECTIONS = (20, -25, 155, 205, 90, 270, 60, 300, 120, 240)  # degrees, the best first
RINGS = (1.0, 1.6, 2.4, 3.4, 4.6)  # distances, in gaps
MARK_POINTS = 7.5  # half a mark that no label may cover
GAP_POINTS = 9.0
BETWEEN_LABELS = 4  # pixels between the labels of ticks
BETWEEN = 12  # points between two of a curve that labels are kept away from


@dataclass(frozen=True)
class Label:
    """A text beside a point of the data; an ``urgent`` one is placed first, farther away where there is no room."""

    x: float
    y: float
    text: str
    urgent: bool = False


def place_labels(
    axes: Axes, labels: Sequence[Label], marks: Iterable[tuple[float, float]], *, size: float, color: str
) -> None:
    """Write labels beside their points: within the axes, over no other label and no mark, and over as little as can be of curves.

    A label for which there is no room is left out. The layout must be final.
    """
    import numpy as np

    scale = axes.figure.dpi / 72
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inside = axes.get_window_extent(renderer)
    half = MARK_POINTS * scale * size / 8
    places = [axes.transData.transform(mark) for mark in marks]
    marked = [_box(float(x), float(y), 2 * half, 2 * half) for x, y in places]
    curve = np.concatenate([np.zeros((0, 2)), *(_between(line) for line in axes.lines)])
    taken: list[Bbox] = []
    for label in sorted(labels, key=lambda each: not each.urgent):
        at = axes.transData.transform((label.x, label.y))
        if not np.isfinite(at).all() or not inside.contains(*at):
            continue
        text: Any = axes.annotate(
            label.text, (label.x, label.y), xytext=(0, 0), textcoords="offset points", fontsize=size, color=color,
            zorder=6, ha="center", va="center",
        )  # fmt: skip
        text.set_in_layout(False)
        extent = text.get_window_extent(renderer)
        best = None
        for ring in RINGS if label.urgent else RINGS[:1]:
            for angle in DIRECTIONS:
                gap = GAP_POINTS * scale * ring * size / 8
                dx = math.cos(math.radians(angle)) * (gap + extent.width / 2)
                dy = math.sin(math.radians(angle)) * (gap + extent.height / 2)
                box = _box(at[0] + dx, at[1] + dy, extent.width, extent.height)
                free = _within(box, inside) and not any(box.overlaps(each) for each in (*taken, *marked))
                if free:
                    covered = _covered(curve, box)
                    if best is None or covered < best[0]:
                        best = covered, dx, dy, box
            if best is not None and best[0] == 0:
                break
        if best is None or (not label.urgent and best[0] > 0):
            text.remove()
            continue
        text.set_position((best[1] / scale, best[2] / scale))
        taken.append(best[3].padded(3 * scale if label.urgent else 6 * scale))


def _between(line: Line2D) -> NDArray[np.float64]:
    """Return points along a curve in pixels, ``(n, 2)``, close to each other; none of one that is not shown in data coordinates."""
    import numpy as np

    points: NDArray[np.float64] = line.get_transform().transform(line.get_xydata())
    points = points[np.isfinite(points).all(1)]
    if len(points) < 2 or line.get_linestyle() in ("None", ""):
        return points[:0]
    share = np.linspace(0, 1, BETWEEN)[:, None, None]
    return np.asarray((points[:-1] * (1 - share) + points[1:] * share).reshape(-1, 2))


def _box(x: float, y: float, width: float, height: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def _within(box: Bbox, around: Bbox) -> bool:
    return bool(box.x0 >= around.x0 and box.x1 <= around.x1 and box.y0 >= around.y0 and box.y1 <= around.y1)


def _covered(points: NDArray[np.float64], box: Bbox) -> int:
    return int(((points > box.min).all(1) & (points < box.max).all(1)).sum())


def thin_ticks(axes: Axes, named: Container[Axis] = ()) -> bool:
    """Leave out labels of numbers along axes that would cover others; return whether there were any. Names all stay (``named``)."""
    changed = False
    for axis in (axes.xaxis, axes.yaxis):
        shown, apart = _tick_labels(axes, axis)
        if apart < len(shown) and axis not in named:
            axis.set_ticks([place for place, _ in shown][:: math.ceil(len(shown) / max(apart, 1))])
            changed = True
    return changed


def crowded(axes: Axes, named: Container[Axis]) -> bool:
    """Tell whether the names along an axis of ``named`` cover each other."""
    found = [_tick_labels(axes, axis) for axis in (axes.xaxis, axes.yaxis) if axis in named]
    return any(apart < len(shown) for shown, apart in found)


def _tick_labels(axes: Axes, axis: Axis) -> tuple[list[tuple[float, Bbox]], int]:
    """Return place and box of the labels along an axis, and how many of them, from the first on, stand apart."""
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    across = axis is axes.xaxis
    low, high = sorted(axis.get_view_interval())
    shown = [
        (float(tick.get_loc()), tick.label1.get_window_extent(renderer))
        for tick in axis.get_major_ticks()
        if tick.label1.get_visible() and tick.label1.get_text() and low <= tick.get_loc() <= high
    ]
    apart, end = 0, -math.inf
    for _, box in sorted(shown, key=lambda each: each[1].x0 if across else each[1].y0):
        start, gap = (box.x0, BETWEEN_LABELS) if across else (box.y0, 0)
        if start >= end + gap:
            apart, end = apart + 1, box.x1 if across else box.y1
    return shown, apart
