"""The command that writes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer import Argument, Option


def report(
    benches: Annotated[list[Path], Argument(help="Benchmark runs.")],
    out: Annotated[Path, Option(dir_okay=False, help="File to write: .html, .md or .json.")] = Path("report.html"),
    scores: Annotated[
        list[Path] | None,
        Option(
            help="Result of evaluate for one of the runs; may be repeated.  Default: scores.json in each run's folder."
        ),
    ] = None,
    form: Annotated[str | None, Option("--format", help="html, md or json.  Default: by the file's suffix.")] = None,
    baseline: Annotated[Path | None, Option(help="Benchmark run that the other medians are divided by.")] = None,
) -> None:
    """Write one self-contained page of benchmark runs and their scores.

    \b
    Example:
      rdd-edge report bench/android-int8 bench/server --baseline bench/server --out report.html
    """
    from ..api import report as run

    run(benches, out, baseline=baseline, scores=scores or (), format=cast("Any", form))
    typer.echo(f"{out}: {len(benches)} benchmark run{'s' * (len(benches) > 1)}")


COMMANDS = (report,)
