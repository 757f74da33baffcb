"""Patch three tasks of the embedded model by each strategy, and print the README's table and its paired differences.

``python -m tests.benchmarks.several_tasks FOLDER``: about half an hour on one core; the same command goes on after a kill.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wisepatch import ModelConfig, RichProgress, Store, TrainConfig, compare, patch

TASKS = ("Digits", "typo:Shapes", "corrupt:Colors:contrast:5")
SUPPORTED = ("Shapes", "Colors", "Textures")
STEPS, RULE = 120, "max-drop=0.01"  # steps for each task
WAYS = {  # name: options, and trainings in one
    "joint": ({"strategy": "joint"}, len(TASKS)),
    "sequential": ({"strategy": "sequential"}, 1),
    "parallel, equal": ({"strategy": "parallel"}, 1),
    "parallel, search": ({"strategy": "parallel", "coefficients": "search", "evaluations": 60}, 1),
}
COMPARED = (
    ("joint", "sequential"), ("joint", "parallel, equal"), ("joint", "parallel, search"), ("parallel, equal", "parallel, search"),
)  # fmt: skip


def main(folder: Path) -> None:
    """Patch, then print a row a task, and the paired differences of the means."""
    store, done = Store(folder / "store"), {}
    for name, (options, times) in WAYS.items():
        config = TrainConfig.with_defaults(TASKS, supported=SUPPORTED, steps=STEPS * times, batch_size=32, lr=5e-4)
        done[name] = patch(
            config, ModelConfig("demo", ""), store, folder, rule=RULE, progress=RichProgress(), **options
        )
    columns = {"zero-shot": done["joint"].table.cells["zero-shot"]} | {
        name: patched.table.cells["patched"] for name, patched in done.items()
    }
    print("| task |", " | ".join(columns), "|")  # noqa: T201
    for place, cell in enumerate(columns["zero-shot"]):
        cells = [of[place] for of in columns.values()]
        words = [f"{100 * c.value:.1f} ({100 * c.low:.1f} to {100 * c.high:.1f}){c.mark}" for c in cells]
        print(f"| {cell.task} ({cell.role}) |", " | ".join(words), "|")  # noqa: T201
    for before, after in COMPARED:
        for role, tasks in (("patched", TASKS), ("supported", SUPPORTED)):
            ends = [done[name].sweep.chosen for name in (before, after)]
            value, low, high = (100 * each for each in compare(store, *ends, tasks=tasks).mean)
            print(f"| {after} against {before}, {role} | {value:+.1f} ({low:+.1f} to {high:+.1f}) |")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
