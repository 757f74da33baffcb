"""Say of a sweep what a user should know before trusting the alpha that was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wisepatch.counting import count
from wisepatch.workflows.sweep import ZEROSHOT, Sweep

FEW_IMAGES = 100  # below this one image more or less is a point


def cautions(sweep: Sweep) -> list[str]:
    """Return one sentence for each thing that makes the choice weak; none for a sweep that chose nothing."""
    return list(_of_choice(sweep)) if sweep.choice else []


def _of_choice(sweep: Sweep) -> Iterator[str]:
    rows = _judging_rows(sweep)
    few = {row["task"]: row["n"] for row in rows if row["n"] and row["n"] < FEW_IMAGES}
    if few:
        listed = ", ".join(f"{count(n, 'image')} of {task}" for task, n in few.items())
        were = "the coefficients were" if sweep.coefficients else "alpha was"
        yield f"{were} chosen on few images ({listed}): another sample may choose another"
    if grouped := {row["task"]: row["n"] for row in rows if row.get("n_effective")}:
        listed = ", ".join(grouped)
        yield f"images of {listed} come in groups: intervals and p-values take them for independent, certified drops do not"
    if _within_noise(rows):
        every = "coefficients" if sweep.coefficients else "alphas"
        yield f"all {every} lie within noise of each other (their 95 % intervals overlap): the choice may be chance"
    yield from _at_an_end(sweep)
    if not sweep.supported:
        yield "without --supported nothing tells what the patch costs elsewhere; name tasks that must not get worse"


def _judging_rows(sweep: Sweep) -> list[Mapping[str, Any]]:
    """Return the rows that the choice was made by: the first metric of each task on the split of the choice."""
    tasks = (*sweep.patching_tasks, *sweep.judges)
    rows = [row for row in sweep.rows if row["split"] == sweep.selected_on and row["task"] in tasks]
    first = {row["task"]: row["metric"] for row in reversed(rows)}
    return [
        row
        for row in rows
        if row["metric"] == first[row["task"]] and (row["alpha"], row.get("candidate")) != (None, None)
    ]


def _within_noise(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether on each task the intervals of all alphas overlap."""
    tasks = {row["task"]: [each for each in rows if each["task"] == row["task"]] for row in rows}
    several = any(len(of_task) > 1 for of_task in tasks.values())
    return several and all(
        max(row["ci_low"] for row in of_task) <= min(row["ci_high"] for row in of_task) for of_task in tasks.values()
    )


def _at_an_end(sweep: Sweep) -> Iterator[str]:
    assert sweep.choice is not None
    alphas, chosen = sorted(sweep.checkpoints), sweep.choice.alpha
    if chosen == 0 and sweep.patched:
        yield f"nothing was patched: the model is the one that training began with, {sweep.start}; try more steps"
    elif sweep.coefficients:  # numbers of candidates have no end
        return
    elif chosen == 0:
        model = "zero-shot one" if sweep.start == ZEROSHOT else f"one that training began with, {sweep.start}"
        yield f"alpha 0 was chosen: the patched model is the {model}; try more steps"
    elif len(alphas) > 1 and chosen == alphas[-1]:
        beyond = "more steps may help further" if chosen == 1 else "a larger alpha may be better"
        yield f"alpha {chosen:g} was chosen, the end of the range: {beyond}"
    elif len(alphas) > 1 and chosen == alphas[0]:
        yield f"alpha {chosen:g} was chosen, the end of the range: a smaller alpha may be better"
