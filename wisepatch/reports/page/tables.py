"""Tables of a report: what was measured at the ends and at the chosen alpha, all points of a sweep, classes, lineage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.comparison import TOO_FEW_MEANS, Difference, adjusted
from wisepatch.analysis.intervals import mean_of_rows
from wisepatch.analysis.paired import difference_interval, mcnemar
from wisepatch.reports.checkpoint_tables import ancestors
from wisepatch.reports.numbers import p_value, points, with_interval
from wisepatch.store.checkpoints import Checkpoint, Store

if TYPE_CHECKING:
    from wisepatch.workflows.comparing import TaskComparison
    from wisepatch.workflows.sweep import Sweep

WORST_CLASSES = 10  # of each task
MOST_CONFUSED = 5
MAX_ROWS = 60  # of a training's log that the page lists


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of a row names it. ``strong`` are the numbers of rows to stress.

    ``records`` hold the same for programs.
    """

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    strong: tuple[int, ...] = ()
    note: str = ""
    records: Sequence[Mapping[str, Any]] = ()


def first_rows(sweep: Sweep, split: str) -> dict[tuple[str, float], Mapping[str, Any]]:
    """Return by task and alpha the row of the first metric of each task, in the order of the sweep's tasks."""
    rows = [row for row in sweep.rows if row["split"] == split and row["alpha"] is not None]
    metric = {row["task"]: row["metric"] for row in reversed(rows)}
    order = [*sweep.patching_tasks, *sweep.supported]
    rows.sort(key=lambda row: (order.index(row["task"]) if row["task"] in order else len(order), row["alpha"]))
    return {(row["task"], row["alpha"]): row for row in rows if row["metric"] == metric[row["task"]]}


def differences(sweep: Sweep, split: str, alpha: float) -> dict[str, Difference]:
    """Compare each task at an alpha with alpha 0, from the images that were counted as fixed and broken (McNemar, Holm)."""
    counted = {
        str(row["task"]): row for row in sweep.rows
        if row["split"] == split and row["alpha"] == alpha and row["metric"] == "top1" and row.get("broken") is not None
    }  # fmt: skip
    start = {
        row["task"]: row["value"]
        for (_, at), row in first_rows(sweep, split).items()
        if at == 0 and row["metric"] == "top1"
    }
    found = []
    for task, row in counted.items():
        fixed, broken, n = (int(row[name]) for name in ("fixed", "broken", "n"))
        low, high = difference_interval(fixed, broken, n)
        p, after = float(mcnemar(fixed, broken)), float(row["value"])
        before = float(start.get(task, after - (fixed - broken) / n))
        found.append(Difference(task, n, before, after, fixed, broken, float(low), float(high), p, p))
    return {each.name: each for each in adjusted(found)} if found else {}


def results_table(sweep: Sweep, split: str, alpha: float | None) -> Table:
    """Return one row a task: the start, the chosen mix and the fine-tuned model with intervals, and the paired test."""
    rows = first_rows(sweep, split)
    last = [] if sweep.coefficients else [1.0]
    shown = dict.fromkeys([0.0, *([alpha] if alpha is not None else []), *last])
    ends = {at: _end_words(sweep, at, alpha) for at in shown if any(of == at for _, of in rows)}
    compared = differences(sweep, split, 1.0 if alpha is None else alpha)
    metrics = list(dict.fromkeys(str(row["metric"]) for row in rows.values()))
    body, records = [], []
    for task in dict.fromkeys(task for task, _ in rows):
        of_task = [row for (name, _), row in rows.items() if name == task]
        metric = f", {of_task[0]['metric']}" if len(metrics) > 1 else ""
        images = of_task[0]["n"]
        cells: list[object] = [f"{task} ({_role(sweep, task)}{metric})", "-" if images is None else f"{images:g}"]
        cells += [with_interval(rows[task, at]) if (task, at) in rows else "-" for at in ends]
        each = compared.get(task)
        body.append([*cells, *(_test_cells(each) if compared else [])])
        about = {
            "run": sweep.run,
            "task": task,
            "role": _role(sweep, task),
            "split": split,
            "metric": of_task[0]["metric"],
        }
        values = {f"{at:g}": rows[task, at]["value"] for at in ends if (task, at) in rows}
        tested = {name: value for name, value in each.record().items() if name != "name"} if each else {}
        records.append({**about, "n": images, "chosen": alpha, "value_at_alpha": values, **tested})
    more = ("difference in points", "fixed", "broken", "p (Holm)", "verdict") if compared else ()
    target = ends.get(1.0 if alpha is None else alpha, "")
    note = (
        f"The difference is that of {target} and {sweep.start_words}, with a paired 95 % interval; fixed and broken are the images "
        "that only one of the two has right, p is that of McNemar's exact test, adjusted over the tasks by Holm. "
        f"Verdict {TOO_FEW_MEANS}."
    )
    what = f"{metrics[0] if len(metrics) == 1 else 'each metric'} in per cent with 95 % intervals"
    caption = f"Results on {split_words(split)}: {what}"
    return Table(
        caption, ("task", "images", *ends.values(), *more), body, note=note if compared else "", records=records
    )


