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
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from wisepatch.cli.output import close_bars, print_error
from wisepatch.errors import Stopped, UsageError, WisepatchError, out_of_memory
from wisepatch.process_group import end_unless_first, lost_process

ENDING = ("SIGTERM", "SIGHUP")  # as Ctrl-C: processes that load images end too, and what is kept is said
PATCHING, DATA, HOUSEKEEPING = "Patch a model", "Data", "Housekeeping"
COMMANDS = {  # name: its file, and its section of --help
    "demo": ("demo", PATCHING),
    "patch": ("patch", PATCHING),
    "zeroshot": ("zeroshot", PATCHING),
    "finetune": ("finetune", PATCHING),
    "interpolate": ("interpolate", PATCHING),
    "eval": ("evaluate", PATCHING),
    "plot": ("plot", PATCHING),
    "datasets": ("datasets", DATA),
    "typo-attack": ("typo_attack", DATA),
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
        return get_group(holder).commands[cmd_name]

    def invoke(self, ctx: Any) -> Any:
        """Run a command inside the boundary."""
        try:
            with ending_signals():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            close_bars()
            exit_code = 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)
            end_unless_first(exit_code)
            lost = "what was under way is not kept; run the same command again"
            kept = "; ".join(getattr(error, "__notes__", [lost]))
            sys.stderr.write(f"interrupted: what is in the store is whole; {kept}\n")
            raise typer.Exit(exit_code) from error
        except typer.Exit:
            raise
        except Exception as error:
            known = error if isinstance(error, WisepatchError) else _too_long(error) or out_of_memory(error)
            known = known or lost_process(error)
            end_unless_first(getattr(known or error, "exit_code", 1))  # Typer's errors have one too
            if known is None or os.environ.get("WISEPATCH_DEBUG") == "1":
                raise
            close_bars()
            print_error(known)
            raise typer.Exit(known.exit_code) from error
        finally:
            close_bars()


@contextmanager
def ending_signals() -> Iterator[None]:
    """Let signals that end the program raise :class:`Stopped`; those that are ignored, as under nohup, stay so."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    numbers = []
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
        numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
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
