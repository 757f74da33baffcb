"""Put a sweep together again from the rows that a store holds: its points, its choice, and what the rule says of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.selection import Rule, choose, parse_rule
from wisepatch.analysis.sweep_frame import SUPPORTED, numbered, patched_tasks, points, sweep_frame
from wisepatch.errors import ResultsError, StoreError, WisepatchError
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.workflows.sweep import ZEROSHOT, Sweep

if TYPE_CHECKING:
    import pandas as pd

CLOCK_SLACK = timedelta(seconds=2)  # times of rows are whole seconds


def stored_sweep(store: Store, rows: pd.DataFrame) -> Sweep:
    """Return the sweep that the rows of one run make up, as :func:`~wisepatch.workflows.sweep.sweep` returned it.

    Checkpoints that were removed are left out. The rule is that of the patched checkpoint; its note is worked out anew from the
    rows, and is empty where that comes to another alpha (a race has alphas that no row holds).

    Raises :class:`ResultsError` where the run swept no alpha, or a task was not measured at each of them.
    """
    coefficients = _coefficients(rows)
    records = [_without_nan(row) for row in numbered(rows).to_dict("records")]
    swept = [row for row in records if row["alpha"] is not None and row["patching"]]
    if not swept:
        run = records[0]["run"] if records else "nothing"
        raise ResultsError(f"{run} swept no alpha", "name a run of `wisepatch interpolate` or `wisepatch patch`")
    patching = str(swept[-1]["patching"])  # of tasks that were patched one after the other the last sweep, of them all
    swept = [row for row in swept if row["patching"] == patching]
    patched = patched_tasks(rows[rows["patching"] == patching])
    supported = tuple(dict.fromkeys(row["task"] for row in swept if row.get("role") == SUPPORTED))
    line = [row for row in records if row["patching"] == patching]
    frames = {}
    for split in dict.fromkeys(str(row["split"]) for row in swept):
        of_split = [row for row in line if row["split"] == split]
        measured = {row["task"] for row in of_split}
        frames[split] = sweep_frame(of_split, patched, [task for task in supported if task in measured])
    points_by_split = {split: points(frame) for split, frame in frames.items()}
    checkpoints = _checkpoints(store, swept)
    alpha = next((float(row["alpha"]) for row in swept if row.get("chosen")), None)
    selected_on = next((str(row["selected_on"]) for row in swept if row.get("selected_on")), None)
    chosen = None if alpha is None else _patched(store, checkpoints, alpha, coefficients, selected_on, swept)
    rule = _rule(chosen)
    note, facts = "", dict[str, Any]()
    if rule and alpha is not None and selected_on in frames:
        with suppress(WisepatchError):  # a rule of a plugin that is gone
            again = choose(frames[selected_on], rule)
            note, facts = (again.note, dict(again.facts)) if again.alpha == alpha else ("", {})
    judging = points_by_split.get(selected_on or "", [])
    return Sweep(
        str(swept[0]["run"]), patching, supported, line, points_by_split, checkpoints, rule, selected_on,
        next((point for point in judging if point.alpha == alpha), None), chosen,
        tuple(task for task in supported if selected_on in frames and task in set(frames[selected_on]["task"])),
        next((str(row["start"]) for row in swept if row.get("start")), ZEROSHOT), note, facts,
        tuple(patched) if patched != [patching] else (), coefficients,
    )  # fmt: skip


def _coefficients(rows: pd.DataFrame) -> dict[float, tuple[float, ...]]:
    """Return the coefficients of candidates that are numbered, by their number; empty for a sweep over alpha."""
    if "candidate" not in rows:
        return {}
    numbers = rows[rows["candidate"].notna()]
    pairs = zip(numbers["candidate"], numbers["params"], strict=True)
    return {float(number): tuple(params["alphas"]) for number, params in pairs if isinstance(params, dict)}


def _without_nan(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): None if isinstance(value, float) and value != value else value for name, value in row.items()}


def _checkpoints(store: Store, rows: Sequence[Mapping[str, Any]]) -> dict[float, Checkpoint]:
    ids = {float(row["alpha"]): str(row["checkpoint"]) for row in rows if row["checkpoint"]}
    found = {}
    for alpha, identity in sorted(ids.items()):
        with suppress(StoreError):
            found[alpha] = store.get(identity)
    return found


def _patched(
    store: Store,
    checkpoints: Mapping[float, Checkpoint],
    alpha: float,
    coefficients: Mapping[float, tuple[float, ...]],
    selected_on: str | None,
    rows: Sequence[Mapping[str, Any]],
) -> Checkpoint | None:
    """Return the newest patched checkpoint of these ends and this mix that was there when the run had ended."""
    mixes = [each for key, each in checkpoints.items() if key not in (0, 1) and each.recipe]
    ends = mixes[0].parents if mixes else tuple(checkpoints[end].id for end in (0.0, 1.0) if end in checkpoints)
    methods = {str(row["method"]) for row in rows}
    times = [datetime.fromisoformat(row["time"]) for row in rows if row["time"]]
    ended = max(times) + CLOCK_SLACK if times else datetime.max.replace(tzinfo=UTC)

    def fits(each: Checkpoint) -> bool:
        if each.kind != "patched" or each.parents != ends or each.method not in methods or each.recipe is None:
            return False
        asked = coefficients.get(alpha, (alpha,))
        weights = each.recipe.params.get("alphas") or [each.alpha]
        same = tuple(weights) == asked or (len(set(asked)) == 1 and weights == [asked[0]])
        return same and each.config.get("select_on") == selected_on

    fitting = [each for each in store.everything() if fits(each)]
    by_then = [each for each in fitting if datetime.fromisoformat(each.created) <= ended]
    return max(by_then or fitting, key=lambda each: each.created, default=None)


def _rule(chosen: Checkpoint | None) -> Rule | None:
    if chosen is None or not chosen.config.get("select"):
        return None
    try:
        return parse_rule(str(chosen.config["select"]))
    except WisepatchError:
        return None
