"""Parameters of merge methods: what a recipe may say, and grids of values as the command line has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import product
from typing import Any

from wisepatch.alphas import parse_numbers
from wisepatch.errors import UnknownNameError, UsageError
from wisepatch.hookspecs import MergeMethod, Parameter

LAYERS = "layers"
FILES = ("fisher", "gram")
BESIDE = (*FILES, LAYERS)  # what recipes hold beside the parameters of a method
MAX_NUMBER = 1e6
MAX_CANDIDATES = 10_000
LINEAR = "linear"
BETWEEN_TWO = (LINEAR, "fisher")  # with alpha these mix two parents; with weights any number
ALTERNATIVES = (("alpha", "alphas"), ("alpha", "weights"))  # one takes the place of the other


def params_problem(method: MergeMethod, parents: int, params: Mapping[str, Any]) -> str:
    """Return what is wrong with the parameters of a merge of so many parents, to follow "a recipe"; empty if nothing is."""
    ends = parents - 1 if method.from_start else parents
    least, most = method.ends
    if method.name in BETWEEN_TWO and "weights" not in params and parents != 2:
        return f"of {parents} parents, and {method.name} mixes two"
    if method.from_start and ends < 1:
        return f"of a start alone, and {method.name} adds ends to it"
    if ends < least or (most is not None and ends > most):
        wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
        return f"of {ends} {'ends' if method.from_start else 'parents'}, and {method.name} merges {wanted}"
    known = {parameter.name: parameter for parameter in method.parameters}
    for one, other in ALTERNATIVES:
        if one in params and other in params:
            return f"with both {one} and {other}"
    for name, value in params.items():
        if name == LAYERS:
            if found := _layers_problem(value):
                return found
        elif name in known:
            if found := value_problem(known[name], value, ends):
                return f"with {found}"
        elif name not in BESIDE:
            return f"with {name}, which {method.name} does not have"
    for group in ALTERNATIVES:
        if set(group) <= set(known) and not set(group) & set(params):
            return f"with {group[0]} None"
    replaced = {name for group in ALTERNATIVES if set(group) <= set(known) for name in group}
    missing = [
        each.name for each in method.parameters if each.default is not None and each.name not in {*params, *replaced}
    ]
    return f"without {missing[0]}" if missing else ""


def value_problem(parameter: Parameter, value: Any, ends: int | None = None) -> str:
    """Return why a value does not fit a parameter, beginning with its name; empty where it does. ``ends`` counts ``numbers``."""
    name, shown = parameter.name, str(value)[:40]
    if parameter.kind == "word":
        words = ", ".join(parameter.words)
        return "" if value in parameter.words else f"{name} {shown}, which is none of {words}"
    if parameter.kind == "numbers":
        if not isinstance(value, list | tuple) or not all(_is_number(each) for each in value):
            return f"{name} {shown}, which are no numbers up to {MAX_NUMBER:,.0f}"
        if ends is not None and len(value) != ends:
            return f"{len(value)} {name} for {ends} ends"
        outside = [each for each in value if not parameter.low <= each <= parameter.high]
        if name == "weights" and not outside and not sum(value) > 0:
            return f"{name} that add up to nothing"
        return f"{name} {outside[0]}, which is {_range(parameter)}" if outside else ""
    if not _is_number(value):
        return f"{name} {shown}, which is no number up to {MAX_NUMBER:,.0f}"
    if parameter.kind == "integer" and value != int(value):
        return f"{name} {shown}, which is no whole number"
    return "" if parameter.low <= value <= parameter.high else f"{name} {shown}, which is {_range(parameter)}"


def _range(parameter: Parameter) -> str:
    low, high = parameter.low, parameter.high
    if math.isinf(high):
        return f"below {low:g}"
    return f"above {high:g}" if math.isinf(low) else f"not from {low:g} to {high:g}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER  # NaN is not


def _layers_problem(layers: object) -> str:
    if not isinstance(layers, dict) or not all(
        isinstance(key, str) and _is_number(each) for key, each in layers.items()
    ):
        return f"with layers {str(layers)[:40]}"
    return ""


def read_params(method: MergeMethod, words: Iterable[str], ends: int | None = None) -> list[dict[str, Any]]:
    """Read ``name=VALUES`` words; return the parameters of each candidate: the grid of all values, defaults where none are given.

    ``VALUES`` are numbers as alphas are given (``0:1:0.1``, ``0.2,0.5``) or words by comma; of a parameter with a number for each
    end ``0.3/0.5/0.2``, several by comma. Raises :class:`UsageError` for values outside their range, :class:`UnknownNameError`
    for a parameter that the method does not have.
    """
    known, given = {parameter.name: parameter for parameter in method.parameters}, dict[str, list[Any]]()
    for word in words:
        name, equals, values = word.partition("=")
        name = name.strip()
        if not equals or not values.strip():
            raise UsageError(f"--param {word!r} has no value", "write --param name=VALUES, such as scale=0:1:0.1")
        if name not in known:
            if not known:
                raise UsageError(f"{method.name} has no parameters, and {name!r} is given", "leave --param out")
            raise UnknownNameError(f"parameter of {method.name}", name, list(known))
        if name in given:
            raise UsageError(f"--param {name} is given twice", "give its values by comma")
        given[name] = _read_values(method, known[name], values, ends)
    for one, other in ALTERNATIVES:
        if one in given and other in given:
            raise UsageError(f"{one} and {other} take each other's place, and both are given", f"leave {other} out")
    shadowed = {name for pair in ALTERNATIVES for name in pair if set(pair) & set(given) and name not in given}
    axes = {
        name: given.get(name, [parameter.default])
        for name, parameter in known.items()
        if name in given or (parameter.default is not None and name not in shadowed)
    }
    if math.prod(map(len, axes.values())) > MAX_CANDIDATES:
        raise UsageError(f"these are more than {MAX_CANDIDATES} candidates", "give fewer values")
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _read_values(method: MergeMethod, parameter: Parameter, text: str, ends: int | None) -> list[Any]:
    values: list[Any]
    if parameter.kind == "word":
        values = [word.strip() for word in text.split(",")]
    elif parameter.kind == "numbers":
        values = [
            list(parse_numbers(part.replace("/", ","), parameter.name, in_order=True)) for part in text.split(",")
        ]
    else:
        values = list(parse_numbers(text, parameter.name))
        if parameter.kind == "integer":
            values = [int(value) if value == int(value) else value for value in values]
    for value in values:
        if found := value_problem(parameter, value, ends):
            hint = f"{parameter.name}: {parameter.help}" if parameter.help else "give another value"
            if parameter.kind == "word" and (close := get_close_matches(str(value), parameter.words, 1)):
                hint = f"did you mean {close[0]}?"
            raise UsageError(f"{method.name} cannot have {found}", hint)
    return values


def described(params: Mapping[str, Any]) -> str:
    """Write parameters for names: ``density=0.2, scale=1``; without those that are files."""
    return ", ".join(f"{name}={_written(value)}" for name, value in without_files(params).items())


def label(params: Mapping[str, Any]) -> str:
    """Write parameters for people, as :func:`described` does, but for scales of layers, of which there may be dozens."""
    words = described({name: value for name, value in params.items() if name != LAYERS})
    return ", ".join(filter(None, [words, "layers scaled" if LAYERS in params else ""]))


def without_files(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without the entries of the cache that hold what a merge weighs its parents by."""
    return {name: value for name, value in params.items() if name not in FILES}


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "/".join(f"{key}:{_written(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return "/".join(map(_written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
