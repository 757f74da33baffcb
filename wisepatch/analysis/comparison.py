"""Compare two models by their answers to the same images: beyond chance or not, task by task and class by class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from wisepatch.analysis.intervals import wilson
from wisepatch.analysis.metrics import measurements
from wisepatch.analysis.paired import difference_interval, drop_limit, holm, mcnemar, mean_difference_interval
from wisepatch.hookspecs import Measured, Scores

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Labels = NDArray[np.int64]

LEVEL = 0.05
WORSE, TOO_FEW = "*", "?"
TOO_FEW_IMAGES = "too few images"
TOO_FEW_MEANS = f"{TOO_FEW_IMAGES}: at 95 %, they leave open whether accuracy drops by more than 1 point"
TELLING_DROP = 0.01  # too few images to tell: a drop of more than this is neither shown nor excluded


@dataclass(frozen=True)
class Difference:
    """The accuracy of a second model less that of a first one, on the same ``n`` images.

    ``fixed`` images the second alone has right, ``broken`` ones the first alone. ``low`` and ``high`` are the paired 95 %
    interval, ``p`` is McNemar's exact p-value and ``p_holm`` the same adjusted for all that are looked at together.
    """

    name: str
    n: int
    before: float
    after: float
    fixed: int
    broken: int
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def difference(self) -> float:
        """Return the difference, a fraction."""
        return (self.fixed - self.broken) / self.n

    def accuracy(self, when: str) -> dict[str, float]:
        """Return the accuracy ``before`` or ``after`` with Wilson's 95 % interval, as a row of results has them."""
        value = getattr(self, when)
        return dict(zip(("value", "ci_low", "ci_high"), (value, *wilson(value, self.n)), strict=True))

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        ends = {
            f"{when}_{end.removeprefix('ci_')}": limit
            for when in ("before", "after")
            for end, limit in self.accuracy(when).items()
            if end != "value"
        }
        return asdict(self) | ends | {"difference": self.difference, "verdict": self.verdict}

    @property
    def verdict(self) -> str:
        """Say ``better`` or ``worse`` where the adjusted p-value is below 0.05, ``too few images`` or ``no difference``."""
        if self.p_holm < LEVEL:
            return "better" if self.fixed > self.broken else "worse"
        return TOO_FEW_IMAGES if too_few(self.fixed, self.broken, self.n) else "no difference"


class Confusion(NamedTuple):
    """Count the images of class ``label`` that each model takes for class ``answer``."""

    label: int
    answer: int
    before: int
    after: int


def too_few(fixed: int, broken: int, n: int, drop: float = TELLING_DROP) -> bool:
    """Tell whether ``n`` images leave open, at 95 %, whether accuracy drops by more than ``drop``."""
    return bool(drop_limit(fixed, broken, n) > drop)


def drop_marks(counts: Mapping[str, tuple[int, int, int]], drop: float = TELLING_DROP) -> dict[str, str]:
    """Mark tasks by their ``(fixed, broken, n)``: ``*`` where accuracy drops beyond chance, ``?`` where too few images tell.

    The p-values of McNemar's exact test are adjusted over the tasks (Holm).
    """
    adjusted_p = holm([float(mcnemar(fixed, broken)) for fixed, broken, _ in counts.values()])
    marks = {}
    for p, (task, (fixed, broken, n)) in zip(adjusted_p, counts.items(), strict=True):
        worse = broken > fixed and p < LEVEL
        marks[task] = WORSE if worse else TOO_FEW if too_few(fixed, broken, n, drop) else ""
    return marks


def difference(name: str, before: Bools, after: Bools) -> Difference:
    """Compare which images ``(n,)`` two models have right; at least one."""
    fixed, broken, n = int((after & ~before).sum()), int((before & ~after).sum()), len(before)
    low, high = difference_interval(fixed, broken, n)
    p = float(mcnemar(fixed, broken))
    return Difference(name, n, float(before.mean()), float(after.mean()), fixed, broken, float(low), float(high), p, p)


def adjusted(differences: Iterable[Difference]) -> list[Difference]:
    """Adjust the p-values of differences that are looked at together (Holm)."""
    differences = list(differences)
    p_values = holm([each.p for each in differences])
    return [replace(each, p_holm=float(p)) for each, p in zip(differences, p_values, strict=True)]


def mean_difference(differences: Sequence[Difference], shown: Sequence[str]) -> tuple[float, float, float]:
    """Return the mean difference of several tasks and its 95 % interval; ``shown`` names each, or another with the same images."""
    fixed, broken, n = ([getattr(each, field) for each in differences] for field in ("fixed", "broken", "n"))
    low, high = mean_difference_interval(fixed, broken, n, tasks=shown)
    return sum(each.difference for each in differences) / len(differences), float(low), float(high)


def class_differences(labels: Labels, before: Labels, after: Labels, classes: Sequence[str]) -> list[Difference]:
    """Compare two models class by class, by their answers ``(n,)``; classes without images are left out."""
    return adjusted(
        difference(name, before[of_class] == index, after[of_class] == index)
        for index, name in enumerate(classes)
        if (of_class := labels == index).any()
    )


def class_accuracies(labels: Labels, answers: Labels, classes: Sequence[str]) -> list[tuple[str, Measured, float]]:
    """Return name, accuracy (recall) and precision of each class that has images, by answers ``(n,)``.

    The precision of a class that is never answered is NaN.
    """
    rows = []
    for index, name in enumerate(classes):
        of_class, said = labels == index, answers == index
        if of_class.any():
            measured = dict(measurements("top1", labels[of_class], answers[of_class], len(classes)))["top1"]
            rows.append((name, measured, float((labels[said] == index).mean()) if said.any() else math.nan))
    return rows


def confusions(labels: Labels, before: Labels, after: Labels) -> list[Confusion]:
    """Count the mistakes of two models by true and predicted class, those whose number changes most first."""
    counts = [
        Counter(
            (label, answer) for label, answer in zip(labels.tolist(), answers.tolist(), strict=True) if label != answer
        )
        for answers in (before, after)
    ]
    pairs = [Confusion(*pair, counts[0][pair], counts[1][pair]) for pair in counts[0] | counts[1]]
    return sorted(pairs, key=lambda pair: (-abs(pair.after - pair.before), -pair.before - pair.after, *pair[:2]))


def calibration(answers: pd.DataFrame) -> dict[str, Measured]:
    """Measure the ``ece`` and, where it was kept, the ``brier`` score of answers with ``label, answer, confidence, brier``."""
    import numpy as np

    labels, predicted = answers["label"].to_numpy(), answers["answer"].to_numpy()
    bare = np.zeros(len(labels))
    columns = [answers[name].to_numpy() if name in answers else bare for name in Scores._fields]
    names = ["ece", *(["brier"] if "brier" in answers else [])]
    return {name: dict(measurements(name, labels, predicted, 0, scores=Scores(*columns)))[name] for name in names}
