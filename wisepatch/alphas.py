"""Numbers as they are written: lists of alphas, and of the values of other parameters."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from wisepatch.errors import UsageError

MAX_ALPHAS = 10_001
MAX_DIGITS = 400  # of an alpha as it is written
DEFAULT_ALPHAS = "0:1:0.1"
AUTO, GRID_ALPHAS = "auto", "0:1:0.01"  # a race, and the alphas that take part


def parse_alphas(text: str | Iterable[str]) -> tuple[float, ...]:
    """Read mixing coefficients: ``0:1:0.1`` (both ends), ``0,0.25,0.5``, ``0.5``, or a mixture; sorted, each once.

    Decimals are exact: ``0:1:0.1`` holds 0.3, never 0.30000000000000004. Raises :class:`UsageError` for anything else,
    and for alphas outside [0, 1].
    """
    values = parse_numbers(text)
    outside = [value for value in values if not 0 <= value <= 1]
    if outside:
        raise UsageError(f"alpha {min(outside):g} lies outside [0, 1]", "alpha 0 is zero-shot, 1 is fine-tuned")
    return values


def parse_numbers(text: str | Iterable[str], name: str = "alphas", *, in_order: bool = False) -> tuple[float, ...]:
    """Read numbers as :func:`parse_alphas` does, of any size; ``in_order`` keeps them as they are given. ``name`` is for errors."""
    words = [text] if isinstance(text, str) else list(text)
    values: list[Decimal] = []
    try:
        for word in (part.strip() for joined in words for part in joined.split(",")):
            bounds = [_decimal(piece, word) for piece in word.split(":")]
            if len(bounds) == 1:
                values += bounds
            elif len(bounds) == 3:
                try:
                    values += _steps(word, *bounds)
                except ArithmeticError as error:  # an exponent of a million
                    raise _not_understood(word) from error
            else:
                raise _not_understood(word)
    except UsageError as error:
        if name == "alphas":
            raise
        raise UsageError(
            error.message.replace("alphas", f"values of {name}", 1), error.hint.replace(", or auto alone", "")
        ) from error
    numbers = [float(value) for value in values]
    return tuple(numbers if in_order else sorted(set(numbers)))


def _steps(word: str, start: Decimal, stop: Decimal, step: Decimal) -> list[Decimal]:
    """Return START, START + STEP, ... and STOP."""
    if step <= 0 or stop < start:
        hint = "write START:STOP:STEP with START <= STOP and STEP > 0"
        raise UsageError(f"alphas {word[:60]!r} lead nowhere", hint)
    if stop - start >= step * MAX_ALPHAS:
        hint = f"at most {MAX_ALPHAS}; take a larger step"
        raise UsageError(f"alphas {word[:60]!r} are more than {MAX_ALPHAS} values", hint)
    count = int((stop - start) / step) + 1
    return [*(start + i * step for i in range(count)), stop]


def _not_understood(word: str, reason: str = "") -> UsageError:
    return UsageError(
        f"alphas {word[:60]!r} are not understood{reason}", "write 0:1:0.1, 0,0.25,0.5, 0.5, or auto alone"
    )


def _decimal(piece: str, word: str) -> Decimal:
    try:
        value = Decimal(piece.strip())
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite() or len(piece) > MAX_DIGITS:
        raise _not_understood(word, f": {piece[:60]!r} is no number")
    return value or Decimal(0)
