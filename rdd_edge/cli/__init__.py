"""The command line: parse, call one function of the library, print. A module for each panel of `rdd-edge --help`.

Heavy imports stay inside the commands, so that `--help` is fast.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer import Option

from .. import __version__
from ..errors import RddEdgeError, StorageError
from . import export, measure, other, report, train

__all__ = ["app", "main"]

app = typer.Typer(
    name="rdd-edge",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"rdd-edge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Distil a diffusion model to one step, export it to phones and Jetson boards, and measure it there."""


for panel, module in {"Train": train, "Export": export, "Measure": measure, "Report": report, "Other": other}.items():
    for command in module.COMMANDS:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """Run the command line: our errors become one sentence on stderr and the exit code of their kind."""
    try:
        app()
    except RddEdgeError as error:
        typer.echo(f"rdd-edge: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a path that the system refuses before any of our checks: too long, a loop of links
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"rdd-edge: {where}{error.strerror or error}", err=True)
        sys.exit(StorageError.exit_code)
    except KeyboardInterrupt:
        typer.echo("rdd-edge: interrupted", err=True)
        sys.exit(130)
