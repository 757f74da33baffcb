"""Compare two checkpoints by the answers that the store holds: what a patch fixed and what it broke, image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.analysis.comparison import (
    Confusion,
    Difference,
    adjusted,
    calibration,
    class_differences,
    confusions,
    difference,
    mean_difference,
)
from wisepatch.analysis.same_images import shown_together
from wisepatch.config import listed
from wisepatch.counting import count
from wisepatch.datasets.contact_sheet import contact_sheet, from_all_classes
from wisepatch.datasets.duplicates import share_files
from wisepatch.datasets.samples import Split
from wisepatch.errors import DataError, StoreError, UnknownNameError, UsageError
from wisepatch.files import expanded, refused
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.predictions import answered, read_predictions
from wisepatch.tasks import find_task
from wisepatch.terminal import pasted
from wisepatch.weights.parameters import LAYERS
from wisepatch.workflows.tasks_of_run import evaluation_tasks

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from wisepatch.hookspecs import Measured

KINDS = ("broken", "fixed")


@dataclass(frozen=True)
class TaskComparison:
    """Two checkpoints on one split of a task: the difference, and the answers image by image.

    ``answers`` has ``image, label, before, after, confidence_before, confidence_after, change`` (``fixed``, ``broken`` or empty);
    ``calibrations`` are those before and after.
    """

    task: str
    split: str
    spec: str
    fingerprint: str
    classes: tuple[str, ...]
    difference: Difference
    answers: pd.DataFrame
    calibrations: tuple[Mapping[str, Measured], Mapping[str, Measured]]

    @cached_property
    def by_class(self) -> list[Difference]:
        """Return the difference on the images of each class, with p-values adjusted over the classes."""
        return class_differences(*self._columns, self.classes)

    @cached_property
    def confusions(self) -> list[Confusion]:
        """Return the mistakes by true and predicted class, those that changed most first."""
        return confusions(*self._columns)

    @property
    def _columns(self) -> tuple[Any, Any, Any]:
        return tuple(self.answers[name].to_numpy() for name in ("label", "before", "after"))  # type: ignore[return-value]

    def changed(self, kind: str) -> pd.DataFrame:
        """Return the images that are ``fixed`` or ``broken``, those that the wrong model was surest of first."""
        sure = "confidence_after" if kind == "broken" else "confidence_before"
        return self.answers[self.answers["change"] == kind].sort_values(sure, ascending=False, kind="stable")


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints on several tasks; p-values are adjusted over the tasks."""

    before: Checkpoint
    after: Checkpoint
    tasks: list[TaskComparison]

    @property
    def mean(self) -> tuple[float, float, float]:
        """Return the mean difference over the tasks, and its 95 % interval."""
        images: dict[str, list[str]] = {}
        for each in self.tasks:
            images.setdefault(each.task, []).extend(each.answers["image"])
        shown = shown_together(images, share_files)
        return mean_difference([each.difference for each in self.tasks], [shown[each.task] for each in self.tasks])

    def records(self) -> list[dict[str, Any]]:
        """Return the differences as JSON types, one a task."""
        rows = []
        for each in self.tasks:
            row = {"task": each.task, "split": each.split, **each.difference.record()}
            for when, measured in zip(("before", "after"), each.calibrations, strict=True):
                row |= {f"{name}_{when}": value._asdict() for name, value in measured.items()}
            rows.append(row)
        return rows


