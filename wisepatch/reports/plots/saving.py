"""Write pictures: PNG, SVG or PDF by suffix, the same bytes for the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import UsageError, WisepatchError
from wisepatch.files import check_writable, drawing, expanded
from wisepatch.reports.plots.literal_text import quiet_about_letters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
UNDATED: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
FONTS = {"pdf.fonttype": 42, "svg.hashsalt": "wisepatch"}  # whole TrueType fonts, as journals ask for


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write PNG, SVG or PDF by suffix. Raises :class:`UsageError` for any other, and for a folder that cannot be written."""
    from matplotlib import rc_context

    path = expanded(path)
    check_picture_path(path)
    with drawing(path), quiet_about_letters(), rc_context(FONTS):  # type: ignore[arg-type]
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=UNDATED.get(path.suffix.lower()))


def check_picture_path(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Raise :class:`UsageError` if the picture cannot be written there or the suffix cannot be drawn; nothing is made."""
    if path.suffix.lower() not in suffixes:
        reason = f"cannot draw {path.suffix or 'a file without suffix'!r} ({path})"
        raise UsageError(reason, f"pictures end in {', '.join(suffixes)}")
    with drawing(path):
        check_writable(path)


def picture_problems(path: Path) -> list[WisepatchError]:
    """Return why a picture cannot be drawn there, to be said with all else that is wrong."""
    try:
        check_picture_path(path)
    except UsageError as error:
        return [error]
    return []
