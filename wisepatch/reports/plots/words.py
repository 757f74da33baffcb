"""Words in pictures: metrics, starts, splits, numbers of images, and runs by names that people know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from wisepatch.errors import UnknownNameError
from wisepatch.plugins import find_metric
from wisepatch.terminal import harmless

if TYPE_CHECKING:
    import pandas as pd

ZEROSHOT = "zeroshot"  # the start of a line that begins at a published model
GENERATED = re.compile(r"[\w.-]+-\d{8}T\d{6}-[0-9a-f]{4}")  # a run that nobody named
MAX_NAME_LETTERS = 32
MAX_LISTED = 3  # numbers of images that a note gives one by one
FEATURES = ("model", "training", "method", "seed")  # by which runs without a name are told apart
SPLITS = {"test": "test", "val": "validation", "train": "training"}


def describe(metric: str) -> tuple[str, str]:
    """Return the label of a metric and a note on its direction."""
    try:
        row = find_metric(metric)
    except UnknownNameError:  # from the papers' records, or of a plugin that is not installed
        return metric, ""
    return row.label or metric, "" if row.higher_is_better else " (lower is better)"


def sign_of(metrics: Iterable[str]) -> float:
    """Return 1 for metrics of which more is better, -1 where less is, NaN for both at once."""
    signs = {-1.0 if "".join(describe(str(metric))).endswith("(lower is better)") else 1.0 for metric in metrics}
    return signs.pop() if len(signs) == 1 else float("nan")


def axis_label(metrics: Iterable[str]) -> str:
    """Return the label of an axis with these metrics."""
    return " / ".join("".join(describe(metric)) for metric in dict.fromkeys(metrics))


def start_words(start: str) -> str:
    """Return what the model at alpha 0 is called."""
    return "zero-shot" if start == ZEROSHOT else start.rpartition(" (")[0] or start


def chosen_words(point: Any) -> str:
    """Say which data the chosen alpha was chosen on."""
    split = {"val": "validation", "test": "TEST"}.get(str(point["selected_on"]))
    return f"chosen on {split} data" if split else "chosen"


def split_words(split: str) -> str:
    """Return what the data of a split is called: ``test data``, ``validation data``."""
    return f"{SPLITS.get(split, split)} data"


def without_middle(name: str, letters: int = MAX_NAME_LETTERS) -> str:
    """Cut a long name to ``letters``, its middle to a sign of three dots."""
    half = letters // 2
    return f"{name[:half]}…{name[-half:]}" if len(name) > letters else name


def images_words(
    tasks: Iterable[str], numbers: Iterable[Any], labels: Mapping[str, str] | None = None, *, each: str = " a task"
) -> str:
    """Say how many images each task was measured on: one number where all have the same, a range where they are many.

    ``labels`` are what tasks are called; a task may come several times. What is counted may be another thing than tasks: ``each``
    says of what a number is.
    """
    counts: dict[str, set[int]] = {}
    for task, n in zip(tasks, numbers, strict=True):
        counts.setdefault(str(task), set()).update(() if n is None or n != n else (int(n),))
    known = sorted(set().union(*counts.values()))
    if not known:
        return "n is not recorded"
    if len(known) == 1:
        return f"n = {known[0]:,}" + (f" images{each}" if len(counts) > 1 else " images")
    if len(counts) <= MAX_LISTED:
        parts = (
            f"{' and '.join(f'{n:,}' for n in sorted(of))} ({_short(task, labels)})"
            for task, of in counts.items()
            if of
        )
        return f"n = {', '.join(parts)}"
    return f"n = {known[0]:,} to {known[-1]:,} images{each}"


def _short(name: str, labels: Mapping[str, str] | None) -> str:
    return without_middle(harmless((labels or {}).get(name, name)))


def run_names(results: pd.DataFrame) -> dict[str, str]:
    """Return by run the name that it is called by, in order of time: the one that was given, else what tells it from the others.

    A run that nobody named is called by its model and, where others have the same, by how it was trained or merged, its seed, or
    the time. Two of one name are told apart by the time, too.
    """
    runs = in_order_of_time(results)
    first = {run: results[results["run"] == run].iloc[0] for run in runs}
    given = {run: _given(run, row) for run, row in first.items()}
    nameless = [run for run in runs if given[run] is None]
    differing = [
        column for column in FEATURES
        if column in results and len({str(first[run][column]) for run in nameless}) > 1 and column != "model"
    ]  # fmt: skip
    names = {run: given[run] or _features(first[run], differing) for run in runs}
    for name in set(names.values()):
        twins = [other for other in runs if names[other] == name]
        if len(twins) > 1:
            times = [str(first[each].get("time") or "")[:19].replace("T", " ") for each in twins]
            told = (
                times
                if len(set(times)) == len(twins) and all(times)
                else [f"no. {i}" for i in range(1, len(twins) + 1)]
            )
            names |= {each: f"{name}, {word}" for each, word in zip(twins, told, strict=True)}
    return names


def in_order_of_time(results: pd.DataFrame) -> list[str]:
    """Return the runs, those that were measured first first; without times in the order of their rows."""
    runs = list(dict.fromkeys(results["run"]))
    times = {run: str(results[results["run"] == run].iloc[0].get("time") or "") for run in runs}
    return sorted(runs, key=lambda run: times[run])


def _given(run: str, row: Any) -> str | None:
    name = row.get("run_name")
    named = name if isinstance(name, str) and name else str(run)
    return None if GENERATED.fullmatch(named) else named


def _features(row: Any, columns: Iterable[str]) -> str:
    words = [str(row.get("model") or "a model")]
    for column in columns:
        value = row[column]
        if value is not None and value == value:
            words.append(f"seed {value:g}" if column == "seed" else str(value))
    return ", ".join(words)
