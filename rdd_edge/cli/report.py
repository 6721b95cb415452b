"""The command that writes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

__all__ = ["COMMANDS"]


def report(
    benches: Annotated[list[Path], typer.Argument(help="Benchmark runs.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="File to write: .html, .md or .json.")] = Path(
        "report.html"
    ),
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            help="Result of evaluate for one of the runs; may be repeated.  Default: scores.json in each run's folder.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="html, md or json.  Default: by the file's suffix.", show_default=False),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Benchmark run that the other medians are divided by.", show_default=False),
    ] = None,
) -> None:
    """Write one self-contained page of benchmark runs and their scores.

    \b
    Example:
      rdd-edge report bench/android-int8 bench/server --baseline bench/server --out report.html
    """
    from ..api import report as run

    run(benches, out, baseline=baseline, scores=scores or (), format=cast("Any", form))
    typer.echo(f"{out}: {len(benches)} benchmark runs")


COMMANDS = (report,)
