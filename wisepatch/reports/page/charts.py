"""Charts of a report: Vega-Lite specifications, in which names are data and never markup or code.

Fields have fixed names and colours are variables of the page's style, so that a change of theme needs no new drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wisepatch.reports.page.tables import Table

Rows = Sequence[Mapping[str, Any]]
Spec = dict[str, Any]

SERIES = [f"var(--series-{number})" for number in range(1, 9)]  # colours of runs, tasks, losses
DASHES = ([1, 0], [6, 3], [2, 2])  # of curves that share a colour
STAR = "M0,-1.2L0.35,-0.37L1.14,-0.37L0.5,0.14L0.7,0.97L0,0.45L-0.7,0.97L-0.5,0.14L-1.14,-0.37L-0.35,-0.37Z"
SHAPES = {"chosen": STAR, "zero-shot": "circle", "start": "circle", "fine-tuned": "square", "added": "square"}
MARKED = 110  # square pixels
LEGEND_LETTERS = 260  # pixels of a name in a legend; the table has it whole
HEIGHT, PANEL = 340, 150  # pixels
LEFT_BEYOND = 0.72  # of the width: labels of points further right stand to their left


@dataclass(frozen=True)
class Chart:
    """A chart, the sentence that says what it shows, and the table behind it (another chart may have it)."""

    identity: str
    title: str
    description: str
    spec: Spec
    table: Table | None = None


@dataclass(frozen=True)
class Axis:
    """An axis of logits: its title, its two ends, and where it has ticks."""

    title: str
    domain: tuple[float, float]
    ticks: tuple[float, ...]


def frontier_spec(points: Rows, x_title: str, y_title: str) -> Spec:
    """Draw accuracy on the patching task over that on the supported tasks, a curve a run, the ends and the choice marked.

    ``points`` have ``run, mix, label, alpha, x, y, x_low, x_high, y_low, y_high, mark, line``, in per cent; ``mark`` is empty but
    for the ends and the choice, ``line`` is 0 for points of no curve. Without supported tasks ``x`` is alpha.
    """
    runs = list(dict.fromkeys(point["run"] for point in points))
    color = _color("run", runs, "run")
    scale = _scale(points, "x", "x_low", "x_high", within=[0, 1] if x_title == "alpha" else None)
    ticks = {"tickCount": {"expr": "width / 90"}, "format": ".2~f"}
    x = {"field": "x", "type": "quantitative", "title": x_title, "scale": scale, "axis": ticks}
    y = {"field": "y", "type": "quantitative", "title": y_title, "scale": _scale(points, "y", "y_low", "y_high")}
    line = {
        "mark": {"type": "line", "strokeWidth": 2}, "transform": [{"filter": "datum.line == 1"}],
        "encoding": {"color": color, "order": {"field": "alpha", "type": "quantitative"}},
    }  # fmt: skip
    tips = [
        _tip("mix", "mix"), _tip("y", "patched, %", ".1f"), _tip("y_interval", "its 95 % interval"),
        *([_tip("x", "supported, %", ".1f"), _tip("x_interval", "its 95 % interval (mean)")] if x_title != "alpha" else []),
        _tip("mark", "mark"), *([_tip("run", "run")] if len(runs) > 1 else []),
    ]  # fmt: skip
    return _whole(
        points,
        [line, *_points(points, x, y, color), *_labels(scale["domain"]), _hover(tips)],
        {"x": x, "y": y},
        HEIGHT,
    )


def _points(points: Rows, x: Spec, y: Spec, color: Spec) -> list[Spec]:
    """Return layers of dots, and of the ends and the choice with their intervals."""
    marked = {"filter": "datum.mark != ''"}
    rule_y = {"mark": {"type": "rule", "opacity": 0.5}, "transform": [marked], "encoding": {
        "y": {**y, "field": "y_low"}, "y2": {"field": "y_high"}, "color": color}}  # fmt: skip
    rule_x = {"mark": {"type": "rule", "opacity": 0.5}, "transform": [marked], "encoding": {
        "x": {**x, "field": "x_low"}, "x2": {"field": "x_high"}, "color": color}}  # fmt: skip
    dots = {"mark": {"type": "point", "filled": True, "size": 30, "opacity": 1}, "encoding": {"color": color}}
    marks = list(dict.fromkeys(point["mark"] for point in points if point["mark"]))
    shapes = {"domain": marks, "range": [_shape(mark) for mark in marks]}
    shape = {"field": "mark", "type": "nominal", "scale": shapes, "legend": None}  # the words stand beside the points
    stars = {
        "mark": {"type": "point", "filled": False, "size": MARKED, "opacity": 1, "fill": "var(--paper)", "strokeWidth": 2},
        "transform": [marked], "encoding": {"shape": shape, "color": color},
    }  # fmt: skip
    return [rule_y, rule_x, dots, stars]


def _labels(domain: Sequence[float]) -> list[Spec]:
    """Return layers with the words beside marked points: to their left where these are far right, so that none leaves the chart."""
    middle = domain[0] + LEFT_BEYOND * (domain[1] - domain[0])
    sides = (("<=", {"dx": 10, "align": "left"}), (">", {"dx": -10, "align": "right"}))
    return [
        {
            "mark": {"type": "text", "dy": -9, "color": "var(--ink-2)", "fontSize": 11, **side},
            "transform": [{"filter": f"datum.mark != '' && datum.x {is_there} {middle!r}"}],
            "encoding": {"text": {"field": "label", "type": "nominal"}},
        }
        for is_there, side in sides
    ]  # fmt: skip


def over_alpha_spec(points: Rows, chosen: float | None, title: str) -> Spec:
    """Draw each task over alpha with its interval; ``points`` have ``task, alpha, y, low, high, weight`` in per cent."""
    tasks = list(dict.fromkeys(point["task"] for point in points))
    color = _color("task", tasks, "task")
    x = {
        "field": "alpha",
        "type": "quantitative",
        "title": title,
        "axis": {"tickCount": {"expr": "width / 60"}, "format": ".2~f"},
    }
    y = {"field": "y", "type": "quantitative", "title": "per cent", "scale": _scale(points, "y", "low", "high")}
    band = {"mark": {"type": "area", "opacity": 0.16}, "encoding": {
        "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": color}}  # fmt: skip
    width = {
        "field": "weight",
        "type": "quantitative",
        "scale": {"domain": [1, 2], "range": [1.6, 3.2]},
        "legend": None,
    }
    line = {"mark": {"type": "line"}, "encoding": {"color": color, "strokeWidth": width, **_dashes("task", tasks)}}
    dots = {"mark": {"type": "point", "filled": True, "size": 26, "opacity": 1}, "encoding": {"color": color}}
    tips = [
        _tip("task", "task"), _tip("alpha", "alpha", "~g"), _tip("y", "per cent", ".1f"), _tip("interval", "95 % interval"),
        _tip("images", "images"),
    ]  # fmt: skip
    layers: list[Spec] = [band, line, dots]
    if chosen is not None:
        layers += _chosen_layers(chosen, x)
    return _whole(points, [*layers, _hover(tips)], {"x": x, "y": y}, HEIGHT)


def _chosen_layers(chosen: float, x: Spec) -> list[Spec]:
    """Return a dashed line at the chosen alpha and the words beside it."""
    at = {"data": {"values": [{"alpha": chosen, "word": f"chosen: {chosen:g}"}]}}
    side = {"align": "right", "dx": -5} if chosen > 0.75 else {"align": "left", "dx": 5}
    rule = {"mark": {"type": "rule", "color": "var(--ink-2)", "strokeDash": [4, 3]},
            "encoding": {"x": x, "y": {"value": 0}, "y2": {"value": "height"}}}  # fmt: skip
    word = {"mark": {"type": "text", "color": "var(--ink-2)", "fontSize": 11, "baseline": "bottom", **side},
            "encoding": {"x": x, "y": {"value": "height"}, "text": {"field": "word", "type": "nominal"}}}  # fmt: skip
    return [{**at, **rule}, {**at, **word}]


def robustness_spec(points: Rows, lines: Rows, axes: Mapping[str, Axis]) -> Spec:
    """Draw accuracy under each shift over that on the reference task, on logit ``axes``, a curve a shift.

    Vega-Lite has no logit scale: ``points`` have ``series, mix, alpha, mark, x, y, x_low, x_high, y_low, y_high`` in logits, beside
    the words of the tooltip, and ticks are labelled with the per cent that they stand for. ``lines`` have ``series, x, y``, the two
    ends of the line of standard models.
    """
    color = _color("series", list(dict.fromkeys(point["series"] for point in points)), "shift")
    x, y = ({"field": name, "type": "quantitative", **_on_logits(axes[name])} for name in ("x", "y"))
    low, high = (end(axes[name].domain[place] for name in "xy") for place, end in enumerate((min, max)))
    diagonal = {"values": [{"x": at, "y": at} for at in (low, high)]}
    same = {"data": diagonal, "mark": {"type": "line", "color": "var(--ink-2)", "strokeDash": [1, 3], "clip": True}}
    standard = {"data": {"values": [dict(line) for line in lines]}, "encoding": {"color": color}, "mark": {
        "type": "line", "strokeWidth": 1.2, "strokeDash": [6, 3], "opacity": 0.75, "clip": True}}  # fmt: skip
    curve = {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {
        "color": color, "order": {"field": "alpha", "type": "quantitative"}}}  # fmt: skip
    tips = [
        _tip("series", "shift"), _tip("mix", "mix"), _tip("under", "under the shift, %"), _tip("on", "on the reference, %"),
        _tip("rho", "rho, points"), _tip("mark", "mark"),
    ]  # fmt: skip
    layers = [same, *([standard] if lines else []), curve, *_points(points, x, y, color), _hover(tips)]
    return _whole(points, layers, {"x": x, "y": y}, HEIGHT)


def _on_logits(axis: Axis) -> Spec:
    label = "format(100 / (1 + exp(-datum.value)), '.6~r') + ' %'"
    ticks = {"values": list(axis.ticks), "labelExpr": label, "labelOverlap": "greedy", "labelSeparation": 8}
    return {"title": axis.title, "scale": {"domain": list(axis.domain), "nice": False, "zero": False}, "axis": ticks}


def curves_spec(points: Rows, title: str, across: str = "step") -> Spec:
    """Draw a measure over steps or alpha, a curve a series; ``points`` have ``series, step, value``."""
    names = list(dict.fromkeys(point["series"] for point in points))
    color = _color("series", names, "task")
    x = {"field": "step", "type": "quantitative", "title": across, "axis": {"tickCount": {"expr": "width / 90"}}}
    y = {
        "field": "value",
        "type": "quantitative",
        "title": title,
        "scale": {"zero": False},
        "axis": {"tickCount": 4, "format": ".4~g"},
    }
    line = {"mark": {"type": "line", "strokeWidth": 1.8}, "encoding": {"color": color, **_dashes("series", names)}}
    tips = [*([_tip("series", "curve")] if len(names) > 1 else []), _tip("step", across), _tip("value", title, ".4g")]
    return _whole(points, [line, _hover(tips)], {"x": x, "y": y}, PANEL)


def _whole(points: Rows, layers: list[Spec], encoding: Spec, height: int) -> Spec:
    values = [dict(point) for point in points]
    return {"data": {"values": values}, "width": "container", "height": height, "encoding": encoding, "layer": layers}


def _color(field: str, names: Sequence[str], title: str) -> Spec:
    colors = [SERIES[number % len(SERIES)] for number in range(len(names))]
    return {
        "field": field,
        "type": "nominal",
        "title": title,
        "scale": {"domain": list(names), "range": colors},
        "legend": _legend(names),
    }


def _dashes(field: str, names: Sequence[str]) -> Spec:
    """Tell curves that share a colour apart by their dashes; nothing where there are as many colours as curves."""
    if len(names) <= len(SERIES):
        return {}
    dashes = [DASHES[number // len(SERIES) % len(DASHES)] for number in range(len(names))]
    scale = {"domain": list(names), "range": dashes}
    return {"strokeDash": {"field": field, "type": "nominal", "scale": scale, "legend": _legend(names)}}


def _legend(names: Sequence[str]) -> Spec | None:
    """Return a legend below the chart, of lines where dashes count; none for one curve."""
    if len(names) < 2:
        return None
    lines = {"symbolType": "stroke", "symbolSize": 240} if len(names) > len(SERIES) else {}
    return {
        "title": None, "orient": "bottom", "direction": "vertical", "labelLimit": LEGEND_LETTERS, "symbolOpacity": 1,
        "symbolStrokeWidth": 2, **lines,
    }  # fmt: skip


def _scale(points: Rows, *fields: str, within: Sequence[float] | None = None) -> Spec:
    """Return a scale that holds the values of some fields, with a margin, and no per cent below 0 or above 100."""
    values = [float(point[name]) for point in points for name in fields if point[name] is not None]
    low, high = min(values, default=0.0), max(values, default=100.0)
    margin = 0.05 * (high - low) or 1.0
    floor, ceiling = within or (0.0, 100.0)
    return {
        "domain": [max(low - margin, min(floor, low)), min(high + margin, max(ceiling, high))],
        "nice": False,
        "zero": False,
    }


def _shape(mark: str) -> str:
    return next((shape for word, shape in SHAPES.items() if word in mark), "circle")


def _tip(field: str, title: str, format_: str | None = None) -> Spec:
    kind = {"type": "quantitative", "format": format_} if format_ else {"type": "nominal"}
    return {"field": field, "title": title, **kind}


def _hover(tips: Iterable[Spec]) -> Spec:
    """Return a layer that tells of the point nearest to the pointer, and rings it."""
    return {
        "mark": {"type": "point", "size": 160, "strokeWidth": 2, "fill": None, "stroke": "var(--ink)"},
        "params": [
            {"name": "near", "select": {"type": "point", "on": "pointermove", "nearest": True, "clear": "pointerout"}}
        ],
        "encoding": {
            "opacity": {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0},
            "tooltip": list(tips),
        },
    }
