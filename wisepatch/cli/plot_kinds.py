"""Draw each kind of ``wisepatch plot``: gather a table, draw it, print it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.cli import options as o
from wisepatch.cli.plot_options import DataOptions, LookOptions
from wisepatch.counting import count
from wisepatch.errors import UsageError
from wisepatch.reports.numbers import percent

if TYPE_CHECKING:
    import pandas as pd

DISTANCES = ("to_finetuned", "to_zeroshot", "to_optimal")


@dataclass(frozen=True)
class Request:
    """Hold what a picture was asked for with: its path, the files of results, the runs, and the options."""

    common: o.Common
    picture: Path
    results: list[Path]
    runs: list[str]
    data: DataOptions
    look: LookOptions
    compare: bool

    def read(self, *, merges: bool = False) -> pd.DataFrame:
        """Read the rows of the runs, by default of the newest sweep (or merge); those that were named must have the split."""
        from wisepatch.reports.plots.sweeps import check_runs
        from wisepatch.store.results import read_runs

        runs = self.runs or ([] if self.results else ["newest"])
        frame, problems = read_runs(self.results or [self.common.open_store().results], runs, merges=merges)
        for problem in problems:
            self.common.output.say(f"warning: {problem}")
        if runs and "all" not in runs:
            check_runs(frame, self.data.on)
        self.check_several(frame["run"].nunique())
        return frame

    def check_several(self, runs: int) -> None:
        """Raise :class:`UsageError` where runs are to be compared and there is one."""
        if self.compare and runs < 2:
            raise UsageError(f"--compare {','.join(self.runs)} names one run", "name two or more, by comma or repeated")

    def draw(self, draw: Callable[..., Any], table: pd.DataFrame, **options: Any) -> None:
        """Draw a table, write the picture, and print the points for programs."""
        from wisepatch.reports.plots import save_figure

        look, title = self.look.look(), self.look.own_title()
        save_figure(draw(table, title, look, **options), self.picture)
        rows = ({str(k): v for k, v in row.items()} for row in table.to_dict("records"))
        self.common.output.records(rows, "point")


def frontier(request: Request) -> None:
    """Draw accuracy on the patching task over the mean of the supported ones, or what a merge could choose from."""
    from wisepatch.analysis.sweep_frame import is_merge
    from wisepatch.reports.plots import draw_sweep, sweep_table

    data, output, results = request.data, request.common.output, request.read(merges=True)
    if results["run"].nunique() == 1 and is_merge(results):
        candidates(request, results)
        return
    table = sweep_table(
        results, patching=data.patching, supported=o.split_list(data.supported) or None, split=data.on, metric=data.metric
    )  # fmt: skip
    left_out = table.attrs.get("left_out", [])
    if left_out and request.compare:
        raise UsageError(
            f"the run {left_out[0]!r} has no supported tasks: it has no axes in common with the others",
            "compare over alpha: --kind per-task",
        )
    request.draw(draw_sweep, table)
    if left_out:
        output.say(f"warning: runs without supported tasks are not drawn beside others: {', '.join(left_out)}")
    rows = [row for _, row in table.iterrows() if row["chosen"] or row["alpha"] in (0, 1)]
    output.table(
        ("run", "alpha", "patching", "supported", "below fine-tuned", "below zero-shot", "to optimal", ""),
        [
            (row["run_name"], _alpha(row["alpha"]), _interval(row, "patching"), _interval(row, "supported"),
             *(_points(row[name]) for name in DISTANCES), "chosen" if row["chosen"] else "")
            for row in rows
        ],
        ends={number for number, row in enumerate(rows[:-1]) if row["run"] != rows[number + 1]["run"]},
    )  # fmt: skip
    drawn = f"{count(len(table), 'point')} of {count(table['run'].nunique(), 'run')}"
    output.result(f"drew {drawn} to {request.picture}")


def candidates(request: Request, results: pd.DataFrame) -> None:
    """Draw a merge: accuracy on the tasks of its ends over the mean of the supported ones; print each candidate."""
    from wisepatch.reports.plots import candidate_table, draw_candidates

    given = [f"--{name}" for name in request.data.given() if name != "split"]
    if given:
        raise UsageError(f"a merge has axes of its own, and {' and '.join(given)} cannot be given", "leave it out")
    table, output = candidate_table(results, request.data.split), request.common.output
    request.draw(draw_candidates, table)
    lines = [
        (row["params"] or row["kind"], _interval(row, "patching"), _interval(row, "supported"), "chosen" if row["chosen"] else "")
        for _, row in table.iterrows()
    ]  # fmt: skip
    output.table(("candidate", "patching", "supported", ""), lines)
    run = results["run_name"].iloc[0] or results["run"].iloc[0]
    output.result(f"drew {count(len(table), 'model')} of the merge {run} to {request.picture}")


def _alpha(alpha: float) -> str:
    """Write an alpha; a mix of several ends may have a coefficient for each instead."""
    return "of each end" if alpha != alpha else f"{alpha:g}"


def _interval(row: Any, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    value = "-" if row[name] != row[name] else percent(row[name])
    return value if low != low else f"{value} ({percent(low)} to {percent(high)})"


def _points(fraction: float) -> str:
    return "-" if fraction != fraction else f"{round(100 * fraction, 1) + 0.0:+.1f}"


def robustness(request: Request) -> None:
    """Draw shifts over the reference task; print rho, in points, of the marked points."""
    from wisepatch.analysis.robustness import fit_lines, read_models
    from wisepatch.reports.plots import draw_robustness, robustness_table
    from wisepatch.reports.plots.robustness import is_mean, marked

    data, frame = request.data, request.read()
    asked: dict[str, Any] = {
        "reference": data.reference_task, "shifts": o.split_list(data.shift) or None, "split": data.on, "metric": data.metric,
    }  # fmt: skip
    table, models = robustness_table(frame, **asked), None
    if data.reference:
        measured = table[~table["shift"].map(is_mean)]
        bare = robustness_table(frame, **asked, lines={})
        on = bare["reference_task"].iloc[0]
        table = robustness_table(frame, **asked, lines=fit_lines(data.reference, on, list(measured["shift"].unique())))
        models = read_models(data.reference)
    request.draw(draw_robustness, table, models=models)
    output, shifts = request.common.output, [each for each in table["shift"].unique() if not is_mean(each)]
    points = table[marked(table)]
    rows = [
        (name, f"{alpha:g}", *(_rho(group, shift) for shift in shifts), "chosen" if group["chosen"].any() else "")
        for (name, alpha), group in points.groupby(["run_name", "alpha"], sort=False)
    ]
    output.table(("rho, in points", "alpha", *shifts, ""), rows)
    panels, runs = count(len(shifts), "shift"), count(table["run"].nunique(), "run")
    output.result(f"drew {panels} of {runs} to {request.picture}")


def _rho(points: pd.DataFrame, shift: str) -> str:
    found = points[points["shift"] == shift]
    if found.empty or found["rho"].isna().all():
        return "-"
    row = found.iloc[0]
    interval = "" if row["rho_low"] != row["rho_low"] else f" ({row['rho_low']:+.1f} to {row['rho_high']:+.1f})"
    return f"{row['rho']:+.1f}{interval}"


def alpha(request: Request) -> None:
    """Draw every task of a run over alpha."""
    from wisepatch.reports.plots import alpha_table, draw_over_alpha

    table = alpha_table(request.read(), split=request.data.on, metric=request.data.metric)
    request.draw(draw_over_alpha, table)
    drawn = f"{count(table['task'].nunique(), 'task')} at {count(table['alpha'].nunique(), 'alpha')}"
    request.common.output.result(f"drew {drawn} to {request.picture}")


def per_task(request: Request) -> None:
    """Draw each task over alpha on axes of its own, a curve a run."""
    from wisepatch.reports.plots import draw_per_task, per_task_table

    data = request.data
    table = per_task_table(
        request.read(), split=data.on, metric=data.metric, tasks=o.split_list(data.task) or None
    )  # fmt: skip
    request.draw(draw_per_task, table)
    drawn = f"{count(table['task'].nunique(), 'task')} of {count(table['run'].nunique(), 'run')}"
    request.common.output.result(f"drew {drawn} to {request.picture}")


def training(request: Request) -> None:
    """Draw trainings by id, name, fine-tuned checkpoint (as checkpoints are named), ``newest`` or ``all``."""
    from wisepatch.reports.training_curves import draw_training, load_trainings

    table = load_trainings(request.common.open_store(), request.runs or ["newest"])
    request.check_several(table["training"].nunique())
    request.draw(draw_training, table)
    request.common.output.result(f"drew {count(table['training'].nunique(), 'training')} to {request.picture}")


def layers(request: Request) -> None:
    """Draw how far the blocks of fine-tuned checkpoints moved."""
    from wisepatch.reports.plots import draw_layers, load_layers

    store = request.common.open_store()
    table = load_layers(store, o.find_checkpoints(store, request.data.checkpoint or ["finetuned"], store.look_up))
    request.draw(draw_layers, table)
    output = request.common.output
    output.table(
        ("checkpoint", "block", "weights", "norm", "moved", "relative", "cosine"),
        [
            (row["checkpoint"], row["layer"], f"{row['elements']:,}", f"{row['norm']:.4g}", f"{row['distance']:.4g}",
             f"{row['relative']:.4g}", f"{row['cosine']:.6f}")
            for _, row in table.iterrows()
        ],
    )  # fmt: skip
    blocks = table.groupby("checkpoint").size().iloc[0] - 1
    output.result(f"drew {count(int(blocks), 'block')} to {request.picture}")


def _answers(request: Request) -> Sequence[Any]:
    from wisepatch.workflows.kept_answers import default_task, find_answers

    store, data = request.common.open_store(), request.data
    tasks = o.split_list(data.task)
    if len(tasks) > 1:
        raise UsageError(f"answers to one task are drawn, and {len(tasks)} are named", "name one with --task")
    found = o.find_checkpoints(store, data.checkpoint or ["latest"])
    task = tasks[0] if tasks else default_task(store, found, data.on)
    return [find_answers(store, checkpoint, task, data.on) for checkpoint in found]


def confusion(request: Request) -> None:
    """Draw which classes a checkpoint takes for which."""
    from wisepatch.reports.plots import confusion_table, draw_confusion

    answers = _answers(request)
    if len(answers) > 1:
        raise UsageError(
            f"the answers of one checkpoint are drawn, and {len(answers)} are named", "name one with --checkpoint"
        )
    (found,) = answers
    table = confusion_table(
        found.frame, found.classes, checkpoint=found.checkpoint.name, task=found.task, split=found.split
    )
    request.draw(draw_confusion, table)
    drawn = f"{count(len(found.frame), 'answer')} of {found.checkpoint.name} to {found.task} ({found.split})"
    request.common.output.result(f"drew {drawn} to {request.picture}")


def calibration(request: Request) -> None:
    """Draw whether the confidence of checkpoints agrees with their accuracy."""
    from wisepatch.reports.plots import calibration_table, draw_calibration

    answers = _answers(request)
    names = [found.checkpoint.name for found in answers]
    frames = {
        name if names.count(name) == 1 else f"{name}, {found.checkpoint.created[:19].replace('T', ' ')}": found.frame
        for name, found in zip(names, answers, strict=True)
    }
    table = calibration_table(frames, task=answers[0].task, split=answers[0].split)
    request.draw(draw_calibration, table)
    output = request.common.output
    rows = [of.iloc[0] for _, of in table.groupby("checkpoint", sort=False)]
    output.table(
        ("checkpoint", "n", "ECE (95 % interval)"),
        [(r["checkpoint"], r["n"], f"{r['ece']:.3f} ({r['ece_low']:.3f} to {r['ece_high']:.3f})") for r in rows],
    )
    output.result(
        f"drew {count(len(frames), 'checkpoint')} on {answers[0].task} ({answers[0].split}) to {request.picture}"
    )


DRAW: dict[str, Callable[[Request], None]] = {
    "frontier": frontier, "robustness": robustness, "alpha": alpha, "per-task": per_task, "layers": layers, "training": training,
    "confusion": confusion, "calibration": calibration,
}  # fmt: skip
