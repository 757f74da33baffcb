"""Print what a patch of several tasks did: each sweep, the candidates that came closest, and all models side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.cli.results import means_of, show_sweep
from wisepatch.counting import count
from wisepatch.reports.numbers import percent, with_interval

if TYPE_CHECKING:
    from wisepatch.cli.output import Output
    from wisepatch.workflows.model_table import Table
    from wisepatch.workflows.patching import Patched
    from wisepatch.workflows.sweep import Sweep

SHOWN = 8  # candidates, those with the best mean
ROLES = {"patching": "patched", "supported": "supported", "also": "measured besides"}


def show_patched(output: Output, patched: Patched) -> None:
    """Print each sweep, and of several tasks, or where others are measured besides, the table of all models."""
    for sweep in patched.sweeps:
        if len(patched.sweeps) > 1 and sweep.chosen:
            output.result(f"patched on {', '.join(sweep.patching_tasks)}: {sweep.chosen.name} ({sweep.chosen.id})")
        show_sweep(output, sweep)
        if sweep.coefficients:
            show_candidates(output, sweep)
    if patched.table:
        show_table(output, patched.table)


def show_candidates(output: Output, sweep: Sweep) -> None:
    """Print the start, the chosen candidate and those with the best mean on the data of the choice, with their coefficients."""
    assert sweep.choice is not None
    split = sweep.selected_on or "val"
    points = sorted(sweep.points[split], key=lambda point: (-(point.mean_score or 0), point.alpha))
    kept = {point.alpha for point in points[:SHOWN]} | {0.0, sweep.choice.alpha}
    shown = [point for point in points if point.alpha in kept]
    means = means_of(sweep, split)
    body = [
        (
            f"{point.alpha:g}", *(f"{value:g}" for value in sweep.coefficients[point.alpha]),
            *(with_interval(means[point.alpha][name]) for name in ("patching", "supported", "mean")),
            "chosen" if point.alpha == sweep.choice.alpha else "",
        )
        for point in shown
    ]  # fmt: skip
    several = count(len(points), "candidate")
    output.result(f"per cent, {split} split: {len(shown)} of {several}, by the mean of patched and supported accuracy")
    strong = next(number for number, point in enumerate(shown) if point.alpha == sweep.choice.alpha)
    output.table(("candidate", *sweep.patching_tasks, "patched", "supported", "mean", ""), body, strong=strong)


def show_table(output: Output, table: Table) -> None:
    """Print a task a row and a model a column, with intervals, the mean of each role, and marks of changes beyond chance."""
    output.records(table.records(), "model_table")
    labels, tasks = list(table.models), table.tasks
    body, ends = [], set()
    for role, words in ROLES.items():
        places = [place for place, cell in enumerate(tasks) if cell.role == role]
        for place in places:
            cells = [table.cells[label][place] for label in labels]
            name = cells[0].task if cells[0].split == "test" else f"{cells[0].task}@{cells[0].split}"
            metric = "" if cells[0].metric == "top1" else f" ({cells[0].metric})"
            body.append(
                (f"{name}{metric}", words, cells[0].n, *(f"{_words(c.value, c.low, c.high)}{c.mark}" for c in cells))
            )
        means = [table.mean(label, role) for label in labels]
        if means[0]:
            body.append((f"mean of {len(places)}", words, "", *(_words(*mean) for mean in means if mean)))
        if places:
            ends.add(len(body) - 1)
    output.result("per cent on test data, with 95 % intervals")
    output.table(("task", "", "n", *(_lines(label) for label in labels)), body, ends=ends - {len(body) - 1})
    output.result(
        "* worse, + better than the first column beyond chance (McNemar's exact test, p < 0.05, Holm over the tasks of a column)"
    )
    if any(cell.mark == "?" for cells in table.cells.values() for cell in cells):
        output.result("? too few images to exclude, at 95 %, a drop of more than 1 point")


def _lines(label: str) -> str | list[str]:
    """Break the label of a model before the name of a task."""
    words, on, task = label.partition(" on ")
    return [f"{words} on", *task.split(" and ")] if on else label


def summary_of_table(table: Table) -> str:
    """Say in one line what there was before and what was chosen, on test data."""
    before, *_, after = table.models
    words = []
    for role in ("patching", "supported"):
        cells = [[cell for cell in table.cells[label] if cell.role == role] for label in (before, after)]
        if cells[0]:
            first, last = (percent(sum(cell.value for cell in of) / len(of)) for of in cells)
            names = ", ".join(cell.task for cell in cells[0])
            mean = f"the mean of {names}" if len(cells[0]) > 1 else names
            words.append(
                f"{mean} from {first} % ({before}) to {last} %"
                if role == "patching"
                else f"{mean} from {first} to {last} %"
            )
    return ", ".join(words)


def _words(value: float, low: float | None, high: float | None) -> str:
    row: dict[str, Any] = {"value": value, "ci_low": low, "ci_high": high}
    return with_interval(row)
