"""Effective robustness: accuracy under a distribution shift beyond what accuracy without it predicts (WiSE-FT, section 2).

Of models that were trained in the standard way, accuracies under a shift lie close to a line over those on the reference data, once
both are on a logit scale (Taori et al. 2020; Miller et al. 2021). Effective robustness ``rho`` is the distance above that line. All
functions take accuracies as fractions, broadcast, and let NaN through; what stands at 0 or 1 is clamped where a logit is taken.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wisepatch.errors import ResultsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

REFERENCE = "ImageNet"
CLAMP = 1e-6  # the nearest to 0 and 1 that a logit is taken of
MIN_MODELS = 3  # of a fit: two models lie on a line whatever they are
TESTBED = (
    "least squares in logit space on the 85 standard models of the imagenet-testbed "
    "(github.com/modestyachts/imagenet-testbed)"
)


@dataclass(frozen=True)
class Line:
    """The line of standard models, ``logit(shift) = slope * logit(reference) + intercept``, with natural logarithms.

    ``reference`` is the task on the x axis, ``r2`` the share of the variance of the logits that the line explains, ``source`` says
    what it was fitted to.
    """

    shift: str
    reference: str
    slope: float
    intercept: float
    r2: float = math.nan
    source: str = TESTBED

    def predict(self, reference: ArrayLike) -> NDArray[np.float64]:
        """Predict the accuracy under the shift from that on the reference task."""
        return expit(self.slope * logit(reference) + self.intercept)


def restricted(shift: str) -> str:
    """Return the name of ImageNet's own images of the classes that a shift has, as the code of WiSE-FT calls it."""
    return f"{shift}ValClasses"


LINES = (
    Line("ImageNetV2", REFERENCE, 0.923, -0.498, 0.996),
    Line("ImageNetSketch", REFERENCE, 1.071, -2.370, 0.869),
    Line("ImageNetR", REFERENCE, 0.912, -1.600, 0.877),
    Line("ObjectNet", REFERENCE, 1.199, -2.024, 0.941),
    Line("ImageNetA", REFERENCE, 3.052, -6.292, 0.773),
    # Of ImageNet's accuracy on the classes that the shift has.
    Line("ImageNetR", restricted("ImageNetR"), 0.637, -2.108, 0.889),
    Line("ObjectNet", restricted("ObjectNet"), 0.981, -1.928, 0.953),
    Line("ImageNetA", restricted("ImageNetA"), 1.990, -7.632, 0.828),
)


def logit(fraction: ArrayLike, clamp: float = CLAMP) -> NDArray[np.float64]:
    """Compute ``log(p / (1 - p))`` of fractions, which are first clamped to ``[clamp, 1 - clamp]``."""
    import numpy as np

    clamped = np.clip(np.asarray(fraction, float), clamp, 1 - clamp)
    return np.asarray(np.log(clamped) - np.log1p(-clamped))


def expit(value: ArrayLike) -> NDArray[np.float64]:
    """Compute ``1 / (1 + exp(-x))``, the inverse of :func:`logit`, without overflow."""
    import numpy as np
    from scipy.special import expit as scipy_expit

    return np.asarray(scipy_expit(np.asarray(value, float)))


def effective_robustness(reference: ArrayLike, shift: ArrayLike, line: Line) -> NDArray[np.float64]:
    """Compute rho, in points: 100 times the accuracy under the shift less what the line predicts (WiSE-FT, section 2)."""
    import numpy as np

    return 100 * (np.asarray(shift, float) - line.predict(reference))