def _test_cells(each: Difference | None) -> list[object]:
    if each is None:
        return ["-"] * 5
    return [points(each.difference, each.low, each.high), each.fixed, each.broken, p_value(each.p_holm), each.verdict]


def mix_words(sweep: Sweep, key: float) -> str:
    """Return what a mix is called: its alpha, or the coefficients of its ends."""
    if key not in sweep.coefficients:
        return f"alpha {key:g}"
    return f"coefficients {', '.join(f'{value:g}' for value in sweep.coefficients[key])}"


def end_words(sweep: Sweep) -> str:
    """Return what the model at alpha 1 is called."""
    vectors = any(row.get("method") == "task-arithmetic" for row in sweep.rows)
    return "task vectors added" if vectors else "fine-tuned"


def _end_words(sweep: Sweep, at: float, alpha: float | None) -> str:
    name = "chosen" if at == alpha else sweep.start_words if at == 0 else end_words(sweep)
    return f"{name} ({mix_words(sweep, at)})"


def _role(sweep: Sweep, task: str) -> str:
    return "patched" if task in sweep.patching_tasks else "supported" if task in sweep.supported else "measured"


def split_words(split: str) -> str:
    """Return what people call a split."""
    return {"val": "validation data", "test": "test data", "train": "training data"}.get(split, f"the {split} split")


def sweep_grid(sweep: Sweep, split: str, alpha: float | None) -> Table:
    """Return one row a mix: each task with its interval, and the means of the patched and of the supported ones."""
    rows = first_rows(sweep, split)
    tasks = list(dict.fromkeys(task for task, _ in rows))
    means = {
        f"mean of {words}": of
        for words, of in (("patched", sweep.patching_tasks), ("supported", sweep.supported))
        if len(of) > 1
    }
    body = []
    for point in sweep.points[split]:
        cells: list[object] = [mix_words(sweep, point.alpha) if sweep.coefficients else f"{point.alpha:g}"]
        cells += [with_interval(rows[task, point.alpha]) if (task, point.alpha) in rows else "-" for task in tasks]
        for of in means.values():
            cells.append(
                with_interval(mean_of_rows([rows[task, point.alpha] for task in of if (task, point.alpha) in rows]))
            )
        body.append(cells)
    strong = tuple(number for number, point in enumerate(sweep.points[split]) if point.alpha == alpha)
    caption = f"All mixes on {split_words(split)}, per cent with 95 % intervals"
    return Table(caption, ("alpha", *tasks, *means), body, strong)


def besides_table(rows: Iterable[Mapping[str, Any]]) -> Table | None:
    """Return tasks that were measured besides, a model a column (broad transfer, PAINT section 5), or ``None``."""
    also = [row for row in rows if row.get("role") == "also"]
    models = list(dict.fromkeys(str(row["checkpoint"]) for row in also))
    cells = {(row["task"], str(row["checkpoint"])): row for row in also}
    tasks = dict.fromkeys(row["task"] for row in also)
    body = [[task, *(with_interval(cells[task, m]) if (task, m) in cells else "-" for m in models)] for task in tasks]
    caption = (
        "Measured besides, with no part in training and choice: per cent with 95 % intervals, a checkpoint a column"
    )
    return Table(caption, ("task", *models), body) if also else None


