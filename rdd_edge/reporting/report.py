"""`rdd-edge report`: benchmark runs and their scores as one self-contained page, as Markdown, or as JSON.

Nothing is measured here. A value that a record does not have is a dash, with the reason in a note.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ..benchmarking.record import summary
from ..benchmarking.run import BenchRun, read_bench_run
from ..errors import UsageError
from ..files import write_bytes
from .entries import Entry, read_entries
from .markdown import markdown
from .operators import by_kind
from .page import page

__all__ = ["Format", "report"]

Format = Literal["html", "md", "json"]


def report(
    benches: Sequence[Path],
    out: Path,
    baseline: Path | None = None,
    scores: Sequence[Path] = (),
    form: Format | None = None,
) -> None:
    """Write a report of benchmark runs to the file `out`.

    baseline: a benchmark run by whose median the others are divided.  scores: files of scores of these runs; by default
    the scores.json in each run's folder.  form: by default that of the file's suffix.
    Raises UsageError for scores of another run, MissingError and CorruptError as read_bench_run does.
    """
    if not benches:
        raise UsageError("a report needs at least one benchmark run")
    if out.is_dir():
        raise UsageError(f"{out} is a folder: --out is the file to write")
    entries = read_entries(benches, scores)
    base = read_bench_run(baseline) if baseline else None
    if base and not summary(base.record):
        raise UsageError(f"the baseline {baseline} has no latencies: {base.record.missing['latency_ms']}")
    writers = {"html": page, "md": markdown, "json": _json}
    form = form or _form(out)
    if form not in writers:
        raise UsageError(f"there is no report format {form!r}: choose from {', '.join(writers)}")
    write_bytes(out, writers[form](entries, base).encode())


def _form(out: Path) -> Format:
    suffixes: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}
    if out.suffix.lower() not in suffixes:
        raise UsageError(f"{out} has none of the suffixes {', '.join(suffixes)}: rename it, or give --format")
    return suffixes[out.suffix.lower()]


def _json(entries: list[Entry], baseline: BenchRun | None) -> str:
    """For scripts: records, statistics and scores, unrounded, without samples and individual times."""
    base = summary(baseline.record) if baseline else None
    rows: list[dict[str, Any]] = [
        {
            "folder": str(entry.run.folder),
            "record": entry.run.record.model_dump(mode="json", exclude={"latency_ms", "transfers", "operators"}),
            "latency": entry.stats.model_dump() if entry.stats else None,
            "operators_by_kind": [asdict(kind) for kind in by_kind(entry.run.record.operators or ())],
            "relative_to_baseline": entry.stats.median / base.median if entry.stats and base else None,
            "scores": entry.scores.model_dump(mode="json") if entry.scores else None,
        }
        for entry in entries
    ]
    return json.dumps({"schema_version": 1, "runs": rows}, indent=2, allow_nan=False) + "\n"
