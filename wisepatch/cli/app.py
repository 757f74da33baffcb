"""The program: its commands, and the one place where errors become words.

A command is imported when it is asked for; nothing heavy is loaded for ``--help`` and for the listings.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperGroup
from typer.main import get_group

from wisepatch.cli.output import OutputClosedError, close_bars, print_error
from wisepatch.errors import Stopped, UsageError, WisepatchError, interruption, out_of_memory
from wisepatch.process_group import end_unless_first, lost_process

ENDING = ("SIGTERM", "SIGHUP")  # as Ctrl-C: processes that load images end too, and what is kept is said
PATCHING, DATA, HOUSEKEEPING = "Patch a model", "Data", "Housekeeping"
COMMANDS = {  # name: its file, and its section of --help
    "demo": ("demo", PATCHING),
    "patch": ("patch", PATCHING),
    "zeroshot": ("zeroshot", PATCHING),
    "finetune": ("finetune", PATCHING),
    "interpolate": ("interpolate", PATCHING),
    "merge": ("merge", PATCHING),
    "eval": ("evaluate", PATCHING),
    "predict": ("predict", PATCHING),
    "compare": ("compare", PATCHING),
    "select": ("select", PATCHING),
    "plot": ("plot", PATCHING),
    "report": ("report", PATCHING),
    "datasets": ("datasets", DATA),
    "typo-attack": ("typo_attack", DATA),
    "import": ("import_", HOUSEKEEPING),
    "export": ("export", HOUSEKEEPING),
    "store": ("store", HOUSEKEEPING),
    "plugins": ("plugins", HOUSEKEEPING),
}


class Program(TyperGroup):
    """The commands, behind a boundary: errors that a user can mend become two lines and an exit code; bugs keep their traceback."""

    def __init__(self, **settings: Any) -> None:
        """Know the names, so that close ones are proposed for a misspelt one."""
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # imported by get_command

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, without importing one."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command: a file in ``cli/`` has a ``command``, or an ``app`` of several."""
        if cmd_name not in COMMANDS:
            return None
        file, section = COMMANDS[cmd_name]
        module, holder = import_module(f"wisepatch.cli.{file}"), typer.Typer()
        if hasattr(module, "app"):
            holder.add_typer(module.app, name=cmd_name, rich_help_panel=section)
        else:
            holder.command(cmd_name, rich_help_panel=section)(module.command)
        holder.callback()(lambda: None)  # or one command alone would be the program
        return name_types(get_group(holder).commands[cmd_name], ctx)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options of the program, with their types in words."""
        return [_name_type(parameter) for parameter in super().get_params(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words up to the command's name; ``--version`` is understood anywhere."""
        _print_version("--version" in args)
        with _boundary(as_json="--json" in args):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command inside the boundary."""
        with _boundary(as_json="--json" in ctx.args), ending_signals():
            return super().invoke(ctx)


TYPES = {str: "TEXT", Path: "PATH", int: "NUMBER", float: "NUMBER", bool: ""}  # in --help


def name_types(command: Any, ctx: Any) -> Any:
    """Let ``--help`` of a command and of its subcommands name types in words: ``PATH`` and not ``<list[Path]>``."""
    for each in getattr(command, "commands", {}).values():
        name_types(each, ctx)
    for parameter in [*command.params, *filter(None, [command.get_help_option(ctx)] if ctx else [])]:
        _name_type(parameter)
    return command


def _name_type(parameter: Any) -> Any:
    kind = parameter.type_descriptor
    (inner,) = get_args(kind.annotation) if get_origin(kind.annotation) is list else (kind.annotation,)
    word = TYPES.get(inner) if not kind.is_choice else "|".join(map(str, kind.choices))
    if word is not None:
        parameter.display_type_rich = lambda ctx, word=word: word
    return parameter


@contextmanager
def _boundary(*, as_json: bool) -> Iterator[None]:
    """Turn errors that a user can mend into words and an exit code; ``as_json`` prints them for programs too."""
    try:
        yield
    except typer.Exit:
        raise
    except OutputClosedError as error:
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise _ended(InterruptedByUserError(error), as_json=as_json) from error
    except EOFError as error:  # the library that reads options would say "Aborted!" and nothing else
        raise RuntimeError(f"a file ended too soon: {error}") from error
    except Exception as error:
        known = error if isinstance(error, WisepatchError) else _too_long(error) or out_of_memory(error)
        known = known or lost_process(error) or (_usage_error(error) if as_json else None)
        if known is None and (interrupt := interruption(error)):
            known = InterruptedByUserError(interrupt)
        if known is None or os.environ.get("WISEPATCH_DEBUG") == "1":
            end_unless_first(getattr(error, "exit_code", 1))  # errors of the library that reads options have one
            raise
        raise _ended(known, as_json=as_json) from error
    finally:
        close_bars()


class InterruptedByUserError(WisepatchError):
    """A signal that ended the program; the exit code is 128 more than its number."""

    word = "interrupted"

    def __init__(self, error: KeyboardInterrupt) -> None:
        """Say what is kept and how to go on."""
        kept = getattr(error, "__notes__", ["what was under way is not kept; run the same command again"])
        super().__init__(f"what is in the store is whole; {'; '.join(kept)}")
        self.exit_code = 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


def _ended(error: WisepatchError, *, as_json: bool) -> typer.Exit:
    """Say what is wrong, where no other process does; return what ends the program."""
    close_bars()
    end_unless_first(error.exit_code)
    with suppress(OutputClosedError, WisepatchError):  # nobody reads it
        print_error(error, as_json=as_json)
    return typer.Exit(error.exit_code)


def _usage_error(error: Exception) -> UsageError | None:
    """Return an error of the library that reads options as one of ours; ``None`` for every other error."""
    message = getattr(error, "format_message", None)
    return UsageError(message(), "see --help") if callable(message) else None


@contextmanager
def ending_signals() -> Iterator[None]:
    """Let signals that end the program raise :class:`Stopped`; those that are ignored, as under nohup, stay so."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    def raise_again(ignored: Any) -> None:
        """Send a signal once more that came where Python raises nothing, as in callbacks of the import system."""
        if isinstance(ignored.exc_value, KeyboardInterrupt):
            number = getattr(ignored.exc_value, "number", signal.SIGINT)
            threading.Timer(0.01, signal.raise_signal, [number]).start()
        else:
            sys.__unraisablehook__(ignored)

    numbers, hook = [], sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
        numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    sys.unraisablehook = raise_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _too_long(error: Exception) -> UsageError | None:
    """Return what to tell a user whose name no disk can hold; ``None`` for every other error."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    return UsageError(f"the name {str(error.filename)[:60]!r}... is too long", "names of files have up to 255 letters")


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `wisepatch demo`: a minute, no download.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from wisepatch import __version__

        typer.echo(f"wisepatch {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Patch CLIP-like models: fine-tune on one task, mix the weights from before and after, keep the rest."""
