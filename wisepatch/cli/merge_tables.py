"""Print a merge: rows and the choice for programs, and a table of each split for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.intervals import mean_of_rows
from wisepatch.reports.numbers import with_interval

if TYPE_CHECKING:
    from wisepatch.cli.output import Output
    from wisepatch.workflows.merge_candidates import Candidate
    from wisepatch.workflows.merging import Merged

SHOWN = 20  # merges, those with the best mean
MARKS = {"start": "start", "end": "end", "ensemble": "no checkpoint"}


def show_merged(output: Output, done: Merged) -> None:
    """Print all rows and the choice for programs, and for people a table a split."""
    from wisepatch.weights.parameters import without_files

    output.records(done.rows)
    if done.chosen:
        output.records([{
            "chosen": done.chosen.name, "checkpoint": done.chosen.id, "method": done.method,
            "params": without_files(done.choice.params) if done.choice else {},
            "candidate": done.choice.number if done.choice else 1, "rule": str(done.rule) if done.rule else None,
            "selected_on": done.selected_on, "note": done.note,
        }], "choice")  # fmt: skip
    for split in done.points:
        SplitTable(done, split).show(output)


@dataclass(frozen=True)
class SplitTable:
    """The measurements of one split: start, ends, merges and ensembles, a row each, and a column a task with its first metric."""

    done: Merged
    split: str

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the split, and those of tasks that name another where no other is shown."""
        return [row for row in self.done.rows if row["split"] == self.split or len(self.done.points) == 1]

    @cached_property
    def metrics(self) -> dict[str, str]:
        """Return the first metric of each task that was measured."""
        first = {row["task"]: row["metric"] for row in reversed(self.rows)}
        return {task: first[task] for task in (*self.done.patching, *self.done.supported) if task in first}

    @cached_property
    def cells(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the row of each checkpoint and task."""
        return {
            (row["checkpoint"], row["task"]): row for row in self.rows if row["metric"] == self.metrics[row["task"]]
        }

    def of(self, each: Candidate) -> dict[str, dict[str, Any]]:
        """Return the rows of a candidate by task; none where it was not measured on this split."""
        return {task: row for task in self.metrics if (row := self.cells.get((each.checkpoint.id, task)))}

    def shown(self) -> list[Candidate]:
        """Return the candidates that were measured; of many merges those with the best mean, and the chosen one."""
        scores = {point.alpha: point.mean_score or 0.0 for point in self.done.points[self.split]}
        measured = [each for each in self.done.candidates if self.of(each)]
        merges = sorted(
            (each for each in measured if each.kind == "merged"), key=lambda each: -scores.get(each.number or 0, 0.0)
        )
        left_out = [each for each in merges[SHOWN:] if each is not self.done.choice]
        return [each for each in measured if not any(each is other for other in left_out)]

    def means(self, each: Candidate) -> dict[str, dict[str, float]]:
        """Return the mean over what the ends were trained on, that over supported tasks, and the mean of both, as rules do.

        Each with its interval, as a row has it.
        """
        of_tasks = self.of(each)
        groups = {
            name: [of_tasks[task] for task in tasks if task in of_tasks]
            for name, tasks in (("patched", self.done.patching), ("supported", self.done.supported))
        }
        there = {name: mean_of_rows(rows) for name, rows in groups.items() if rows}
        return {**(there if len(there) == 2 else {}), "mean": mean_of_rows(*groups.values())}

    def show(self, output: Output) -> None:
        """Print the table."""
        shown, chosen = self.shown(), self.done.choice
        body = [
            [
                each.label, *(with_interval(self.of(each).get(task, {})) for task in self.metrics),
                *map(with_interval, self.means(each).values()),
                ", ".join(filter(None, [MARKS.get(each.kind, ""), "chosen" if each is chosen else ""])),
            ]
            for each in shown
        ]  # fmt: skip
        output.result(f"{self.done.method}: {', '.join(self._title(shown))}")
        output.table(
            ("model", *self._columns(shown[-1]), *self.means(shown[0]), ""), body,
            strong=next((number for number, each in enumerate(shown) if each is chosen), None),
        )  # fmt: skip
        if any(each.kind == "ensemble" for each in shown):
            output.result(
                "output-logits and output-probabilities run every end for each image: no checkpoint comes of them"
            )

    def _columns(self, each: Candidate) -> Iterator[str]:
        for task, row in self.of(each).items():
            yield task if row["split"] == self.split else f"{task}@{row['split']}"

    def _title(self, shown: list[Candidate]) -> Iterator[str]:
        yield f"{' / '.join(dict.fromkeys(self.metrics.values()))} in per cent"
        on = self.done.selected_on
        seen = "chosen on this split" if on == self.split else f"chosen on {on}"
        yield f"{self.split} split" + (f" ({seen})" if self.done.choice else "") + self._left_out(len(shown))

    def _left_out(self, shown: int) -> str:
        number = sum(bool(self.of(each)) for each in self.done.candidates) - shown
        return f"; {number} candidates with a smaller mean are left out" if number else ""
