"""One picture of each kind, from the published sweeps and from numbers that are drawn here; also where their texts lie."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from wisepatch import (
    Look,
    alpha_table,
    calibration_table,
    confusion_table,
    draw_calibration,
    draw_confusion,
    draw_layers,
    draw_over_alpha,
    draw_per_task,
    draw_robustness,
    draw_sweep,
    draw_training,
    layer_table,
    per_task_table,
    read_results,
    robustness_table,
    sweep_table,
    training_table,
)
from wisepatch.analysis.intervals import wilson
from wisepatch.weights.movement import Movement

DATA = Path(__file__).parents[2] / "data"
IMAGES = 500
CLASSES = ("circle", "star", "square", "ring")


def paint():
    """PAINT's published sweep, alpha 0.33 chosen on validation data."""
    results = read_results(DATA / "paint-vitb32-mnist.jsonl")[0]
    return results.assign(chosen=results["alpha"] == 0.33, selected_on="val")


def wise_ft():
    """WiSE-FT's published sweep."""
    return read_results(DATA / "wiseft-vitb16-imagenet.jsonl")[0]


def measured(run="first", shift=0.0, tasks=("Digits", "Shapes", "Colors", "corrupt:Shapes"), split="test"):
    """A sweep with intervals, of 500 images a task."""
    rows = []
    for alpha in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        for number, task in enumerate(tasks):
            value = (
                0.1 + (0.8 - shift) * alpha**0.7 if number == 0 else 0.98 - 0.04 * number - 0.1 * alpha**2 - shift / 4
            )
            low, high = wilson(value, IMAGES)
            rows.append({
                "run": run, "run_name": run, "model": "demo", "method": "linear", "alpha": alpha, "task": task, "split": split,
                "metric": "top1", "value": value, "n": IMAGES, "ci_low": low, "ci_high": high, "patching": tasks[0],
                "chosen": alpha == 0.6, "selected_on": "val", "start": "zeroshot", "seed": 0, "training": "paint",
                "time": f"2026-01-01T00:00:0{int(10 * shift)}+00:00",
            })  # fmt: skip
    return pd.DataFrame(rows)


def several_patched(numbers=(400, 600, 500)):
    """A sweep in which two tasks are patched together, of so many images of each."""
    tasks, roles = ("A{x}", "B", "kept"), ("patching", "patching", "supported")
    one = measured(tasks=tasks).assign(patching="A{x} and B", role=roles * 6, n=numbers * 6)
    return one.assign(checkpoint=one["alpha"].map("c{}".format))


def answers(seed=0, sure=0.7, classes=4):
    """Answers whose confidence is too high."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, IMAGES)
    right = rng.random(IMAGES) < sure
    said = np.where(right, labels, (labels + rng.integers(1, classes, IMAGES)) % classes)
    return pd.DataFrame({"label": labels, "answer": said, "confidence": np.clip(rng.beta(6, 1.5, IMAGES), 0.25, 1)})


def movements(scale=1.0):
    """A small vision transformer of which late blocks moved more."""
    blocks = [f"visual.transformer.resblocks.{number}" for number in range(6)]
    names = ["visual.conv1", *blocks, "visual.proj", "transformer.resblocks.0"]
    moved = [
        scale * (0.01 + 0.004 * place**2) if name.startswith("visual") else 0.0 for place, name in enumerate(names)
    ]
    parts = [
        Movement(name, 100, 4.0, 4.0 + change**2, 4.0, change**2) for name, change in zip(names, moved, strict=True)
    ]
    return [sum(parts, Movement("")), *parts]


def log(scale=1.0):
    """What a training has logged."""
    steps = [{"step": step, "loss": scale * 8 / step**0.5, "lr": 1e-4 * min(step / 10, 1)} for step in range(1, 41, 3)]
    return [*steps, *({"step": step, "validation": {"Digits": 0.02 * step, "Shapes": 0.95}} for step in (10, 20, 40))]


def both(**fields):
    return pd.concat([measured(**fields), measured("second", 0.2, **fields)], ignore_index=True)


def calibration():
    frames = {"demo/zeroshot": answers(0, 0.55), "demo/Shapes/patched": answers(1, 0.85)}
    return calibration_table(frames, task="Shapes")


def confusion():
    return confusion_table(answers(), CLASSES, checkpoint="demo/Shapes/patched", task="Shapes")


# Kind: the table that is drawn, and the function that draws it.
KINDS = {
    "frontier": (lambda: sweep_table(paint()), draw_sweep),
    "frontier-compare": (lambda: sweep_table(both()), draw_sweep),
    "robustness": (lambda: robustness_table(wise_ft()), draw_robustness),
    "robustness-pair": (lambda: robustness_table(both(), reference="Shapes"), draw_robustness),
    "alpha": (lambda: alpha_table(measured(split="val"), split="val"), draw_over_alpha),
    "per-task": (lambda: per_task_table(both()), draw_per_task),
    "layers": (lambda: layer_table({"demo/Shapes/finetuned": movements(), "gentle": movements(0.5)}), draw_layers),
    "training": (lambda: training_table({"first": log(), "second": log(1.2)}), draw_training),
    "confusion": (confusion, draw_confusion),
    "calibration": (calibration, draw_calibration),
}
LOOKS = {
    "light": Look(),
    "dark": Look(dark=True),
    "paper": Look(paper=True),
    "small": Look(size=(4.2, 3.6)),
    "large": Look(size=(13, 10)),
}


@cache
def table(kind):
    """Return the table of a kind."""
    return KINDS[kind][0]()


def picture(kind, look=None, title=None):
    """Draw a kind."""
    return KINDS[kind][1](table(kind), title, look)


@cache
def drawn(kind):
    """Return the usual picture of a kind, to be looked at and not to be changed."""
    return picture(kind)


def texts(figure):
    """Return ``(text, box)`` of everything that is written in a figure, as it is drawn."""
    from matplotlib.text import Text

    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    found = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * max(abs(low), abs(high), 1)
            ticks = [tick.label1 for tick in axis.get_major_ticks() if low - slack <= tick.get_loc() <= high + slack]
            found += [*ticks, axis.get_label(), axis.get_offset_text()]
        found += [*axes.texts, axes.title, axes._left_title, axes._right_title]
    found += [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    assert all(isinstance(text, Text) for text in found)
    shown = [text for text in found if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown]


def layout_problems(figure, slack=1.0):
    """Say which texts leave the picture, or cover others, by more than ``slack`` pixels."""
    boxes, page = texts(figure), figure.bbox
    problems = [
        f"{text!r} leaves the picture"
        for text, box in boxes
        if box.x0 < -slack or box.y0 < -slack or box.x1 > page.x1 + slack or box.y1 > page.y1 + slack
    ]
    for number, (text, box) in enumerate(boxes):
        for other, around in boxes[number + 1 :]:
            width = min(box.x1, around.x1) - max(box.x0, around.x0)
            height = min(box.y1, around.y1) - max(box.y0, around.y0)
            if width > slack and height > slack:
                problems.append(f"{text!r} covers {other!r}")
    return problems