def class_table(task: TaskComparison, before: str, after: str) -> Table | None:
    """Return the classes with the lowest accuracy after the change; ``None`` where each image is right before and after."""
    flawed = [each for each in task.by_class if each.after < 1 or each.fixed]
    worst = sorted(flawed, key=lambda each: (each.after, -each.n))[:WORST_CLASSES]
    if not worst:
        return None
    body = [
        [
            each.name, each.n, with_interval(each.accuracy("before")), with_interval(each.accuracy("after")),
            points(each.difference, each.low, each.high), each.fixed, each.broken, p_value(each.p_holm), each.verdict,
        ]
        for each in worst
    ]  # fmt: skip
    which = f"{len(worst)} of {len(task.by_class)} classes, the worst first"
    columns = (
        "class", "images", before, after, "difference in points", "fixed", "broken", "p (Holm)", "verdict",
    )  # fmt: skip
    note = f"p is that of McNemar's exact test, adjusted over the classes by Holm. Verdict {TOO_FEW_MEANS}."
    where = f"{split_words(task.split)}: accuracy in per cent with 95 % intervals"
    return Table(f"{task.task}: {which}, {where}", columns, body, note=note)


def confusion_table(task: TaskComparison, before: str, after: str) -> Table | None:
    """Return the pairs of classes that are mistaken most often after the change; ``None`` where no image is."""
    pairs = [pair for pair in sorted(task.confusions, key=lambda pair: -pair.after) if pair.after][:MOST_CONFUSED]
    if not pairs:
        return None
    body = [
        [task.classes[p.label], task.classes[p.answer], p.before, p.after, f"{p.after - p.before:+d}"] for p in pairs
    ]
    columns = ("class", "taken for", f"images, {before}", f"images, {after}", "change")
    return Table(f"{task.task}: what is mistaken most often", columns, body)


def lineage_table(store: Store, checkpoint: Checkpoint) -> Table:
    """Return a checkpoint and all that it comes from, with the sha256 of their weights."""
    body: list[Sequence[object]] = []
    for each in (checkpoint, *ancestors(store, checkpoint)):
        if isinstance(each, str):
            body.append(["(removed)", each, "-", "-", "-"])
            continue
        weights = each.recipe.params.get("alphas") if each.recipe else None
        alpha = (
            f", coefficients {', '.join(f'{value:g}' for value in weights)}"
            if isinstance(weights, list | tuple)
            else ""
        )
        alpha = alpha if each.alpha is None else f", alpha {each.alpha:g}"
        what = f"{each.method} mix of {' and '.join(each.parents)}{alpha}" if each.recipe else each.kind
        body.append([each.name, each.id, what, each.created[:10], _hashes(each)])
    note = "A recipe names its parents and is mixed from them when it is loaded; all that is read back is hashed."
    return Table(
        "Checkpoints and the sha256 of their weights",
        ("checkpoint", "id", "what it is", "made", "sha256"),
        body,
        note=note,
    )


def _hashes(checkpoint: Checkpoint) -> str:
    return ", ".join(checkpoint.files.values()) or "a recipe"


def training_grid(entries: Iterable[Mapping[str, Any]], measures: Mapping[str, str]) -> Table:
    """Return what trainings have logged, at most ``MAX_ROWS`` rows, evenly spaced with the last one.

    ``entries`` have ``measure, series, step, value``; ``measures`` are what measures are called.
    """
    logged: dict[int, dict[str, object]] = {}
    for entry in entries:
        title = measures[entry["measure"]]
        name = title if entry["series"] == title else f"{title}, {entry['series']}"
        logged.setdefault(int(entry["step"]), {})[name] = f"{entry['value']:.4g}"
    names = list(dict.fromkeys(name for row in logged.values() for name in row))
    steps = sorted(logged)
    every = max(-(-len(steps) // MAX_ROWS), 1)
    kept = steps[::-1][::every][::-1]
    note = "" if every == 1 else f"Each {every} of {len(steps)} logged steps; runs/ in the store has all."
    body = [[step, *(logged[step].get(name, "-") for name in names)] for step in kept]
    return Table("Losses, rates and validation", ("step", *names), body, note=note)
