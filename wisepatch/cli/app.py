"""The program: its commands, and the one place where errors become words.

``--help`` and the listings answer at once: a command is imported when it is asked for, and Typer is kept from loading what
they do not need (rich, pydantic: each takes longer than all the rest).
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from wisepatch.cli.output import close_bars, is_helper, print_error
from wisepatch.errors import WisepatchError, out_of_memory

INTERRUPTED = 130
TOGETHER = ("finetune", "patch", "demo")  # several processes train; all else the main one does alone
# Every command: the section of --help, its name, its file, and how its own help begins (a test compares).
SECTIONS = {
    "Patch a model": {
        "demo": ("demo", "Patch the embedded model on real handwritten digits: about a minute, no download."),
        "patch": ("patch", "Fine-tune, sweep alpha, choose it on validation data, report test data: the whole way."),
        "zeroshot": ("zeroshot", "Build heads from text, save the zero-shot checkpoint, measure it."),
        "finetune": ("finetune", "Fine-tune on one task; saves the zero-shot parent and the fine-tuned checkpoint."),
        "interpolate": (
            "interpolate",
            "Mix zero-shot and fine-tuned weights at every alpha, and measure all mixes in one pass over the data.",
        ),
        "eval": ("evaluate", "Measure any checkpoints on any tasks, all checkpoints in one pass over the data."),
        "plot": ("plot", "Draw sweeps: supported accuracy across, patching accuracy up, one curve a run."),
    },
    "Data": {
        "datasets": (
            "datasets",
            "List the tasks known by name; `show` tells of one, `check` looks at its data, `download` fetches it.",
        ),
        "typo-attack": (
            "typo_attack",
            "Typographic attacks: `make` writes wrong class names on images, `eval` measures who is misled.",
        ),
    },
    "Housekeeping": {
        "export": ("export", "Write a checkpoint as a folder that open_clip loads: `--model local-dir:DIR`."),
        "store": ("store", "Checkpoints: list, verify, rm, gc."),
        "plugins": ("plugins", "List the installed plugins; `check` holds one to the contract."),
    },
}


class SparesDefaults:
    """Keeps Typer from converting what was not given: a default has its type, and the converter (pydantic) loads slowly."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if "process_value" not in vars(param):
                vars(param)["process_value"] = partial(_process, param, param.process_value)
        return params


def _process(param: Any, convert: Any, ctx: Any, value: Any) -> Any:
    source = ctx.get_parameter_source(param.name)
    if source is None or source.name != "DEFAULT" or param.required or value is not param.default:
        return convert(ctx, value)
    return param.callback(ctx, param, value) if param.callback else value


class Command(SparesDefaults, TyperCommand):
    """A command."""


class Group(SparesDefaults, TyperGroup):
    """A command of several."""


class Commands(Mapping[str, Any]):
    """The commands by name, each made when it is looked up: a file in ``cli/`` has a ``command``, or an ``app`` of several."""

    files = {name: file for section in SECTIONS.values() for name, (file, _) in section.items()}  # noqa: RUF012 -- constant

    def __init__(self) -> None:
        """Start with none made."""
        self.made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Import and return one."""
        if name not in self.made:
            module = import_module(f"wisepatch.cli.{self.files[name]}")
            holder = typer.Typer(rich_markup_mode="markdown")
            if hasattr(module, "app"):
                for info in module.app.registered_commands:
                    info.cls = Command
                holder.add_typer(module.app, name=name, cls=Group)
            else:
                holder.command(name, cls=Command)(module.command)
            self.made[name] = get_group(holder).commands[name]
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        """Go over the names, in the order of --help."""
        return iter(self.files)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.files)


class Program(Group):
    """The commands, behind a boundary: errors that a user can mend become two lines and an exit code; bugs keep their traceback."""

    def __init__(self, **settings: Any) -> None:
        """Know the commands by name."""
        super().__init__(**settings | {"commands": {}})
        self.commands = Commands()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, without importing one."""
        return list(self.commands)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by section, then the options."""
        wide = max(map(len, self.commands))
        for section, rows in SECTIONS.items():
            with formatter.section(typer.style(section, bold=True)):
                formatter.write_dl([(f"{name:{wide}}", text) for name, (_, text) in rows.items()])
        with formatter.section(typer.style("Options", bold=True)):
            formatter.write_dl([record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))])

    def invoke(self, ctx: Any) -> Any:
        """Run a command inside the boundary."""
        gc.enable()  # __main__ starts without
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            close_bars()
            sys.stderr.write(
                "interrupted: what is in the store is whole, what was under way is not kept; run the same command again\n"
            )
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:
            known = error if isinstance(error, WisepatchError) else out_of_memory(error)
            if known is None or os.environ.get("WISEPATCH_DEBUG") == "1":
                raise
            close_bars()
            print_error(known)
            raise typer.Exit(known.exit_code) from error
        finally:
            close_bars()


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode=None,
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
    if is_helper() and ctx.invoked_subcommand not in TOGETHER:
        raise typer.Exit