def compare(
    store: Store,
    before: Checkpoint | str,
    after: Checkpoint | str,
    *,
    tasks: Sequence[str] | str | None = None,
    split: str = "test",
    note: Callable[[str], object] = lambda _: None,
) -> Comparison:
    """Compare two checkpoints on the tasks that both have answered, or on ``tasks``; nothing is computed anew.

    A task that names a split (``NAME@val``) keeps it. Of several answers to a split the newest that both have given to the same
    images count. ``note`` is told of tasks that only one of them has answered.

    Raises :class:`StoreError` where answers are missing, damaged or of other images, :class:`UnknownNameError` for an unknown task.
    """
    ends = [store.find(each) if isinstance(each, str) else each for each in (before, after)]
    if ends[0].id == ends[1].id:
        raise UsageError(
            f"both are {ends[0].name} ({ends[0].id})", "name two checkpoints; `wisepatch store list` lists them"
        )
    kept = [answers_by_task(store, each) for each in ends]
    if tasks is None:
        asked = [key for key in reversed(kept[0]) if key in kept[1] and key[1] == split]  # as they were measured
        if alone := [task for task, of in (kept[0].keys() ^ kept[1].keys()) if of == split]:
            note(f"answered by one of the two alone: {', '.join(sorted(alone))}")
        if not asked:
            without = ends[0] if not kept[0] else ends[1]
            raise _missing(without, ends, sorted(key for key in {*kept[0], *kept[1]} if key[1] == split), split, kept)
    else:
        asked = [task_key(word, split, [*kept[0], *kept[1]]) for word in listed(tasks)]
    for end, of_end in zip(ends, kept, strict=True):
        if missing := [key for key in asked if key not in of_end]:
            raise _missing(end, ends, missing, split, kept)
    compared = [_compare(ends, key, kept[0][key], kept[1][key]) for key in dict.fromkeys(asked)]
    holm = adjusted(each.difference for each in compared)
    tasks_compared = [replace(each, difference=row) for each, row in zip(compared, holm, strict=True)]
    return Comparison(ends[0], ends[1], tasks_compared)


Key = tuple[str, str]
Kept = list[tuple[Path, dict[str, Any]]]


def answers_by_task(store: Store, checkpoint: Checkpoint) -> dict[Key, Kept]:
    """Return the files of answers by task and split, the newest first; a mix has those of all mixes of the same recipe."""
    same = [checkpoint]
    if checkpoint.recipe:
        same += [
            each for each in store.everything()
            if (each.recipe, each.head) == (checkpoint.recipe, checkpoint.head) and each.id != checkpoint.id
        ]  # fmt: skip
        whole = LAYERS not in checkpoint.recipe.params
        if checkpoint.alpha in (0, 1) and whole and len(checkpoint.parents) == 2:  # an endpoint, to the bit
            same.append(store.parents(checkpoint)[int(checkpoint.alpha)])
    keys: dict[Key, Kept] = {}
    for path, details in (file for each in same for file in answered(store, each)):
        keys.setdefault((details["task"], details["split"]), []).append((path, details))
    return keys


def task_key(word: str, split: str, known: Sequence[Key]) -> Key:
    """Return task and split of a word; a task that was answered needs not be there any more."""
    name, at, own = word.rpartition("@")
    for key in ((name, own) if at else (word, split), (word, split)):
        if key in known:
            return key
    try:
        found = find_task(word)
    except UnknownNameError as error:
        raise UnknownNameError("task", word, {task for task, _ in known}) from error
    return found.name, found.split or split


def eval_command(ends: Sequence[Checkpoint], specs: Sequence[str], split: str, *again: str) -> str:
    """Return the command that evaluates checkpoints on a split of some tasks, to be pasted."""
    at = [] if split == "test" else ["--split", split]
    return pasted(["wisepatch", "eval", *(each.id for each in ends), "--task", ",".join(specs), *at, *again])


def _missing(
    end: Checkpoint, ends: Sequence[Checkpoint], keys: Sequence[Key], split: str, kept: Sequence[Mapping[Key, Kept]]
) -> StoreError:
    specs = {key: files[0][1]["spec"] for of_end in kept for key, files in of_end.items()}
    words = [specs.get(key, key[0]) for key in keys] or ["TASK"]
    of = f" of {', '.join(task for task, _ in keys)}" if keys else ""
    return StoreError(
        f"the store holds no predictions of {end.name} ({end.id}){of}",
        f"make them: {eval_command(ends, words, split)}",
    )


