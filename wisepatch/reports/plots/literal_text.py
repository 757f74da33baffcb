"""Let names stand in pictures as they are: a dollar sign begins no formula, and letters come from a font that has them."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from wisepatch.datasets.fonts import has_all, installed_fonts
from wisepatch.errors import UsageError
from wisepatch.reports.plots.look import Look
from wisepatch.reports.plots.words import MAX_NAME_LETTERS, start_words, without_middle
from wisepatch.terminal import harmless

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Columns of names, which may be long, and which --label can rename.
NAMING = (
    "task", "run_name", "model", "start", "training", "shift", "reference_task", "label", "answer", "layer", "checkpoint",
    "patching_task",
)  # fmt: skip
BETWEEN = ", "  # names in a list
NOTEBOOK_DPI = 100

Draw = Callable[..., "Figure"]


def as_written(draw: Draw) -> Draw:
    """Wrap a function that draws a table: names stand as they are, or as the look's ``labels`` call them.

    Long names lose their middle, unless two would become one. Raises :class:`UsageError` for a label of a name that is not in the
    picture.
    """

    @wraps(draw)
    def run(table: pd.DataFrame, title: str | None = None, look: Look | None = None, **options: Any) -> Figure:
        from matplotlib import rc_context, rcParams

        look = look or Look()
        texts_in = [str(column) for column in table if any(isinstance(value, str) for value in table[column])]
        names = {name for column in texts_in for name in table[column] if isinstance(name, str)}
        written = shortened(table, names, look.labels)
        title = title and harmless(title)
        family, face = look.families
        texts = "".join([*written.values(), title or ""])
        lacking = frozenset(letter for letter in set(texts) if not has_all(face, letter))
        families = [family, *rcParams["font.family"], *(each for each, _ in installed_fonts(lacking))]
        with rc_context({"text.parse_math": False, "font.family": families}), quiet_about_letters():
            shown = {column: table[column].map(lambda value: written.get(value, value)) for column in texts_in}
            named = {
                option: {written.get(name, name): each for name, each in value.items()}
                if isinstance(value, Mapping)
                else value
                for option, value in options.items()
            }
            figure = draw(table.assign(**shown), title, look, **named)
        figure._repr_png_ = partial(_as_png, figure)  # type: ignore[attr-defined]  # what a notebook shows
        return figure

    return run


def shortened(table: pd.DataFrame, names: set[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Return by name what is written for it. Raises :class:`UsageError` for a label of a name that the table does not have."""
    lists = {value for value in table.get("names", ()) if isinstance(value, str) and value}  # of tasks, by comma
    listed = {name for value in lists for name in value.split(BETWEEN)}
    naming = listed | {name for column in NAMING if column in table for name in table[column] if isinstance(name, str)}
    for name in labels:
        if name not in naming:
            known = ", ".join(sorted(map(harmless, naming))[:8]) or "none"
            raise UsageError(f"nothing in the picture is called {name!r}, which --label renames", f"names: {known}")
    starts = set(table["start"]) if "start" in table else set()
    long = {name for name in naming if len(start_words(name) if name in starts else name) > MAX_NAME_LETTERS}
    written = {name: harmless(labels.get(name, name)) for name in names | listed}
    cut = written | {name: without_middle(written[name]) for name in long}
    kept = cut if len(set(cut.values())) == len(set(written.values())) else written
    return kept | {
        value: BETWEEN.join(kept[name] for name in value.split(BETWEEN)) for value in lists if BETWEEN in value
    }


@contextmanager
def quiet_about_letters() -> Iterator[None]:
    """Draw letters that no font here has as boxes, and those of a font in its only weight, without a warning for each."""
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield
    finally:
        logger.setLevel(level)


def _as_png(figure: Figure) -> bytes:
    content = io.BytesIO()
    with quiet_about_letters():
        figure.savefig(content, format="png", dpi=NOTEBOOK_DPI)
    return content.getvalue()
