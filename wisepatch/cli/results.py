"""Print what was measured: rows, seeds, sweeps; tables for people, tidy records for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wisepatch.analysis.intervals import mean_of_rows
from wisepatch.cli.tables import MIN_COLUMNS_OF_A_FILE
from wisepatch.reports.numbers import is_fraction, measured, percent, with_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from wisepatch.cli.output import Output
    from wisepatch.store.checkpoints import Checkpoint
    from wisepatch.workflows.sweep import Sweep

Column = tuple[str, list[str]]  # its name and its cells
Means = dict[str, Any]  # of tasks: value, ci_low, ci_high
INTERVALS = "; in brackets 95 % intervals"
ENDS = (0.0, 1.0)  # zero-shot and fine-tuned
INTERVAL_COLUMNS = 26  # of a value with its interval and mark, and the lines beside it


def labels(checkpoints: Iterable[Checkpoint]) -> dict[str, str]:
    """Return by id what checkpoints are called in a table: the name, and the id beside one that several have."""
    checkpoints = list(checkpoints)
    names = [checkpoint.name for checkpoint in checkpoints]
    return {each.id: each.name if names.count(each.name) == 1 else f"{each.name} ({each.id})" for each in checkpoints}


def show_rows(output: Output, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    """Print measurements: a row each for people with its interval, tidy JSON for programs. ``names`` gives checkpoints' names.

    The number of images stands above the table, once for each task, and in the rows where those of a task differ.
    """
    output.records(rows)
    if not rows:
        return
    by_task = {(row["task"], row["split"]): row for row in rows}
    differ = any(row["n"] != by_task[row["task"], row["split"]]["n"] for row in rows)
    several = len({split for _, split in by_task}) > 1
    tasks = {f"{task}@{split}" if several else task: row for (task, split), row in by_task.items()}
    if not differ and (counts := image_counts(tasks)):
        output.result(counts.removeprefix(", "))
    plain = dict.fromkeys(row["metric"] for row in rows if not is_fraction(row["metric"]))
    unit = f"per cent ({', '.join(plain)} as it is)" if plain else "per cent"
    output.table(
        ("checkpoint", "task", "split", "metric", unit, "95 % interval", *(["n"] if differ else [])),
        [
            (
                names.get(row["checkpoint"], row["checkpoint"]), row["task"], row["split"], row["metric"], measured(row),
                f"{measured(row, 'ci_low')} to {measured(row, 'ci_high')}", *([row["n"]] if differ else []),
            )
            for row in rows
        ],
    )  # fmt: skip


def show_seeds(output: Output, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print mean and spread of measurements that differ in nothing but the seed; nothing where there are none."""
    from wisepatch.analysis.seeds import over_seeds

    if len({row["seed"] for row in rows if row["seed"] is not None}) < 2:
        return
    summary = over_seeds(rows).to_dict("records")
    output.records(({str(name): value for name, value in row.items()} for row in summary), "seeds")
    tasks = list(dict.fromkeys(row["task"] for row in summary))
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in summary:
        lines.setdefault((row["split"], row["metric"], row["alpha"]), {})[row["task"]] = row
    chosen = any(row["chosen"] for row in summary)
    body = [
        (
            f"{alpha:g}" if alpha == alpha else "-", split, metric, *(_spread(of.get(task)) for task in tasks),
            *([max(row["chosen"] for row in of.values()) or ""] if chosen else []),
        )
        for (split, metric, alpha), of in sorted(lines.items(), key=lambda line: line[0])
    ]  # fmt: skip
    if body:
        number = max(row["seeds"] for row in summary)
        output.result(f"per cent: mean ± standard deviation over {number} seeds (smallest to largest)")
        output.table(("alpha", "split", "metric", *tasks, *(["chosen by seeds"] if chosen else [])), body)