def _compare(ends: Sequence[Checkpoint], key: Key, before: Kept, after: Kept) -> TaskComparison:
    """Compare the newest answers to the same images, of those given under the same conditions where there are any."""
    (task, split), places = key, {path.name: path for path, _ in after}
    pairs = [(path, places[path.name], details) for path, details in before if path.name in places]
    if not pairs:
        pairs = [
            (path, other, details)
            for path, details in before
            for other, others in after
            if all(details.get(field) == others.get(field) for field in ("fingerprint", "classes"))
        ]
    specs = [before[0][1]["spec"]]
    if not pairs:  # one has answered all images, say, and the other those of a --limit
        raise StoreError(
            f"the predictions of {task} ({split}) are of other images or classes: they form no pairs",
            f"evaluate both on the same images, with the same --limit or without: {eval_command(ends, specs, split)}",
        )
    *paths, details = pairs[0]
    first, second = (read_predictions(path) for path in paths)
    if list(first["image"]) != list(second["image"]) or (first["label"] != second["label"]).any() or first.empty:
        raise StoreError(
            f"the predictions of {task} ({split}) are of other images: they form no pairs",
            f"evaluate both again: {eval_command(ends, specs, split, '--again')}",
        )
    answers = first[["image", "label"]].assign(
        before=first["answer"], after=second["answer"],
        confidence_before=first["confidence"], confidence_after=second["confidence"],
    )  # fmt: skip
    right = [(answers[when] == answers["label"]).to_numpy() for when in ("before", "after")]
    answers["change"] = ""
    answers.loc[right[0] & ~right[1], "change"] = "broken"
    answers.loc[~right[0] & right[1], "change"] = "fixed"
    return TaskComparison(
        task, split, details["spec"], details["fingerprint"], tuple(details["classes"]), difference(task, *right), answers,
        (calibration(first), calibration(second)),
    )  # fmt: skip


def write_changes(comparison: Comparison, path: Path) -> int:
    """Write a CSV of all images that are fixed or broken, with their paths; return their number. Raises :class:`UsageError`."""
    import pandas as pd

    frames = []
    for each in comparison.tasks:
        rows = pd.concat([each.changed(kind) for kind in KINDS])
        names = {name: rows[name].map(dict(enumerate(each.classes))) for name in ("label", "before", "after")}
        columns = ["task", "split", "change", "image", *names, "confidence_before", "confidence_after"]
        frames.append(rows.assign(task=each.task, split=each.split, **names)[columns])
    with refused(f"the table {path}", UsageError, "name another with --output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(frames).to_csv(path, index=False, float_format="%.4f")
    return sum(len(each) for each in frames)


def opened_split(comparison: Comparison, task: TaskComparison, data: Path | str) -> Split:
    """Open the images that two checkpoints have answered: all of a split, or those that ``--limit`` chose of it.

    Raises :class:`DataError` where they have changed since they were answered, and the errors of data.
    """
    ends = [comparison.before, comparison.after]
    for limit in (None, len(task.answers)):
        (asked,) = evaluation_tasks(ends, [task.spec], limit=limit)
        opened = asked.dataset.split(task.split, expanded(data))
        if opened.fingerprint() == task.fingerprint:
            return opened
    raise DataError(
        f"the images of {task.task} ({task.split}) have changed since they were answered",
        f"evaluate both again: {eval_command(ends, [task.spec], task.split)}",
    )


def changes_to_show(task: TaskComparison, kind: str) -> tuple[pd.DataFrame, int]:
    """Return some images that are ``broken`` or ``fixed``, from all classes, the surest mistakes first, and their number."""
    rows = task.changed(kind)
    return rows.iloc[from_all_classes(rows["label"])], len(rows)


def draw_changes(comparison: Comparison, data: Path | str) -> Image.Image:
    """Draw images that are broken and fixed: of each kind and task one of every class, or ten, the surest mistakes first.

    Raises :class:`DataError` where the images of a task have changed since they were answered, and the errors of data.
    """
    groups = []
    for each in comparison.tasks:
        opened = opened_split(comparison, each, data)
        for kind in KINDS:
            (rows, number), cells = changes_to_show(each, kind), []
            for index, row in rows.iterrows():
                image, _ = opened[int(index)]  # type: ignore[call-overload]
                words = [
                    f"{when}: {each.classes[row[when]]}, {100 * row[f'confidence_{when}']:.0f} % sure"
                    for when in ("before", "after")
                ]
                cells.append((image, (f"shows {each.classes[row['label']]}", *words)))
            title = f"{each.task} ({each.split}): {count(number, 'image')} {kind}"
            if len(rows) < number:
                title += f", {len(rows)} from all classes, with the surest mistakes"
            groups.append((title, cells))
    return contact_sheet(groups)
