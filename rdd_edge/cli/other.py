"""Commands to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from .options import finite


def quickstart(
    out: Annotated[Path, Option(file_okay=False, help="Folder for everything it makes.")] = Path("runs/quickstart"),
    data: Annotated[str | None, Option(help="Path to images of your own.  Default: handwritten digits.")] = None,
    preset: Annotated[
        str | None, Option(help="Settings of the training.  Default: digits, or small for your own images.")
    ] = None,
    minutes: Annotated[
        float | None, Option(min=0.1, callback=finite, help="Length of the training.  Default: the preset's steps.")
    ] = None,
) -> None:
    """Train, export to every target, benchmark and report, on this machine.

    \b
    Examples:
      rdd-edge quickstart
      rdd-edge quickstart --data photos --minutes 30 --out runs/photos
    """
    from ..distillation.presets import resolve
    from ..quickstart import quickstart as run

    run(out, resolve(preset or ("digits" if data is None else "small"), data=data), minutes=minutes)


def doctor() -> None:
    """List the targets, runtimes and tools on this machine, and how to install the others."""
    from ..doctor import doctor as run

    for row in run():
        typer.echo(str(row))


COMMANDS = (quickstart, doctor)