def _spread(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{percent(row['mean'])} ± {percent(row['sd'])} ({percent(row['low'])} to {percent(row['high'])})"


def show_sweep(output: Output, sweep: Sweep, *, tables: bool = True) -> None:
    """Print a sweep: one table a split for people, unless without ``tables``; rows, then what was chosen, for programs."""
    from wisepatch.workflows.cautions import cautions

    output.records(sweep.rows)
    means = {split: means_of(sweep, split) for split in sweep.points}
    if sweep.choice and sweep.chosen:
        output.records([{
            "chosen": sweep.chosen.name, "checkpoint": sweep.chosen.id, **_chosen_fields(sweep), "rule": str(sweep.rule),
            "selected_on": sweep.selected_on, "cautions": cautions(sweep), "note": sweep.note, **sweep.facts,
            "means": [record for split, of in means.items() for record in _mean_records(sweep, split, of)],
        }], "choice")  # fmt: skip
    for split, of in means.items() if tables and not sweep.coefficients else ():
        _show_split(output, sweep, split, of)


def _chosen_fields(sweep: Sweep) -> dict[str, Any]:
    """Return the alpha that was chosen, or the number of the candidate and its coefficient for each task."""
    assert sweep.choice is not None
    if not sweep.coefficients:
        return {"alpha": sweep.choice.alpha}
    each = zip(sweep.patching_tasks, sweep.coefficients[sweep.choice.alpha], strict=True)
    return {"alpha": None, "candidate": int(sweep.choice.alpha), "coefficients": dict(each)}


def means_of(sweep: Sweep, split: str) -> dict[float, dict[str, Means]]:
    """Return by alpha, or number of a candidate, the means that rules compare, with their intervals, as rows have them.

    They are ``patching``, ``supported`` and the ``mean`` of both, on the first metric of each task. What is not known is ``None``:
    no mean without supported tasks, nor one of metrics that are better when higher and others that are better when lower.
    """
    first = _first_rows(sweep, split)
    mixed = len(set(_higher_is_better(row["metric"] for row in first.values()).values())) > 1
    means = {}
    for point in sweep.points[split]:
        patching, supported = (
            [row for task in tasks if (row := first.get((point.alpha, task)))]
            for tasks in (sweep.patching_tasks, sweep.supported)
        )
        both = None if mixed or point.supported is None else (point.patching + point.supported) / 2
        given = (
            ("patching", point.patching, [patching]),
            ("supported", point.supported, [supported]),
            ("mean", both, [patching, supported]),
        )
        means[point.alpha] = {
            name: {**mean_of_rows(*([] if value is None else groups)), "value": value} for name, value, groups in given
        }
    return means


def _first_rows(sweep: Sweep, split: str) -> dict[tuple[float, str], Mapping[str, Any]]:
    """Return the row of the first metric of each task, by alpha or number, and task."""
    rows = [row for row in sweep.rows if row["split"] == split or len(sweep.points) == 1]
    first = {row["task"]: row["metric"] for row in reversed(rows)}
    key = "candidate" if sweep.coefficients else "alpha"
    return {(row[key], row["task"]): row for row in rows if row["metric"] == first[row["task"]] and key in row}


def _mean_records(sweep: Sweep, split: str, means: Mapping[float, Mapping[str, Means]]) -> Iterator[dict[str, Any]]:
    """Yield what rules compare at each alpha as JSON types."""
    for key, of in means.items():
        numbers = {
            f"{name}{end.removeprefix('ci').replace('value', '')}": None if value is None or value != value else value
            for name, mean in of.items()
            for end, value in mean.items()
        }
        mix = {"candidate": int(key)} if sweep.coefficients else {"alpha": key}
        yield {"split": split, **mix, **numbers}


def _show_split(output: Output, sweep: Sweep, split: str, means: Mapping[float, Mapping[str, Means]]) -> None:
    """Print the points of one split: the first metric of each task, ``-`` for tasks that are not measured on it.

    Where some of the metrics are better when lower, mean values mean nothing, and the mean score that rules compare is shown.
    """
    measured = _first_rows(sweep, split)
    first = {task: row for (_, task), row in reversed(measured.items())}
    tasks = {task: first.get(task) for task in (*sweep.patching_tasks, *sweep.supported)}
    higher = _higher_is_better(dict.fromkeys(row["metric"] for row in tasks.values() if row))
    marks, drop = _marks(sweep, measured)
    alphas = [point.alpha for point in sweep.points[split]]
    chosen = [sweep.choice is not None and alpha == sweep.choice.alpha for alpha in alphas]

    def whole(values: int) -> list[bool]:
        """Tell which rows have intervals in so many columns: all where they fit, else the ends and the chosen one."""
        fits = values * INTERVAL_COLUMNS + 30 <= (output.width or MIN_COLUMNS_OF_A_FILE)
        return [fits or is_chosen or alpha in ENDS for alpha, is_chosen in zip(alphas, chosen, strict=True)]

    columns = list(_task_columns(sweep, split, tasks, measured, marks, whole(len(tasks))))
    mixed = len(set(higher.values())) > 1
    columns += _mean_columns(sweep, split, means, whole(len(tasks)), whole(len(tasks) + 2), mixed=mixed)
    note = ""
    if sweep.choice:
        columns.append(("", ["chosen" if is_chosen else "" for is_chosen in chosen]))
        seen = "chosen on this split" if split == sweep.selected_on else f"alpha was chosen on {sweep.selected_on}"
        note = f" ({seen}{', TEST DATA' if sweep.selected_on == 'test' else ''})"
    words = " / ".join(name if better else f"{name} (lower is better)" for name, better in higher.items())
    brackets = INTERVALS if any(row.get("ci_low") is not None for row in measured.values()) else ""
    output.result(f"{words} in per cent, {split} split{note}{image_counts(tasks)}{brackets}")
    body = zip(*(cells for _, cells in columns), strict=True)
    output.table([name for name, _ in columns], body, strong=chosen.index(True) if any(chosen) else None)
    if set(marks.values()) - {""}:
        output.result(
            "* worse than at alpha 0 beyond chance (McNemar's exact test, p < 0.05, Holm over the supported tasks)"
        )
        points = "point" if drop == 0.01 else "points"
        output.result(f"? too few images to exclude, at 95 %, a drop of more than {100 * drop:g} {points}")


def _higher_is_better(metrics: Iterable[str]) -> dict[str, bool]:
    """Return by metric whether more of it is better; of one that is not known it is."""
    from wisepatch.plugins import registry

    known = registry().all("register_metrics")
    return {metric: metric not in known or known[metric].higher_is_better for metric in metrics}


def _task_columns(
    sweep: Sweep,
    split: str,
    tasks: Mapping[str, Mapping[str, Any] | None],
    measured: Mapping[tuple[float, str], Mapping[str, Any]],
    marks: Mapping[tuple[float, str], str],
    whole: Sequence[bool],
) -> Iterator[Column]:
    """Yield the column of alphas, and that of each task, in a line with its mark."""
    points = sweep.points[split]
    yield "alpha", [f"{point.alpha:g}" for point in points]
    for task, first in tasks.items():
        cells = []
        for point, is_whole in zip(points, whole, strict=True):
            row = measured.get((point.alpha, task), {})
            mark = marks.get((point.alpha, task)) or (" " if marks and task in sweep.supported else "")
            cells.append((with_interval(row) if is_whole else percent(row.get("value"))) + mark)
        yield task if not first or first["split"] == split else f"{task}@{first['split']}", cells


def _mean_columns(
    sweep: Sweep,
    split: str,
    means: Mapping[float, Mapping[str, Means]],
    whole: Sequence[bool],
    mean_whole: Sequence[bool],
    *,
    mixed: bool,
) -> Iterator[Column]:
    """Yield the means that rules compare; of ``mixed`` metrics, better when higher and when lower, the mean score alone."""

    def cells(name: str, in_whole: Sequence[bool]) -> list[str]:
        each = zip(means.values(), in_whole, strict=True)
        return [with_interval(of[name]) if is_whole else percent(of[name]["value"]) for of, is_whole in each]

    if sweep.patched:
        yield "patched", cells("patching", mean_whole)
    if sweep.supported and mixed:
        yield "mean score", [percent(point.mean_score) for point in sweep.points[split]]
    elif sweep.supported:
        yield "supported", cells("supported", whole)
        yield "mean", cells("mean", mean_whole)


def _marks(
    sweep: Sweep, measured: Mapping[tuple[float, str], Mapping[str, Any]]
) -> tuple[dict[tuple[float, str], str], float]:
    """Return the mark of each alpha and supported task, where images were counted, and the drop that is asked about."""
    from wisepatch.analysis.comparison import TELLING_DROP, drop_marks

    drop = (sweep.rule and getattr(sweep.rule.value, "drop", None)) or TELLING_DROP
    counts: dict[float, dict[str, tuple[int, int, int]]] = {}
    for (alpha, task), row in measured.items():
        if alpha and task in sweep.supported and row.get("broken") is not None:
            counts.setdefault(alpha, {})[task] = (row["fixed"], row["broken"], row["n"])
    return {(alpha, task): mark for alpha, of in counts.items() for task, mark in drop_marks(of, drop).items()}, drop


def image_counts(tasks: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return on how many images each task was measured; one number where it is the same for all."""
    numbers = {task: row["n"] for task, row in tasks.items() if row and row.get("n")}
    if not numbers:
        return ""
    limits = {row["limit"] for row in tasks.values() if row and row.get("limit")}
    limited = "".join(f" (limited to {limit} of a split)" for limit in limits)
    if len(set(numbers.values())) == 1:
        return f", n = {next(iter(numbers.values()))}{limited}"
    return f", n = {', '.join(f'{n} ({task})' for task, n in numbers.items())}{limited}"
