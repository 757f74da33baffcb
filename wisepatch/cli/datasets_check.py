"""Print what ``wisepatch datasets check`` found."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from wisepatch.counting import count
from wisepatch.datasets.duplicates import described, told
from wisepatch.datasets.image_files import SKIP_IT
from wisepatch.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wisepatch.cli.output import Output
    from wisepatch.datasets.base import Dataset
    from wisepatch.datasets.duplicates import Place
    from wisepatch.datasets.inspection import Inspection
    from wisepatch.errors import WisepatchError

SHOWN = 5  # classes that a note names


def tell(inspections: Sequence[Inspection], output: Output) -> list[WisepatchError]:
    """Print what was found; return what is wrong."""
    reports = [report for each in inspections for report in each.reports]
    output.records([report.to_json() for report in reports], "check")
    rows = [row for each in inspections for row in _rows(each)]
    if rows:
        output.table(("task", "split", "images", "expected", "classes", "images per class", "sample"), rows)
    for each in inspections:
        _tell_of_splits(each, output)
    for each in inspections:
        _tell_of_own_files(each, output)
    broken = [problem for report in reports for problem in report.broken]
    for problem in broken:
        output.say(problem)
    unreadable = f"{count(len(broken), 'image')} cannot be read"
    hint = "replace or remove what is named above" + (
        SKIP_IT if any(each.dataset.family == "folder" for each in inspections) else ""
    )
    problems = {problem.message: problem for each in inspections for problem in each.problems}
    return [*problems.values(), *([DataError(unreadable, hint)] if broken else [])]


def _rows(found: Inspection) -> list[tuple[object, ...]]:
    """Return a row a split, in their order; those that are missing have one too."""
    rows: dict[str, tuple[object, ...]] = {
        r.split: (
            r.task, r.split, r.images, "?" if r.expected is None else r.expected, r.classes, _spread(r.per_class), r.sample,
        )
        for r in found.reports
    }  # fmt: skip
    for m in found.missing:
        expected = found.dataset.expected(m.split)
        rows[m.split] = (m.task, m.split, "none", "?" if expected is None else expected, "", "", "")
    return [rows[split] for split in found.dataset.available_splits if split in rows] + [
        row for split, row in rows.items() if split not in found.dataset.available_splits
    ]


def _tell_of_splits(found: Inspection, output: Output) -> None:
    """Say which splits are missing, and what is odd about those that are there."""
    output.records(map(asdict, found.missing), "missing")
    for reason in dict.fromkeys(each.reason for each in found.missing):
        splits = ", ".join(each.split for each in found.missing if each.reason == reason)
        output.say(f"note: {found.dataset.name} ({splits}) is missing: {reason}")
    for report in found.reports:
        where = f"{report.task} ({report.split})"
        if report.expected not in (None, report.images):
            output.say(f"note: {where} has {count(report.images, 'image')}, its publisher {report.expected}")
        empty = [name.partition(" ")[2] for name, images in (report.per_class or {}).items() if images == 0]
        if empty and found.dataset.family != "folder":  # of which it is said already
            more = f", and {len(empty) - SHOWN} more" if len(empty) > SHOWN else ""
            output.say(f"note: {where} has no images of {', '.join(empty[:SHOWN])}{more}")
        if report.turned:
            output.say(f"note: {where}: EXIF turns {report.turned} of {count(report.images, 'image')}")


def _tell_of_own_files(found: Inspection, output: Output) -> None:
    """Say what a user should look at: classes with other names, files left out, images that come twice."""
    dataset = found.dataset
    renamed = [(label, name) for label, name in zip(dataset.labels, dataset.classes, strict=False) if label != name]
    if renamed:
        output.table((f"folder or label of {dataset.name}", "class name"), renamed)
        output.records([{"task": dataset.name, "names": dict(renamed)}], "class_names")
    for reason, left_out in dataset.left_out.items():
        output.records([{"task": dataset.name, "reason": reason, "files": list(left_out)}], "left_out")
        output.say(f"left out of {dataset.name}, {len(left_out)}: {reason}:")
        for name in left_out:
            output.say(f"  {name}")
    for what, groups in found.same.items():
        output.records([_as_record(dataset, what, group) for group in groups], "duplicate")
        for line in told(dataset, groups, what):
            output.say(f"note: {line}")
        for group in groups:
            output.say(f"  {described(dataset, group)}")


def _as_record(dataset: Dataset, what: str, group: Sequence[Place]) -> dict[str, Any]:
    images = [{"split": p.split, "file": p.name, "class": dataset.classes[p.label]} for p in group]
    return {"task": dataset.name, "same": what, "images": images}


def _spread(per_class: dict[str, int] | None) -> str:
    if per_class is None:
        return "? (--deep counts)"
    least, most, empty = min(per_class.values()), max(per_class.values()), sum(n == 0 for n in per_class.values())
    return (f"{least}" if least == most else f"{least} to {most}") + (f", {empty} without" if empty else "")
