"""The program: its commands, and the one place where errors become words."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wisepatch import __version__
from wisepatch.cli import (
    datasets,
    demo,
    evaluate,
    finetune,
    interpolate,
    patch,
    plot,
    plugins,
    store,
    typo_attack,
    zeroshot,
)
from wisepatch.cli.output import close_bars, print_error
from wisepatch.errors import WisepatchError

INTERRUPTED = 130


class Boundary(TyperGroup):
    """Turns errors that a user can mend into two lines and an exit code; anything else keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command inside the boundary."""
        try:
            return super().invoke(ctx)
        except WisepatchError as error:
            close_bars()
            if os.environ.get("WISEPATCH_DEBUG") == "1":
                raise
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            close_bars()
            sys.stderr.write(
                "interrupted: what is in the store is whole, what was under way is not kept; run the same command again\n"
            )
            raise typer.Exit(INTERRUPTED) from error
        finally:
            close_bars()


app = typer.Typer(
    cls=Boundary,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `wisepatch demo`: a minute, no download.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wisepatch {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Patch CLIP-like models: fine-tune on one task, mix the weights from before and after, keep the rest."""


app.command("demo")(demo.command)
app.command("patch")(patch.command)
app.command("zeroshot")(zeroshot.command)
app.command("finetune")(finetune.command)
app.command("interpolate")(interpolate.command)
app.command("eval")(evaluate.command)
app.command("plot")(plot.command)
app.add_typer(typo_attack.app, name="typo-attack")
app.add_typer(datasets.app, name="datasets")
app.add_typer(store.app, name="store")
app.add_typer(plugins.app, name="plugins")
