"""Measure candidates split by split, choose one of them on the way, and record all rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.same_images import effective_number
from wisepatch.analysis.selection import Rule
from wisepatch.analysis.sweep_frame import BELOW, EFFECTIVE, Point, paired_counts, points
from wisepatch.errors import WisepatchError
from wisepatch.evaluation.prediction import Predictions
from wisepatch.hookspecs import Choice
from wisepatch.process_group import on_main
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.results import append
from wisepatch.workflows.sweep_plan import TOP1, SweepPlan

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

Row = dict[str, Any]
Measured = tuple[list[Row], "pd.DataFrame"]  # rows as they are recorded, and what rules see of them


@dataclass(frozen=True)
class Chosen:
    """Hold what was measured and chosen: all rows as written, the points of each split, the choice and its checkpoint, if any."""

    rows: list[Row]
    points: dict[str, list[Point]]
    choice: Choice | None
    checkpoint: Checkpoint | None


def measure_and_choose(
    plan: SweepPlan,
    store: Store,
    measure: Callable[[str, Choice | None], Measured],
    choose: Callable[[pd.DataFrame, Rule], Choice],
    save: Callable[[Choice], Checkpoint],
    key: Callable[[Row], float | None],
) -> Chosen:
    """Measure each split of a plan, ``choose`` by its rule on the split that it names, ``save`` the choice, and record all rows.

    ``measure`` is told of the choice once there is one. ``key`` gives the alpha, or the number, of what a row is about. Rows of a
    split that cannot be chosen from are recorded all the same.
    """
    rows: list[Row] = []
    points_by_split: dict[str, list[Point]] = {}
    choice, checkpoint = None, None
    for split in plan.splits:
        measured, frame = measure(split, choice)
        points_by_split[split] = points(frame)
        if plan.rule and split == plan.select_on:
            try:
                choice = choose(frame, plan.rule)
                checkpoint = on_main(partial(save, choice))
            except WisepatchError:
                on_main(partial(append, store.results, measured))
                raise
        if choice:
            measured = [row | {"chosen": key(row) == choice.alpha, "selected_on": plan.select_on} for row in measured]
        rows += on_main(partial(append, store.results, measured))
    return Chosen(rows, points_by_split, choice, checkpoint)


@dataclass(frozen=True)
class RightAnswers:
    """Collect which images of each task are answered rightly, ``(checkpoints, n)``, as :meth:`keep` has seen them."""

    by_task: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    independent: dict[str, float] = field(default_factory=dict)  # as how many count the images of tasks with groups

    def keep(self, answers: Predictions) -> None:
        """Take in the answers to a task."""
        self.by_task[answers.task.name] = answers.predicted == answers.labels
        if (clusters := answers.annotations.clusters) is not None:
            self.independent[answers.task.name] = effective_number(clusters)

    def counted(
        self, rows: Sequence[Mapping[str, Any]], checkpoints: Sequence[str], start: int | None, below: int | None = None
    ) -> list[Row]:
        """Add to the rows of top-1 accuracy of ``checkpoints``, by id, how many images are broken and fixed since the ``start``.

        Also since the zero-shot model ``below``, where that is another. Both are numbers of those that were measured, which begin
        with ``checkpoints``.
        """
        places = {identity: place for place, identity in enumerate(checkpoints)}
        counted = []
        for row in rows:
            place, answers = places.get(row["checkpoint"]), self.by_task[row["task"]]
            counts: dict[str, float] = {}
            if place is not None and row["metric"] == TOP1:
                if start is not None:
                    counts |= paired_counts(answers[place], answers[start])
                if below is not None:
                    since = paired_counts(answers[place], answers[below])
                    counts |= {f"{name}{BELOW}": images for name, images in since.items()}
                if row["task"] in self.independent:
                    counts[EFFECTIVE] = self.independent[row["task"]]
            counted.append({**row, **counts})
        return counted
