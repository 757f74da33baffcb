"""Collect what checks of a plugin find: whatever a check raises is a finding, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from wisepatch.datasets.guarding import BrokenDatasetError
from wisepatch.errors import PluginError, WisepatchError


@dataclass(frozen=True)
class Finding:
    """The result of one check of one thing: ``problem`` is empty where all is well."""

    subject: str  # the task, or the plugin where the check is about the whole of it
    check: str
    problem: str = ""


class Findings(list[Finding]):
    """The findings, in order."""

    def run(self, subject: str, check: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of ``function``, or ``None`` where it raised, which is a problem whatever was raised."""
        result, problem = None, ""
        try:
            result = function(*arguments)
        except Exception as error:  # noqa: BLE001 -- a plugin may raise anything, and the other checks go on
            problem = _in_words(error)
        self.append(Finding(subject, check, " ".join(problem.split())))
        return result


def _in_words(error: Exception) -> str:
    """Return what is wrong, and what is allowed."""
    if not isinstance(error, WisepatchError):
        return f"{type(error).__name__}: {error}"
    hint = "" if isinstance(error, BrokenDatasetError) else error.hint  # to tell the author, who reads this
    return f"{error.message}; {hint}" if hint else error.message


@contextmanager
def calling(field: str, gets: str) -> Iterator[None]:
    """Name the ``field`` whose function raises anything, and what that function is given."""
    try:
        yield
    except Exception as error:
        raise PluginError(f"{field}: {_in_words(error)}; it is given {gets}") from error


def require(holds: bool, problem: str) -> None:
    """Raise :class:`PluginError` with the problem where something does not hold."""
    if not holds:
        raise PluginError(problem)