def robustness_interval(
    line: Line, reference: Sequence[ArrayLike], shift: Sequence[ArrayLike]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the 95 % interval of rho, in points, from ``(value, low, high)`` of both accuracies; the line counts as exact.

    Both are measured on images of their own: the distances to the limits are squared and added (Zou and Donner 2008). NaN where
    an interval is not known.
    """
    import numpy as np

    x, x_low, x_high = (line.predict(each) for each in reference)
    y, y_low, y_high = (np.asarray(each, float) for each in shift)
    # A larger reference accuracy promises more (or, of a falling line, less): its upper limit is rho's lower one.
    promised_low, promised_high = np.minimum(x_low, x_high), np.maximum(x_low, x_high)
    below = np.hypot(y - y_low, promised_high - x)
    above = np.hypot(y_high - y, x - promised_low)
    return 100 * (y - x - below), 100 * (y - x + above)


def find_line(shift: str, measured: Sequence[str], reference: str = REFERENCE) -> Line | None:
    """Return the published line of a shift; ``None`` where there is none.

    The one over the shift's own classes is taken where their accuracy is among the tasks that were ``measured``.
    """
    if reference != REFERENCE:
        return None
    known = {line.reference: line for line in LINES if line.shift == shift}
    return known.get(restricted(shift) if restricted(shift) in measured else REFERENCE)


def fit_line(
    shift: str, reference: str, accuracies: ArrayLike, shifted: ArrayLike, source: str = "least squares"
) -> Line:
    """Fit the line by least squares to the logits of models ``(m,)``; pairs with NaN are left out.

    Raises :class:`ResultsError` for fewer than three models, and for models of one and the same accuracy.
    """
    import numpy as np

    x, y = logit(accuracies), logit(shifted)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < MIN_MODELS or np.ptp(x) == 0:
        reason = f"no line can be fitted to {reference} and {shift}: {len(x)} models, {len(np.unique(x))} accuracies"
        raise ResultsError(reason, f"give at least {MIN_MODELS} models of different accuracy")
    slope, intercept = np.polyfit(x, y, 1)
    residual, spread = float(((y - slope * x - intercept) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    r2 = 1 - residual / spread if spread else 1.0
    return Line(shift, reference, float(slope), float(intercept), r2, f"{source}, {len(x)} models")


def read_models(path: Path | str) -> dict[str, NDArray[np.float64]]:
    """Read the accuracies of standard models from a CSV: a row a model, a column a task, other columns are left out.

    Accuracies are fractions, or per cent where any in the file is above 1. Raises :class:`ResultsError` for a file that cannot be
    read, or holds no accuracies.
    """
    import numpy as np
    import pandas as pd

    hint = "give a CSV with a row a model and a column a task: ImageNet,ImageNetV2"
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        frame = pd.read_csv(io.StringIO(text), sep=max(",;\t", key=header.count))
    except (OSError, ValueError, UnicodeError) as error:  # pandas' errors of parsing are ValueErrors
        reason = getattr(error, "strerror", None) or str(error)
        raise ResultsError(f"the standard models {path} cannot be read: {reason}", hint) from error
    numbers = {str(name).strip(): pd.to_numeric(frame[name], errors="coerce") for name in frame}
    columns = {name: values.to_numpy(float) for name, values in numbers.items() if values.notna().any()}
    if not columns:
        raise ResultsError(f"the standard models {path} hold no numbers", hint)
    accuracies = {
        name: values for name, values in columns.items() if np.nanmin(values) >= 0 and np.nanmax(values) <= 100
    }
    scale = 100.0 if any(np.nanmax(values) > 1 for values in accuracies.values()) else 1.0
    return {name: values / scale for name, values in accuracies.items()}


def fit_lines(path: Path | str, reference: str, shifts: Sequence[str]) -> dict[str, Line]:
    """Fit the lines of shifts to the standard models of a CSV; shifts that it has no column of are left out.

    Raises :class:`ResultsError` where it has no column of the reference task, or of no shift.
    """
    models = read_models(path)
    hint = f"columns there are: {', '.join(models)}"
    if reference not in models:
        raise ResultsError(f"the standard models {path} have no column {reference!r}", hint)
    known = [shift for shift in shifts if shift in models]
    if not known:
        raise ResultsError(f"the standard models {path} have no column of {', '.join(shifts)}", hint)
    return {shift: fit_line(shift, reference, models[reference], models[shift], Path(path).name) for shift in known}


def robustness_points(
    line: Line | None, reference: Mapping[str, Any], shift: Mapping[str, Any]
) -> dict[str, NDArray[np.float64]]:
    """Return ``predicted, rho, rho_low, rho_high`` of points with ``value, ci_low, ci_high`` ``(n,)``; NaN without a line."""
    import numpy as np

    names = ("value", "ci_low", "ci_high")
    x, y = ([np.asarray(each[name], float) for name in names] for each in (reference, shift))
    if line is None:
        return {name: np.full(x[0].shape, np.nan) for name in ("predicted", "rho", "rho_low", "rho_high")}
    low, high = robustness_interval(line, x, y)
    return {
        "predicted": line.predict(x[0]), "rho": effective_robustness(x[0], y[0], line), "rho_low": low, "rho_high": high,
    }  # fmt: skip
