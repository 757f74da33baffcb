"""Every error a user can meet: what is wrong, why, and the next step.

Only these are caught by the command line and printed as two lines; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterable
from difflib import get_close_matches

# What torch and accelerate say where a GPU has no memory left.
ON_A_GPU = ("out of memory", "cublas_status_alloc_failed", "no executable batch size found")


class WisepatchError(Exception):
    """A user's mistake, or a circumstance that the user can mend. ``exit_code`` is what the command line ends with."""

    exit_code = 1
    word = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        """Store one line that names the thing and the reason, and one line that names the next step."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the message as it is printed: one line, unless it lists several things."""
        return (self.message,)


class UsageError(WisepatchError):
    """A mistake in the words of a command or call, whatever lies on the disk."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not among the known ones; lists close ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        """Name ``kind`` and ``name``; propose up to three of ``known`` that look alike (in any case)."""
        known = list(known)
        folded = {each.lower(): each for each in known}
        close = [folded[each] for each in get_close_matches(name.lower(), folded, n=3, cutoff=0.55)]
        question = f"; did you mean {' or '.join(close)}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}{question}", hint or f"known: {', '.join(sorted(known))}")


class DataError(WisepatchError):
    """A dataset that is missing, empty or broken."""


class EmptySplitError(DataError):
    """A split that is held out of a user's own images, and into which none of them falls."""


class MissingDataError(DataError):
    """Data that is not there, or not whole: other splits of the dataset may be. A hint says how to get it."""


class ModelError(WisepatchError):
    """A model or weights that cannot be fetched, read or used."""


class StoreError(WisepatchError):
    """A checkpoint or a store that is missing, damaged or cannot be written."""


class ResultsError(WisepatchError):
    """Results that do not hold what was asked of them."""


class PluginError(WisepatchError):
    """A plugin that breaks the contract; names its owner."""


class TrainingError(WisepatchError):
    """A fine-tuning run that cannot go on."""


class ResourceError(WisepatchError):
    """A machine that is too small for what was asked."""


class Stopped(KeyboardInterrupt):
    """A signal that ends the program; ``number`` is the signal's, and the exit code is 128 more."""

    def __init__(self, number: int, note: str = "") -> None:
        """Name the signal, and what is kept and how to go on."""
        super().__init__()
        self.number = number
        if note:
            self.add_note(note)


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interruption that an error comes of; ``None`` without one.

    Python wraps what is raised while a class is made (``__set_name__``, as of an enum) in a ``RuntimeError``, and libraries what is
    raised while they are imported.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen and not isinstance(each, KeyboardInterrupt):
        seen.add(id(each))
        each = each.__cause__ or each.__context__
    return each if isinstance(each, KeyboardInterrupt) else None


def warn_renamed(old: str, new: str) -> None:
    """Warn, at the caller's caller, that a public name was renamed; the old one still works."""
    warnings.warn(f"{old} is now called {new}", DeprecationWarning, stacklevel=3)


def out_of_memory(error: Exception, option: str = "--batch-size") -> ResourceError | None:
    """Return what to tell a user where memory ran out; ``None`` for every other error. ``option`` makes batches smaller."""
    text = str(error).lower()
    if isinstance(error, RuntimeError) and any(sign in text for sign in ON_A_GPU):
        reason = str(error).partition("\n")[0].split(". ")[0]
        message, hint = f"the GPU's memory ran out: {reason}", f"give a smaller {option}, or bf16"
    elif isinstance(error, RuntimeError) and "dataloader worker" in text and "killed by signal" in text:
        message, hint = "a process that loads images was killed", "give fewer --workers, or 0"
    elif isinstance(error, MemoryError) or "allocate memory" in text or getattr(error, "errno", None) == errno.ENOMEM:
        message, hint = "the machine's memory ran out", f"give a smaller {option} or fewer --workers"
    else:
        return None
    return ResourceError(message, f"{hint}; what is in the store is whole")
