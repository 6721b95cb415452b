"""Commands to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option


def quickstart(
    out: Annotated[Path, Option(file_okay=False, help="Folder for everything it makes.")] = Path("runs/quickstart"),
) -> None:
    """Train on digits, export to every target, benchmark and report, on this machine."""
    from ..quickstart import quickstart as run

    run(out)


def doctor() -> None:
    """List the targets, runtimes and tools on this machine, and how to install the others."""
    from ..doctor import doctor as run

    for row in run():
        typer.echo(str(row))


COMMANDS = (quickstart, doctor)
