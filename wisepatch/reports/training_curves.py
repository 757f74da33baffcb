"""Draw trainings: a DataFrame of logged losses, rates and validation in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.config import listed
from wisepatch.errors import ResultsError, WisepatchError
from wisepatch.files import in_utf8
from wisepatch.reports.plots.literal_text import as_written
from wisepatch.reports.plots.look import STYLES, Look, marker_of
from wisepatch.reports.plots.percent_axes import in_per_cent
from wisepatch.reports.plots.sheet import Sheet
from wisepatch.store.checkpoints import Store
from wisepatch.store.runs import Training, logged_trainings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES = {
    "loss": "loss",
    "lr": "learning rate",
    "validation": "top1 on validation data",
}  # in the order of the panels
PANEL_INCHES = 2.0


def training_table(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """Gather logs by the name of their training into one row a number: ``training, step, epoch, measure, task, value``.

    ``measure`` is ``loss``, ``lr`` or ``validation``; ``task`` is named for the last alone. Raises :class:`ResultsError` where
    nothing was logged.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for training, entries in logs.items():
        for entry in entries:
            shared = {"training": training, "step": entry["step"], "epoch": entry.get("epoch"), "task": ""}
            rows += [shared | {"measure": name, "value": entry[name]} for name in ("loss", "lr") if name in entry]
            looked = entry.get("validation")
            validation = looked if isinstance(looked, dict) else {}
            rows += [shared | {"measure": "validation", "task": k, "value": v} for k, v in validation.items()]
    if not rows:
        raise ResultsError("no training has logged anything", "run `wisepatch finetune` or `wisepatch patch` first")
    table = pd.DataFrame(rows).assign(value=lambda frame: pd.to_numeric(frame["value"], errors="coerce"))
    return table.sort_values("step", kind="stable").reset_index(drop=True)


def load_trainings(store: Store | Path | str, runs: Sequence[str] | str = "newest") -> pd.DataFrame:
    """Return what trainings of a store have logged, as :func:`training_table` does.

    ``runs`` are their names or ids, checkpoints that they came to (as checkpoints are named), ``newest`` or ``all``. Raises
    :class:`ResultsError` for one that is not there.
    """
    store = store if isinstance(store, Store) else Store(store)
    known = logged_trainings(store.root)
    chosen = {each.folder.name: each for word in listed(runs) for each in _find(store, known, word)}
    names = [each.name for each in chosen.values()]
    logs = {
        each.name
        if each.name and names.count(each.name) == 1
        else f"{each.name or in_utf8(Path(each.task).name)} ({identity})": each.entries
        for identity, each in chosen.items()
    }
    return training_table(logs)


def _find(store: Store, known: Sequence[Training], word: str) -> Sequence[Training]:
    """Return the trainings that a word names. Raises :class:`ResultsError` where there is none."""
    if word in ("newest", "all"):
        return known[-1:] if word == "newest" else known
    found = [training for training in known if word in (training.folder.name, training.name)]
    if not found:
        with suppress(WisepatchError):
            checkpoint = store.look_up(word)
            ends = {checkpoint.id, *checkpoint.parents}
            found = [training for training in known if training.finetuned in ends]
    if not found:
        ids = ", ".join(training.name or training.folder.name for training in known) or "none"
        raise ResultsError(f"no training {word!r} has logged anything", f"trainings there are: {ids}")
    return found


@as_written
def draw_training(table: pd.DataFrame, title: str | None, look: Look) -> Figure:
    """Draw loss, rate and, where there was any, validation over steps, one curve a training.

    ``table`` is what :func:`load_trainings` returns.
    """
    measures = [name for name in MEASURES if (table["measure"] == name).any()]
    note = "loss and rate: training data, as logged"
    if "validation" in measures:
        note += "; accuracy: validation data, without n and interval in the log"
    sheet = Sheet(look, PANEL_INCHES * len(measures), title="Fine-tuning", own_title=title, note=note)
    panels = sheet.subplots(len(measures), sharex=True)
    legend: dict[str, Any] = {}
    for axes, measure in zip(panels, measures, strict=True):
        legend |= _draw_panel(sheet, axes, table, measure)
        sheet.body /= len(measures)  # the length of the label is that of a panel
        sheet.label(axes, y=MEASURES[measure])
        sheet.body *= len(measures)
    if "validation" in measures:
        in_per_cent(panels[measures.index("validation")].yaxis)
    panels[-1].locator_params(axis="x", integer=True)
    sheet.label(panels[-1], "step")
    return sheet.finish(legend)


def _draw_panel(sheet: Sheet, axes: Axes, table: pd.DataFrame, measure: str) -> dict[str, Any]:
    """Draw one measure; return its curves by their words: a training has a colour, a validated task a dashed style."""
    trainings, curves = list(table["training"].unique()), dict[str, Any]()
    rows = table[table["measure"] == measure]
    tasks = list(rows["task"].unique())
    for (training, task), curve in rows.groupby(["training", "task"], sort=False, dropna=False):
        number = trainings.index(training)
        color = sheet.theme.colors[number % len(sheet.theme.colors)]
        label = str(training) if measure != "validation" else f"{training}: {task}"
        style = STYLES[(tasks.index(task) + 1) % len(STYLES)] if measure == "validation" else "-"
        (curves[label],) = axes.plot(
            curve["step"], curve["value"], style, color=color, marker=marker_of(number, len(sheet.theme.colors)), label=label,
            markersize=2.5 * sheet.scale, linewidth=1.5 * sheet.scale,
        )  # fmt: skip
    return curves
