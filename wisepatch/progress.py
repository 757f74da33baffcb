"""Let long work report itself: a protocol, a bar in the terminal, and a silent one."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Protocol

from wisepatch.terminal import harmless

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Progress(Protocol):
    """Receives the progress of long work. One stage is under way at a time."""

    def start(self, what: str, total: int) -> None:
        """Begin a stage of ``total`` steps."""

    def advance(self, steps: int = 1, detail: str = "") -> None:
        """Go on by ``steps``; ``detail`` replaces the words beside the bar."""

    def finish(self) -> None:
        """End the stage."""

    def note(self, text: str) -> None:
        """Say something that should stay on the screen."""


class Silent:
    """Progress that says nothing."""

    def start(self, what: str, total: int) -> None:
        """Say nothing."""

    def advance(self, steps: int = 1, detail: str = "") -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class QuietNotes(Silent):
    """Progress of another, without its notes: for work whose notes were given before."""

    def __init__(self, inner: Progress) -> None:
        """Pass all on to ``inner`` but the notes."""
        self.inner = inner

    def start(self, what: str, total: int) -> None:
        """Begin a stage."""
        self.inner.start(what, total)

    def advance(self, steps: int = 1, detail: str = "") -> None:
        """Go on."""
        self.inner.advance(steps, detail)

    def finish(self) -> None:
        """End the stage."""
        self.inner.finish()


class RichProgress:
    """Progress as a bar on stderr, or in a notebook that has ipywidgets; elsewhere one line a stage."""

    live: ClassVar[list[RichProgress]] = []

    def __init__(self) -> None:
        """Draw nothing yet."""
        self.bars: Bars | None = None
        self.task: TaskID | None = None

    @property
    def quiet(self) -> bool:
        """Tell whether nothing is to be said."""
        return False

    @property
    def console(self) -> Console:
        """Return where bars are drawn."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Write a line."""
        if sys.stderr is not None:
            sys.stderr.write(f"{harmless(text)}\n")
            sys.stderr.flush()

    def start(self, what: str, total: int) -> None:
        """Begin a stage."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.finish()
        if self.quiet:
            return
        console = self.console
        if not console.is_terminal and not (console.is_jupyter and find_spec("ipywidgets")):
            self.say(f"{what} ...")
            return
        self.bars = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TextColumn("elapsed"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # results that go into a file stay out of the terminal
        )  # fmt: skip
        self.task = self.bars.add_task(harmless(what), total=total, detail="")
        self.bars.start()
        RichProgress.live.append(self)

    def advance(self, steps: int = 1, detail: str = "") -> None:
        """Go on."""
        if self.bars is not None and self.task is not None:
            self.bars.update(self.task, advance=steps, detail=harmless(detail))

    def finish(self) -> None:
        """End the stage."""
        if self.bars is not None:
            self.bars.refresh()  # a notebook keeps what was drawn last
            self.bars.stop()
            self.bars = None
            RichProgress.live.remove(self)

    def note(self, text: str) -> None:
        """Say something that stays."""
        if self.bars is not None:
            self.bars.console.print(harmless(text), markup=False, emoji=False)
        else:
            self.say(text)
