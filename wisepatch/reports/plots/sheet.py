"""A sheet to draw on: title, split and note around the axes, a legend below them, all of it within the picture."""

from __future__ import annotations

import warnings
from bisect import bisect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from wisepatch.errors import UsageError
from wisepatch.reports.plots.labels import crowded, thin_ticks
from wisepatch.reports.plots.look import DPI, SCREEN_FONT, Look, Theme
from wisepatch.reports.plots.words import split_words

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MARGIN = 0.09  # inches around all
MOST_TRIES = 6  # of heights, where none is given
LEAST_AXES = 0.45  # inches that axes must have
MARKS_IN_LEGEND = 0.62  # of their size in the picture: a legend's lines are close
HANDLE_LETTERS = 4.2  # of a legend: the sign before a text and the room around both
LABEL_SHARE = 0.8  # of the picture that the label of an axis may take


class Sheet:
    """A figure of ``width`` inches whose axes have ``height`` inches, to which header, legend and note are added.

    ``title`` is a default, which papers leave out; one of the user's own (``own_title``) stands, and an empty one is none.
    """

    def __init__(
        self,
        look: Look,
        height: float,
        *,
        title: str,
        own_title: str | None,
        note: str,
        split: str | None = None,
        panels: bool = False,
    ) -> None:
        """Make an empty figure; ``note`` says what data stands behind it, ``split`` is its split."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.look, self.note, self.split = look, note, split
        self.title = own_title if own_title is not None else "" if look.paper else title
        width = look.width(panels=panels)
        self.body = height * min(width / 7.2 * 1.25, 1.0) if not look.size else 0.0
        self.size = look.size or (width, self.body + 1)
        self.font = look.font(*self.size)
        self.named: set[Axis] = set()
        self.figure: Figure = Figure(figsize=self.size, layout="constrained", dpi=DPI, facecolor=self.theme.ground)
        FigureCanvasAgg(self.figure)

    @property
    def theme(self) -> Theme:
        """Return the colours."""
        return self.look.theme

    @property
    def scale(self) -> float:
        """Return how much larger lines and marks are than those of the usual size; a paper's are finer."""
        return self.font / SCREEN_FONT * (0.8 if self.look.paper else 1.0)

    @property
    def small(self) -> float:
        """Return the size of small letters."""
        return self.font * 0.87

    @cached_property
    def renderer(self) -> Any:
        """Return what measures text."""
        return self.figure.canvas.get_renderer()  # type: ignore[attr-defined]

    def subplots(self, rows: int = 1, columns: int = 1, **options: Any) -> list[Axes]:
        """Return axes, row by row, without the upper and right spine."""
        panels = self.figure.subplots(rows, columns, squeeze=False, **options).ravel()
        for axes in panels:
            self.style(axes)
        return list(panels)

    def style(self, axes: Axes) -> None:
        """Give axes the colours and letters of the look; ticks are made later, when fonts and colours are the usual ones."""
        from matplotlib import rcParams

        theme = self.theme
        axes.set_facecolor(theme.ground)
        axes.tick_params(
            which="both", colors=theme.muted, labelcolor=theme.ink, labelsize=self.small,
            labelfontfamily=rcParams["font.family"],
        )  # fmt: skip
        axes.grid(color=theme.grid, linewidth=0.7 * self.scale)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        for spine in axes.spines.values():
            spine.set_color(theme.muted)

    def label(self, axes: Axes, x: str = "", y: str = "", title: str = "", share: float = 1.0) -> None:
        """Write labels at axes that have the ``share`` of the sheet's width and height, in as many lines as they need."""
        width, height = self.size[0] * share * LABEL_SHARE, (self.body or self.size[1] * 0.7) * 0.85
        style: dict[str, Any] = {"fontsize": self.font, "color": self.theme.ink, "linespacing": 1.1}
        if x:
            axes.set_xlabel(self.fitted(x, width, self.font), **style)
        if y:
            axes.set_ylabel(self.fitted(y, height, self.font), **style)
        if title:
            text = self.fitted(title, self.size[0] * share * LABEL_SHARE, self.font)
            axes.set_title(text, loc="left", **style)

    def name_ticks(self, axis: Axis, names: Sequence[str], **style: Any) -> None:
        """Write names along an axis, at 0, 1, 2, ...; all of them are shown."""
        axis.set_ticks(range(len(names)), names, fontsize=self.small, **style)
        self.named.add(axis)

    def inches(self, text: str, size: float) -> float:
        """Measure the width of a line."""
        from matplotlib.font_manager import FontProperties

        width, _, _ = self.renderer.get_text_width_height_descent(text or " ", FontProperties(size=size), False)
        return float(width) / self.figure.dpi

    def fitted(self, text: str, inches: float, size: float) -> str:
        """Break text into lines of at most so many inches, at spaces where there are any."""
        lines: list[str] = []
        for word in text.split(" "):
            line = f"{lines[-1]} {word}" if lines else word
            if lines and self.inches(line, size) <= inches:
                lines[-1] = line
                continue
            while self.inches(word, size) > inches and len(word) > 1:
                fits = max(bisect(range(1, len(word)), inches, key=lambda n: self.inches(word[:n], size)), 1)
                lines.append(word[:fits])
                word = word[fits:]
            lines.append(word)
        return "\n".join(lines)

    def finish(self, legend: Mapping[str, Artist | Sequence[Artist]] | None = None) -> Figure:
        """Write header, legend and note, and lay all out. Raises :class:`UsageError` where the size leaves the axes no room."""
        bottom = MARGIN + self._write_note()
        bottom += self._draw_legend(legend, bottom) if legend else 0.0
        top = self._write_header()
        for _ in range(1 if self.look.size else MOST_TRIES):
            if not self.look.size:
                self.size = (self.size[0], self.body + bottom + top)
                self.figure.set_size_inches(*self.size)
            if self._lay_out(bottom, top):
                return self.figure
            self.body *= 1.4  # long names of ticks take their room from the axes
        width, height = self.size
        raise UsageError(
            f"a picture of {width:.3g} x {height:.3g} inches has no room for its labels",
            "give a larger --size, shorter names with --label, or no title with --title ''",
        )

    def _lay_out(self, bottom: float, top: float) -> bool:
        """Lay the axes out between header and footer of so many inches; tell whether they have room."""
        width, height = self.size
        for text in self.tops:
            pad = 0.3 * text.get_fontsize() / 72 if text.get_bbox_patch() else 0.0
            text.set_y(height - MARGIN - pad)
        engine: Any = self.figure.get_layout_engine()
        edge = MARGIN / width
        engine.set(rect=(edge, bottom / height, 1 - 2 * edge, max(1 - (bottom + top) / height, 0.01)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", message="constrained_layout not applied")
            self.figure.draw_without_rendering()
            thinned = [thin_ticks(axes, self.named) for axes in self.figure.axes]
            if any(thinned):
                self.figure.draw_without_rendering()
        if any(crowded(axes, self.named) for axes in self.figure.axes):
            return False
        sides = [min(axes.get_window_extent().size) / self.figure.dpi for axes in self.figure.axes]
        return min(sides, default=1.0) >= LEAST_AXES * min(self.scale, 1) and not any(
            "constrained_layout" in str(each.message) for each in caught
        )

    def _text(self, x: float, y: float, text: str, **options: Any) -> Any:
        artist = self.figure.text(x, y, text, transform=self.figure.dpi_scale_trans, **options)
        artist.set_in_layout(False)
        return artist

    def _write_note(self) -> float:
        """Write the note at the bottom; return its height in inches."""
        if not self.note:
            return 0.0
        text = self.fitted(self.note, self.size[0] - 2 * MARGIN, self.small)
        self._text(MARGIN, MARGIN, text, fontsize=self.small, color=self.theme.muted, va="bottom", linespacing=1.15)
        return (text.count("\n") + 1) * self.small * 1.3 / 72 + MARGIN / 2

    def _draw_legend(self, entries: Mapping[str, Any], bottom: float) -> float:
        room = self.size[0] - 2 * MARGIN
        sign = HANDLE_LETTERS * self.small / 72
        texts = [self.fitted(text, room - sign, self.small) for text in entries]
        widths = [max(self.inches(line, self.small) for line in text.split("\n")) + sign for text in texts]
        columns = next(n for n in range(len(widths), 0, -1) if n == 1 or _columns_width(widths, n) <= room)
        legend = self.figure.legend(
            list(entries.values()), texts, loc="lower left", ncols=columns, frameon=False, fontsize=self.small, borderpad=0,
            borderaxespad=0, labelcolor=self.theme.ink, handlelength=1.9, handletextpad=0.5, columnspacing=1.2,
            bbox_to_anchor=(MARGIN, bottom), bbox_transform=self.figure.dpi_scale_trans, labelspacing=0.35,
            markerscale=MARKS_IN_LEGEND,
        )  # fmt: skip
        legend.set_in_layout(False)
        return float(legend.get_window_extent(self.renderer).height) / self.figure.dpi + MARGIN

    def _write_header(self) -> float:
        """Write the title at the left and the split at the right; return the height of both in inches."""
        width, large = self.size[0], self.font * 1.1
        self.tops: list[Any] = []
        room = width - 2 * MARGIN
        height = 0.0
        if self.split:
            tag = split_words(self.split).upper()
            room -= self.inches(tag, self.small) + 0.9 * self.font / 72 + MARGIN
            test = self.split == "test"
            box = {
                "boxstyle": "square,pad=0.3", "linewidth": 0.9, "edgecolor": self.theme.ink, "linestyle": "-" if test else "--",
                "facecolor": self.theme.ink if test else self.theme.ground,
            }  # fmt: skip
            self.tops.append(
                self._text(
                    width - MARGIN - 0.35 * self.small / 72, 0, tag, fontsize=self.small * 0.9, ha="right", va="top", bbox=box,
                    color=self.theme.ground if test else self.theme.ink,
                )
            )  # fmt: skip
            height = 1.75 * self.small / 72
        if self.title:
            text = self.fitted(self.title, room, large)
            self.tops.append(
                self._text(MARGIN, 0, text, fontsize=large, color=self.theme.ink, va="top", linespacing=1.15)
            )
            height = max(height, (text.count("\n") + 1) * large * 1.35 / 72)
        return height + MARGIN + (MARGIN / 2 if height else 0)


def _columns_width(widths: Sequence[float], columns: int) -> float:
    """Add up the widest entry of each column of a legend, which is filled column by column."""
    rows, longer = divmod(len(widths), columns)
    total, place = 0.0, 0
    for column in range(columns):
        count = rows + (column < longer)
        total += max(widths[place : place + count], default=0.0)
        place += count
    return total
