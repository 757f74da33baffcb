"""Settings as options: a command that takes a settings class gets an option for each field that the class declares as one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_origin, get_type_hints

import typer

from wisepatch.cli import completion
from wisepatch.cli.option_groups import Common, FileOptions, Machine, TrainOptions
from wisepatch.config import listed
from wisepatch.ranks import is_main
from wisepatch.train_config import TrainConfig

COMPLETED = {"objective": completion.objectives}  # of settings that are declared where nothing is completed
TASKS = ("task", "tasks", "supported", "also", "images")  # options that name tasks
SHARED = ("workers", "mixed_precision")  # of training and evaluation: one option for both


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a settings class by the options of its fields; the command gets the class filled in.

    Where training and evaluation have a field of one name, the evaluation's is called ``--eval-NAME``, but for those that one
    option sets for both.
    """
    hints = get_type_hints(command, include_extras=True)
    options: dict[str, inspect.Parameter] = {}
    groups: dict[str, tuple[type, dict[str, str]]] = {}  # parameter: its class, and field: option
    for parameter in sorted(
        inspect.signature(command).parameters.values(), key=lambda each: hints[each.name] is Common
    ):
        kind = hints[parameter.name]
        declared = TrainConfig if kind is TrainOptions else kind
        if not (isinstance(declared, type) and is_dataclass(declared)):
            options[parameter.name] = parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        names, kinds = {}, get_type_hints(declared)
        for field in (each for each in fields(declared) if "help" in each.metadata):
            name = f"eval_{field.name}" if field.name in options and field.name not in SHARED else field.name
            names[field.name] = name
            options.setdefault(name, _option(name, field, kinds[field.name]))
        groups[parameter.name] = (kind, names)

    @wraps(command)
    def run(**given: Any) -> None:
        filled = {
            name: kind(**{field: given[option] for field, option in names.items()})
            for name, (kind, names) in groups.items()
        }
        grouped = {option for _, names in groups.values() for option in names.values()}
        machine = next((each for each in filled.values() if isinstance(each, Machine)), None)
        if machine is None and not is_main():
            return  # the main process does alone what is not shared
        own = next((each for each in filled.values() if isinstance(each, FileOptions)), FileOptions())
        unused = own.unused([str(word) for name in TASKS for word in listed(given.get(name) or ())])
        with machine.shared() if machine else nullcontext():
            if unused:
                filled["common"].output.say(f"note: {unused}")
            command(**{name: value for name, value in given.items() if name not in grouped}, **filled)

    run.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: option.annotation for name, option in options.items()}
    return run


def _option(name: str, field: Field[Any], kind: Any) -> inspect.Parameter:
    facts = field.metadata
    several = get_origin(kind) is tuple
    if several:  # not given is None, and given ones are as many as there are
        kind = list[str] | None
    flags = facts.get("flags", (f"--{name.replace('_', '-')}",))
    if kind is not bool and facts.get("paper"):
        kind = kind | None
    option = typer.Option(
        *flags,
        help=facts["help"],
        rich_help_panel=facts["panel"],
        min=facts.get("min"),
        envvar=facts.get("envvar"),
        autocompletion=facts.get("complete", COMPLETED.get(name)),
    )
    default = None if several or facts.get("paper") or field.default is MISSING else field.default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
