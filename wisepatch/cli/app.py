"""The program: its commands, and the one place where errors become words.

A command is imported when it is asked for; nothing heavy is loaded for ``--help`` and for the listings.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from wisepatch.cli.output import OutputClosedError, close_bars, is_helper, print_error
from wisepatch.errors import UsageError, WisepatchError, out_of_memory

INTERRUPTED = 130
TRAINING = ("finetune", "patch", "demo")  # what several processes do together; all else the main one does alone
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

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words up to the command's name."""
        with _boundary(as_json="--json" in args):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command inside the boundary."""
        with _boundary(as_json="--json" in ctx.args):
            return super().invoke(ctx)


@contextmanager
def _boundary(*, as_json: bool) -> Iterator[None]:
    """Turn errors that a user can mend into words and an exit code; ``as_json`` prints them for programs too."""
    try:
        yield
    except OutputClosedError as error:
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        close_bars()
        next_step = "; ".join(getattr(error, "__notes__", ["run the same command again"]))
        reason = "interrupted: what is in the store is whole, what was under way is not kept"
        raise _ended(InterruptedByUserError(reason, next_step), as_json=as_json) from error
    except EOFError as error:  # the library that reads options would say "Aborted!" and nothing else
        raise RuntimeError(f"a file ended too soon: {error}") from error
    except Exception as error:
        if as_json and (usage := _usage_error(error)):
            raise _ended(usage, as_json=True) from error
        known = error if isinstance(error, WisepatchError) else _too_long(error) or out_of_memory(error)
        if known is None or os.environ.get("WISEPATCH_DEBUG") == "1":
            raise
        close_bars()
        raise _ended(known, as_json=as_json) from error
    finally:
        close_bars()


class InterruptedByUserError(WisepatchError):
    """The user's own doing."""

    exit_code = INTERRUPTED


def _ended(error: WisepatchError, *, as_json: bool) -> typer.Exit:
    """Say what is wrong; return what ends the program."""
    with suppress(OutputClosedError, WisepatchError):  # nobody reads it
        print_error(error, as_json=as_json)
    return typer.Exit(error.exit_code)


def _usage_error(error: Exception) -> UsageError | None:
    """Return an error of the library that reads options as one of ours; ``None`` for every other error."""
    message = getattr(error, "format_message", None)
    return UsageError(message(), "see --help") if callable(message) else None


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
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Patch CLIP-like models: fine-tune on one task, mix the weights from before and after, keep the rest."""
    if is_helper() and ctx.invoked_subcommand not in TRAINING:
        raise typer.Exit
