"""Gather what a report shows of a run: from results, checkpoints, answers, images and logs of a store, as far as they are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import StoreError, WisepatchError
from wisepatch.reports.evidence import Evidence
from wisepatch.reports.making_again import command_lines, sweep_lines
from wisepatch.reports.page import sentences, tables
from wisepatch.reports.page.charts import Chart
from wisepatch.reports.page.curves import run_name, splits_in_order, sweep_charts, training_charts
from wisepatch.reports.page.shifts import robustness_charts
from wisepatch.reports.page.tables import Table
from wisepatch.reports.page.thumbnails import Budget, Gallery, galleries
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.workflows.comparing import Comparison, compare
from wisepatch.workflows.stored_sweep import stored_sweep
from wisepatch.workflows.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunContent:
    """All that the page shows of one run; an empty list is said in words by ``missing``."""

    anchor: str
    heading: str
    facts: Mapping[str, str]
    done: list[str]
    outcome: str
    chosen: list[str]
    certified: str
    results: list[Table]
    charts: list[Chart]
    classes: list[Table]
    galleries: list[Gallery]
    robustness: list[Table]
    robustness_charts: list[Chart]
    lineage: Table | None
    training: list[Chart]
    commands: list[str]
    missing: Mapping[str, str] = field(default_factory=dict)  # by section


def run_content(store: Store, rows: pd.DataFrame, data: Path, number: int, budget: Budget) -> RunContent:
    """Gather the content for one run from its rows; what cannot be shown is named with the reason.

    Raises :class:`ResultsError` where the run swept no alpha.
    """
    sweep = stored_sweep(store, rows)
    alpha = next((float(row["alpha"]) for row in sweep.rows if row.get("chosen")), None)
    split = "test" if "test" in sweep.points else next(iter(sweep.points))
    ends = _ends(store, sweep)
    target = sweep.chosen or _at(sweep, alpha) or next(iter(ends), None)
    missing: dict[str, str] = {}
    compared = _compared(store, sweep, split, alpha, missing)
    names = (sweep.start_words, tables.end_words(sweep) if alpha is None else tables.mix_words(sweep, alpha))
    classes = [table for each in compared.tasks for table in _class_tables(each, names)] if compared else []
    flawless = [each.task for each in compared.tasks if tables.class_table(each, *names) is None] if compared else []
    if flawless:
        said = missing.get("classes", "")
        missing["classes"] = f"{said} Without a mistake, before and after: {', '.join(flawless)}.".strip()
    shown = list(galleries(compared, data, names, budget)) if compared else []
    if not shown:
        missing["images"] = "No image is fixed or broken." if compared else missing["classes"]
    first, besides = (
        sweep.rows[0],
        tables.besides_table({str(k): v for k, v in row.items()} for row in rows.to_dict("records")),
    )
    shifts = robustness_charts(rows, split, number)
    return RunContent(
        anchor=f"run-{number}",
        heading=run_name(sweep),
        facts=_facts(sweep, target),
        done=list(sentences.what_was_done(sweep, ends, sentences.model_words(target, str(first.get("model") or "")))),
        outcome=sentences.what_came_out(sweep, split, alpha),
        chosen=list(sentences.how_chosen(sweep, alpha)),
        certified=sentences.what_is_certified(sweep, alpha),
        results=[
            *_results(sweep, alpha),
            *([besides] if besides else []),
        ],
        charts=list(sweep_charts(sweep, alpha, number)),
        classes=classes,
        galleries=shown,
        robustness=[shifts[0]] if shifts else [],
        robustness_charts=shifts[1] if shifts else [],
        lineage=tables.lineage_table(store, target) if target else None,
        training=list(training_charts(store, ends, number, missing)),
        commands=_commands(store, target, rows, sweep, missing),
        missing=missing,
    )


def _results(sweep: Sweep, alpha: float | None) -> list[Table]:
    """Return the results on each split; the note, which is the same, stands below the last."""
    *first, last = (tables.results_table(sweep, split, alpha) for split in splits_in_order(sweep))
    return [*(replace(each, note="") for each in first), last]


def _at(sweep: Sweep, alpha: float | None) -> Checkpoint | None:
    return None if alpha is None else sweep.checkpoints.get(alpha)


def _ends(store: Store, sweep: Sweep) -> list[Checkpoint]:
    """Return the fine-tuned checkpoints of a sweep, of several tasks there may be several; without those that were removed."""
    mixes = [each for key, each in sweep.checkpoints.items() if key not in (0, 1) and each.recipe]
    parents = mixes[0].parents[1:] if mixes else tuple(each.id for key, each in sweep.checkpoints.items() if key == 1)
    found = []
    for identity in parents:
        with suppress(StoreError):
            found.append(store.get(identity))
    return found


def _facts(sweep: Sweep, target: Checkpoint | None) -> dict[str, str]:
    times = sorted(str(row["time"]) for row in sweep.rows if row.get("time"))
    versions = ", ".join(f"{name} {version}" for name, version in target.versions.items()) if target else ""
    facts = {
        "run": sweep.run,
        "patched model": f"{sweep.chosen.name} ({sweep.chosen.id})" if sweep.chosen else "",
        "measured": times[-1][:16].replace("T", " ") + " UTC" if times else "",
        "made with": versions or f"wisepatch {sweep.rows[0].get('version')}",
    }
    return {name: value for name, value in facts.items() if value}


def _compared(
    store: Store, sweep: Sweep, split: str, alpha: float | None, missing: dict[str, str]
) -> Comparison | None:
    """Compare the start with the chosen mix by the answers that the store holds; say what is missing where it cannot be."""
    before, after = sweep.checkpoints.get(0.0), sweep.checkpoints.get(1.0 if alpha is None else alpha)
    if before is None or after is None:
        missing["classes"] = "Alpha 0 or the other end was not measured, or its checkpoint was removed."
    elif before.id == after.id:
        missing["classes"] = "Alpha 0 was chosen: nothing is fixed or broken."
    else:
        found, reasons = [], []
        for task in dict.fromkeys((*sweep.patching_tasks, *sweep.supported)):
            images = next(
                (int(row["n"]) for row in sweep.rows if (row["task"], row["split"]) == (task, split) and row["n"]), None
            )
            try:
                (of_task,) = compare(store, before, after, tasks=[task], split=split).tasks
            except WisepatchError as error:
                reasons.append(error.lines[0])
                continue
            if images in (None, of_task.difference.n):
                found.append(of_task)
            else:
                newest = of_task.difference.n
                reasons.append(
                    f"the answers of {task} that the store holds are to {newest} images, and this run had {images}"
                )
        if reasons:
            missing["classes"] = f"{'; '.join(reasons)}."
        return Comparison(before, after, found) if found else None
    return None


def _class_tables(task: Any, names: tuple[str, str]) -> Iterator[Table]:
    yield from filter(None, (tables.class_table(task, *names), tables.confusion_table(task, *names)))


def _commands(
    store: Store, target: Checkpoint | None, rows: pd.DataFrame, sweep: Sweep, missing: dict[str, str]
) -> list[str]:
    if target is None:
        missing["lineage"] = "The checkpoints of this run were removed."
        missing["commands"] = f"{missing['lineage'][:-1]}: how they were made is not known any more."
        return []
    found = Evidence([], sweep.run, rows, rows)
    mix = sweep.chosen or next((each for each in sweep.checkpoints.values() if each.recipe), target)
    *_, export = command_lines(store, target, found)
    return [*sweep_lines(store, mix, found), "wisepatch report --output report.html", export]
