"""Choose alpha from the measurements of a sweep by a rule that is registered by name; the built-in rules are in ``rules``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wisepatch.analysis import drops, rules
from wisepatch.analysis.sweep_frame import SUPPORTED, axes
from wisepatch.config import listed
from wisepatch.errors import ResultsError, UsageError
from wisepatch.hookspecs import Choice, SelectionRule, hookimpl
from wisepatch.plugins import find_rule

if TYPE_CHECKING:
    import pandas as pd

BEST_MEAN, MAX_DROP, KNEE = "best-mean", drops.MAX_DROP, "knee"
EXAMPLES = {"FRACTION": "0.01 for one point, 0.01@95 to certify it", "TASK:WEIGHT": "MNIST:2,CIFAR10:1"}


@dataclass(frozen=True)
class Rule:
    """A rule by name, and what stands after ``=``, as text or as the rule has read it: ``Rule("max-drop", 0.01)``.

    Raises :class:`UsageError` for a value that the rule does not take, or none where it takes one.
    """

    name: str = BEST_MEAN
    value: Any = None

    def __post_init__(self) -> None:
        """Read the value."""
        row = find_rule(self.name)
        if not row.takes:
            if self.value is not None:
                raise UsageError(f"{self.name} takes no value, and {self.value!r} is given", f"write {self.name}")
        elif self.value is None or isinstance(self.value, str | int | float):
            text = "" if self.value is None else str(self.value)
            try:
                value = (row.read or drops.read_number)(text)
            except (ValueError, OverflowError) as error:
                reason = str(error) if str(error).startswith("needs") else f"needs {_kind(row.takes)}"
                reason += "" if "not" in reason else f", not {text!r}"
                raise UsageError(
                    f"{self.name} {reason}", f"write {self.name}={EXAMPLES.get(row.takes, row.takes)}"
                ) from error
            object.__setattr__(self, "value", value)

    def __str__(self) -> str:
        """Return what :func:`parse_rule` reads."""
        return self.name if self.value is None else f"{self.name}={self.value}"

    def shared_out(self, choices: int) -> Rule:
        """Return the rule for each of several choices that build on each other: what is certified holds of all of them together."""
        return replace(self, value=drops.shared_out(self.value, choices)) if self.is_certified else self

    def of_several(self, choices: int) -> str:
        """Say what is promised of several choices by the rule that do not build on each other; nothing where nothing is."""
        if choices < 2 or not self.is_certified:
            return ""
        return (
            f"{self} holds of each of the {choices} choices by itself; for one that is picked among them, or for all together, "
            f"choose by {self.shared_out(choices)}"
        )

    @property
    def is_certified(self) -> bool:
        """Tell whether it certifies a drop, from the answers image by image."""
        return getattr(self.value, "confidence", None) is not None


def check_without_order(rule: Rule) -> None:
    """Raise :class:`UsageError` for a rule that goes by alphas, which candidates that are numbered do not have."""
    if rule.is_certified or rule.name == "alpha":
        raise UsageError(
            f"{rule} goes through alphas in their order, and candidates of several ends have none",
            f"use {BEST_MEAN}, {MAX_DROP}=FRACTION, {KNEE} or weights",
        )


def _kind(takes: str) -> str:
    return {"FRACTION": "a fraction", "TASK:WEIGHT": "tasks with weights"}.get(takes, f"a number ({takes})")


@hookimpl
def register_rules() -> Iterable[SelectionRule]:
    """Register the built-in rules."""
    return (
        SelectionRule(BEST_MEAN, rules.best_mean),
        SelectionRule(MAX_DROP, drops.max_drop, takes="FRACTION", needs_drop=True, read=drops.read_bound),
        SelectionRule(KNEE, rules.knee, check=rules.missing_curve),
        SelectionRule("alpha", rules.given_alpha, takes="ALPHA", check=rules.missing_alpha),
        SelectionRule(
            "weights", rules.weighted, takes="TASK:WEIGHT", read=rules.read_weights, check=rules.missing_tasks
        ),
    )


def parse_rule(text: str) -> Rule:
    """Read ``best-mean``, ``max-drop=0.01`` or ``max-drop=0.01@95,each``. Raises :class:`UsageError` for anything else."""
    name, equals, value = text.strip().partition("=")
    return Rule(name, value.strip() if equals else None)


def missing_for_rule(
    rule: Rule, alphas: Sequence[float], patching: str | Sequence[str], supported: Sequence[str]
) -> str:
    """Say what a sweep lacks that the rule needs: an alpha, or tasks; an empty string where nothing is missing."""
    row, patched = find_rule(rule.name), listed(patching)
    if rule.name == KNEE and not supported:
        return rules.missing_curve(None, alphas, patched[:1])
    if row.needs_drop and not (supported and 0 in alphas):
        missing = "alpha 0 in the sweep" if supported else "supported tasks"
        return f"{rule.name} needs {missing} to measure the drop from zero-shot"
    return row.check(rule.value, alphas, (*patched, *supported)) if row.check else ""


def choose(frame: pd.DataFrame, rule: Rule | str) -> Choice:
    """Choose an alpha of a sweep, the frame that :func:`~wisepatch.analysis.sweep_frame.sweep_frame` returns, by a rule.

    Alphas at which a metric has no value (NaN) are never chosen. Raises :class:`ResultsError` where the rule cannot judge.
    """
    rule = parse_rule(rule) if isinstance(rule, str) else rule
    if frame.empty:
        raise ResultsError("there are no alphas to choose from", "evaluate at least one")
    tasks = list(frame["task"].unique())
    supported = [task for task in tasks if (frame.loc[frame["task"] == task, "role"] == SUPPORTED).all()]
    patching = [task for task in tasks if task not in supported]
    alphas = sorted(frame["alpha"].unique().tolist())
    if missing := missing_for_rule(rule, alphas, patching, supported):
        raise ResultsError(missing, f"add what is missing, or use {BEST_MEAN}")
    mean = axes(frame)["mean"]
    valued = [alpha for alpha in alphas if math.isfinite(mean[alpha])]
    if not valued or missing_for_rule(rule, valued, patching, supported):
        without = ", ".join(f"{alpha:g}" for alpha in alphas if alpha not in valued)
        reason = f"{rule.name} cannot choose: the metric has no value at alpha {without}"
        raise ResultsError(reason, "choose by another metric with --metric, or measure more images")
    chosen = find_rule(rule.name).choose(frame[frame["alpha"].isin(valued)], rule.value)
    return chosen if isinstance(chosen, Choice) else Choice(float(chosen))


def choose_candidate(frame: pd.DataFrame, rule: Rule) -> Choice:
    """Choose among numbered candidates as :func:`choose` does, without what a rule says of certified drops: those need an order."""
    check_without_order(rule)
    return Choice(choose(frame, rule).alpha)
