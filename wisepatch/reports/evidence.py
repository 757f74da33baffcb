"""Gather what a store knows of a checkpoint: the newest measurements of its very weights, and the sweep that chose them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.sweep_frame import is_merge
from wisepatch.datasets.notes import tell_once
from wisepatch.errors import WisepatchError
from wisepatch.reports.plots import candidate_table, draw_candidates, draw_sweep, save_figure, sweep_table
from wisepatch.store.checkpoints import Checkpoint, Recipe, Store
from wisepatch.store.results import pick_runs, read
from wisepatch.weights.parameters import LAYERS
from wisepatch.workflows.parallel_patching import METHOD as TASK_ARITHMETIC

if TYPE_CHECKING:
    import pandas as pd

KEY = ["task", "split", "metric"]


@dataclass(frozen=True)
class Evidence:
    """Hold what was measured of a checkpoint: its rows, the run that swept alpha or merged, that run's rows, and all rows."""

    rows: list[dict[str, Any]]
    run: str | None
    sweep: pd.DataFrame
    results: pd.DataFrame


def evidence(store: Store, checkpoint: Checkpoint) -> Evidence:
    """Gather the newest row of each task, split and metric for these very weights, and the sweep that chose them."""
    import pandas as pd

    if not store.results.exists():
        return Evidence([], None, pd.DataFrame(), pd.DataFrame())
    frame, left_out = read(store.results)
    for reason in left_out:
        tell_once(reason)
    mine = frame[frame["checkpoint"].isin(_same_weights(store, checkpoint))]
    numbered = mine["candidate"].notna() if "candidate" in mine else mine["alpha"].isna() & False
    merged = checkpoint.kind == "merged"
    swept = mine[numbered] if merged else mine[mine["patching"].notna() & (mine["alpha"].notna() | numbered)]
    chosen = swept[swept["chosen"].fillna(False).astype(bool)] if "chosen" in swept else swept
    runs = (swept if chosen.empty else chosen)["run"]
    run = None if runs.empty else str(runs.iloc[-1])
    rows = mine.drop_duplicates(KEY, keep="last")
    tested = set(rows[rows["split"] == "test"]["task"])
    rows = rows[(rows["split"] == "test") | ~rows["task"].isin(tested)]
    records: list[dict[str, Any]] = [dict(row) for _, row in rows.iterrows()]
    return Evidence(records, run, pick_runs(frame, [run]) if run else frame[:0], frame)


def _same_weights(store: Store, checkpoint: Checkpoint) -> list[str]:
    """Return the ids of the checkpoints that have the weights of one: a sweep measures a mix before one is chosen."""
    if checkpoint.recipe is None:
        return [checkpoint.id]
    same = [each.id for each in store.everything() if each.recipe == checkpoint.recipe]
    return [*same, *_end_of(checkpoint.recipe)]


def _end_of(recipe: Recipe) -> list[str]:
    """Return the parent that a mix is itself, to the bit, where its coefficients are 0, or one of them 1 and the others 0."""
    number = len(recipe.parents) - 1
    if recipe.method not in ("linear", TASK_ARITHMETIC) or LAYERS in recipe.params:
        return []
    alphas = recipe.params.get("alphas") or [recipe.params.get("alpha")] * number
    if not any(alphas):
        return [recipe.parents[0]]
    return [recipe.parents[1 + alphas.index(1)]] if sorted(alphas) == [0] * (number - 1) + [1] else []


def draw_picture(found: Evidence, path: Path) -> bool:
    """Draw the sweep, or the candidates of the merge, where there was one; tell whether it was."""
    if found.run is None:
        return False
    try:
        merged = is_merge(found.sweep)
        figure = draw_candidates(candidate_table(found.sweep)) if merged else draw_sweep(sweep_table(found.sweep))
        save_figure(figure, path)
    except WisepatchError:  # one alpha alone, no supported task, or rows of another tool: the card has the table
        return False
    return True
