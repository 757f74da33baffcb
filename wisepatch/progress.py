"""Let long work report itself: a protocol that the command line draws as a bar, and a silent one."""

from __future__ import annotations

from typing import Protocol


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
