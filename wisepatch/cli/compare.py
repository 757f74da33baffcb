"""``wisepatch compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wisepatch.cli import completion
from wisepatch.cli import options as o
from wisepatch.counting import count
from wisepatch.reports.numbers import measured, p_value, points, with_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wisepatch.analysis.comparison import Difference
    from wisepatch.cli.output import Output
    from wisepatch.workflows.comparing import Comparison, TaskComparison

MIN_COLUMNS = 150  # that accuracies with their intervals need
MOST_PAIRS = 20  # of classes that are confused, for people

BeforeArgument = Annotated[
    str, typer.Argument(metavar="BEFORE", help=o.CHECKPOINT_HELP, autocompletion=completion.checkpoints)
]
AfterArgument = Annotated[
    str,
    typer.Argument(metavar="AFTER", help="The checkpoint to compare with it.", autocompletion=completion.checkpoints),
]
ShowOption = Annotated[
    Path | None, typer.Option("--show", help="Draw images that are broken and fixed: a .png or .jpg.")
]
ChangesOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write a CSV of all images that are fixed or broken, with their paths."),
]


@o.with_settings
def command(
    before: BeforeArgument,
    after: AfterArgument,
    common: o.Common,
    task: o.TaskOption = [],  # noqa: B006 -- Typer copies defaults
    split: o.SplitOption = "test",
    per_class: o.PerClassOption = False,
    confusion: o.ConfusionOption = False,
    show: ShowOption = None,
    output_path: ChangesOption = None,
    form: o.FormatOption = "table",
) -> None:
    """Tell whether two checkpoints differ beyond chance, and which images one has right and the other has not.

    From the answers in the store, image by image: nothing is computed anew. Without --task: all tasks that both have answered.
    Intervals are paired, p-values those of McNemar's exact test, adjusted over the tasks (or classes) by Holm.

    Example: `wisepatch compare zeroshot patched`, `wisepatch compare zeroshot patched --task MNIST --per-class --show changed.png`
    """
    from wisepatch.files import check_writable, refused
    from wisepatch.reports.plots import check_picture_path
    from wisepatch.workflows.comparing import compare, draw_changes, write_changes

    common = common.printing(form)
    output, store, data = common.output, common.open_store(), common.data_folder()
    if show:
        check_picture_path(show, (".png", ".jpg"))
    if output_path:
        from wisepatch.errors import UsageError

        with refused(f"the table {output_path}", UsageError, "name another with --output"):
            check_writable(output_path)
    compared = compare(store, before, after, tasks=o.split_list(task) or None, split=split, note=output.say)
    sheet = draw_changes(compared, data) if show else None
    show_comparison(output, compared)
    for each in compared.tasks:
        if per_class:
            show_classes(output, each)
        if confusion:
            show_confusions(output, each)
    if show and sheet:
        from wisepatch.files import drawing

        with drawing(show):
            show.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(show)
        output.result(f"the picture is {show}")
    if output_path:
        changed = write_changes(compared, output_path)
        what = count(changed, "image that is fixed or broken stands", "images that are fixed or broken stand")
        output.result(f"{what} in {output_path}")


def show_comparison(output: Output, compared: Comparison) -> None:
    """Print the differences, task by task, their mean, and the calibration before and after."""
    output.records(compared.records(), "comparison")
    output.result(
        f"before: {compared.before.name} ({compared.before.id}), after: {compared.after.name} ({compared.after.id}); "
        "accuracy in per cent, differences in points, in brackets 95 % intervals"
    )
    several = len(compared.tasks) > 1
    whole = (output.width or MIN_COLUMNS) >= MIN_COLUMNS
    rows = [(each.task, each.split, *_cells(each.difference, adjusted=several, whole=whole)) for each in compared.tasks]
    ends: tuple[int, ...] = ()
    if several:
        value, low, high = compared.mean
        output.records([{"difference": value, "low": low, "high": high}], "mean_comparison")
        rows.append(("mean", "", "", "", "", points(value, low, high), "", "", "", *([""] if several else []), ""))
        ends = (len(rows) - 2,)
    output.table(("task", "split", *_columns(adjusted=several)), rows, ends=ends)
    _legend(output, [each.difference for each in compared.tasks], "tasks")
    output.table(
        ("calibration", "ECE before", "ECE after", "Brier before", "Brier after"),
        [
            (
                each.task,
                *(
                    f"{m.value:.3f} ({m.low:.3f} to {m.high:.3f})" if m else "-"
                    for name in ("ece", "brier")
                    for m in (of.get(name) for of in each.calibrations)
                ),
            )
            for each in compared.tasks
        ],
    )
    output.result("ECE, the calibration error, and Brier, from 0 to 2: 0 is best")


def show_classes(output: Output, compared: TaskComparison) -> None:
    """Print the difference on the images of each class."""
    output.records(
        ({"task": compared.task, "split": compared.split, **each.record()} for each in compared.by_class),
        "class_comparison",
    )
    whole = (output.width or MIN_COLUMNS) >= MIN_COLUMNS
    output.table(
        (f"class of {compared.task}", *_columns(adjusted=True)),
        [(each.name, *_cells(each, adjusted=True, whole=whole)) for each in compared.by_class],
    )
    _legend(output, compared.by_class, "classes")


def show_confusions(output: Output, compared: TaskComparison) -> None:
    """Print which classes are taken for which; for people those whose number changed most."""
    names = compared.classes
    output.records(
        ({"task": compared.task, "split": compared.split, "label": names[pair.label], "answer": names[pair.answer],
          "before": pair.before, "after": pair.after} for pair in compared.confusions), "confusion",
    )  # fmt: skip
    shown = compared.confusions[:MOST_PAIRS]
    output.table(
        (f"class of {compared.task}", "taken for", "before", "after", "change"),
        [
            (names[pair.label], names[pair.answer], pair.before, pair.after, f"{pair.after - pair.before:+d}")
            for pair in shown
        ],
    )
    if len(shown) < len(compared.confusions):
        output.result(f"{len(compared.confusions) - len(shown)} pairs more; --json has all")


def _legend(output: Output, differences: Sequence[Difference], over: str) -> None:
    """Say what stands in the columns of differences."""
    from wisepatch.analysis.comparison import TOO_FEW_IMAGES, TOO_FEW_MEANS

    output.result("p: McNemar's exact test" + (f"; p (Holm): adjusted over the {over}" if len(differences) > 1 else ""))
    if any(each.verdict == TOO_FEW_IMAGES for each in differences):
        output.result(TOO_FEW_MEANS)


def _columns(*, adjusted: bool) -> Iterable[str]:
    return (
        "n",
        "before",
        "after",
        "difference",
        "fixed",
        "broken",
        "p",
        *(["p (Holm)"] if adjusted else []),
        "",
    )


def _cells(each: Difference, *, adjusted: bool, whole: bool) -> Iterable[object]:
    p_values = [each.p, each.p_holm] if adjusted else [each.p]
    ends = [(with_interval if whole else measured)(each.accuracy(when)) for when in ("before", "after")]
    return (
        each.n, *ends,
        points(each.difference, each.low, each.high), each.fixed, each.broken, *map(p_value, p_values), each.verdict,
    )  # fmt: skip
