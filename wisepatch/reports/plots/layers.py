"""Draw how far each block of a model moved in fine-tuning: relative norm and cosine (PAINT, section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import UsageError
from wisepatch.reports.plots.literal_text import as_written
from wisepatch.reports.plots.look import MARKERS, STYLES, Look
from wisepatch.reports.plots.sheet import Sheet
from wisepatch.store.checkpoints import Checkpoint, Store
from wisepatch.store.recipes import weights_file
from wisepatch.weights.movement import Movement, layer_movements, tensor_movements

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

WHOLE = "whole model"
BLOCK_INCHES, LEAST_INCHES, MOST_INCHES = 0.19, 2.2, 40.0


def layer_table(movements: Mapping[str, Iterable[Movement]]) -> pd.DataFrame:
    """Gather how far blocks moved, by the name of a checkpoint, into one row a block: ``checkpoint, layer, elements, norm,
    distance, relative, cosine``; the row of the layer ``whole model`` is first.

    ``norm`` is that before the fine-tuning, ``relative`` is ``distance / norm``.
    """  # noqa: D205 -- one sentence
    import pandas as pd

    return pd.DataFrame(
        {
            "checkpoint": checkpoint, "layer": each.name or WHOLE, "elements": each.elements, "norm": each.norm,
            "distance": each.distance, "relative": each.relative, "cosine": each.cosine,
        }
        for checkpoint, blocks in movements.items() for each in blocks
    )  # fmt: skip


def load_layers(store: Store | Path | str, checkpoints: Iterable[Checkpoint | str]) -> pd.DataFrame:
    """Measure how far the blocks of fine-tuned checkpoints of a store moved from what each was trained from; see
    :func:`layer_table`.

    Raises :class:`UsageError` for a checkpoint that was not trained from one of the store, such as a mix, and the errors of the
    store.
    """  # noqa: D205 -- one sentence
    store = store if isinstance(store, Store) else Store(store)
    found = [store.look_up(each) if isinstance(each, str) else each for each in checkpoints]
    pairs = []
    for checkpoint in found:
        if checkpoint.recipe or len(checkpoint.parents) != 1:
            made = "is a mix" if checkpoint.recipe else "was trained from no checkpoint of the store"
            ends = [*checkpoint.parents][-1:]
            hint = f"name the fine-tuned one: --checkpoint {ends[0] if ends else 'finetuned'}"
            raise UsageError(f"{checkpoint.name} ({checkpoint.id}) {made}: there are no two ends to compare", hint)
        pairs.append((store.parents(checkpoint)[0], checkpoint))
    names = [each.name for each in found]
    return layer_table(
        {
            name if names.count(name) == 1 else f"{name}, {each.created[:19].replace('T', ' ')}": _movements(
                store, start, each
            )
            for name, (start, each) in zip(names, pairs, strict=True)
        }
    )


def _movements(store: Store, start: Checkpoint, end: Checkpoint) -> list[Movement]:
    """Measure the blocks of an end; its start may be a recipe, such as the model that was patched before."""
    with weights_file(store, start, store.checkpoints) as before, weights_file(store, end, store.checkpoints) as after:
        return layer_movements(tensor_movements(before, after))


@as_written
def draw_layers(table: pd.DataFrame, title: str | None, look: Look) -> Figure:
    """Draw how far each block moved: the norm of the change relative to that of the weights, and the cosine between both.

    One curve a checkpoint; blocks that none of them moved are counted and left out. ``table`` is what :func:`layer_table` returns.
    """
    whole = table[table["layer"] == WHOLE]
    blocks = table[table["layer"] != WHOLE]
    moved = [layer for layer in blocks["layer"].unique() if (blocks[blocks["layer"] == layer]["distance"] > 0).any()]
    still = blocks["layer"].nunique() - len(moved)
    checkpoints = list(table["checkpoint"].unique())
    height = min(max(BLOCK_INCHES * len(moved), LEAST_INCHES), MOST_INCHES)
    sheet = Sheet(
        look,
        height,
        title="How far each block moved in fine-tuning",
        own_title=title,
        note=_note(whole, still),
        panels=True,
    )
    panels = sheet.subplots(1, 2, sharey=True)
    places = dict(zip(moved, range(len(moved)), strict=True))
    legend: dict[str, Any] = {}
    for number, checkpoint in enumerate(checkpoints):
        rows = blocks[(blocks["checkpoint"] == checkpoint) & blocks["layer"].isin(moved)]
        color = sheet.theme.colors[number % len(sheet.theme.colors)]
        at = [places[layer] for layer in rows["layer"]]
        for axes, column in zip(panels, ("relative", "cosine"), strict=True):
            (legend[str(checkpoint)],) = axes.plot(
                rows[column], at, STYLES[number % len(STYLES)], color=color, marker=MARKERS[number % len(MARKERS)],
                markersize=4.5 * sheet.scale, linewidth=1.1 * sheet.scale,
            )  # fmt: skip
    panels[0].set_xlim(left=0)
    sheet.name_ticks(panels[0].yaxis, moved)
    panels[0].set_ylim(max(len(moved) - 0.5, 0.5), -0.5)
    panels[1].margins(x=0.08)
    panels[1].ticklabel_format(useOffset=False, axis="x")
    sheet.label(panels[0], "relative norm of the change", share=0.5)
    sheet.label(panels[1], "cosine of before and after", share=0.5)
    return sheet.finish(legend)


def _note(whole: pd.DataFrame, still: int) -> str:
    words = [
        f"{row['checkpoint']}: relative norm {row['relative']:.4g}, cosine {row['cosine']:.6f} over {row['elements']:,} weights"
        for _, row in whole.iterrows()
    ]  # fmt: skip
    if still:
        words.append(
            f"{still} block{'s' if still > 1 else ''} did not move and {'are' if still > 1 else 'is'} left out"
        )
    return "; ".join([*words, "measured on the weights: no split, no interval"])
