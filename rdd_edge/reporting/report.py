"""`rdd-edge report`: benchmark runs and their scores as one self-contained page, as Markdown, or as JSON.

Nothing is measured here. A value that a record does not have is a dash, with the reason in a note.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from ..benchmarking.record import summary
from ..benchmarking.run import read_bench_run
from ..errors import UsageError
from ..evaluation.sample_quality import TITLES
from ..files import write_bytes
from .details import by_kind, facts
from .entries import Entry, read_entries
from .page import page
from .table import COLUMNS, HOST_NOTE, NEIGHBORS_NOTE, Cell, Notes, cells, measured_on_host, neighbor_rows

Format = Literal["html", "md", "json"]
SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}


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
    base = None
    if baseline is not None:
        run = read_bench_run(baseline)
        base = Entry(run, None, summary(run.record))
        if base.stats is None:
            raise UsageError(f"the baseline {baseline} has no latencies: {run.record.missing['latency_ms']}")
    writers = {"html": page, "md": _markdown, "json": _json}
    chosen = form or SUFFIXES.get(out.suffix.lower())
    if chosen is None:
        raise UsageError(f"{out} has none of the suffixes {', '.join(SUFFIXES)}: rename it, or give --format")
    if chosen not in writers:
        raise UsageError(f"there is no report format {chosen!r}: choose from {', '.join(writers)}")
    write_bytes(out, writers[chosen](entries, base).encode())


def _markdown(entries: list[Entry], baseline: Entry | None) -> str:
    """For a pull request or a README: the table, its notes, and where each run was made."""
    notes = Notes()
    columns = [column for column in COLUMNS if baseline or column.name != "relative"]
    lines = ["| " + " | ".join(f"{c.title} {c.unit}".strip() for c in columns) + " |"]
    lines.append("|" + "|".join("---" if c.text else "---:" for c in columns) + "|")
    for entry in entries:
        row = cells(entry, baseline, notes)
        lines.append("| " + " | ".join(_cell(row[c.name]) for c in columns) + " |")
    lines += ["", *(f"{i}. {_escaped(text)}" for i, text in enumerate(notes.texts, 1))] if notes.texts else []
    lines += ["", HOST_NOTE] if any(measured_on_host(entry) for entry in entries) else []
    if rows := neighbor_rows(entries):
        lines += ["", f"| | {' | '.join(map(str.capitalize, TITLES))} |", "|---|" + "---:|" * len(TITLES)]
        lines += [f"| {_escaped(name)} | {' | '.join(one.texts())} |" for name, one in rows]
        lines += ["", f"{NEIGHBORS_NOTE} ±: half of the 95 % interval over the choice of samples."]
    for entry in entries:
        for diagnosis in entry.scores.diagnoses if entry.scores else ():
            title, name = _escaped(entry.run.label), _escaped(diagnosis.name)
            lines += ["", f"**{title}: {name}.** {_escaped(diagnosis.sentence)}"]
    for entry in entries:
        details = "; ".join(f"{name}: {value}" for name, value in facts(entry.run))
        lines += ["", f"**{_escaped(entry.run.label)}** – {_escaped(details)}"]
    return "\n".join(lines) + "\n"


def _cell(cell: Cell) -> str:
    return _escaped(cell.value) + (f" [{cell.note}]" if cell.note else "")


def _escaped(text: str) -> str:
    """Text on one line in which neither Markdown nor the HTML inside it sees markup."""
    return " ".join(text.translate({ord(c): f"&#{ord(c)};" for c in "\\`*_[]<>|#~&"}).split())


def _json(entries: list[Entry], baseline: Entry | None) -> str:
    """For scripts: records, statistics and scores, unrounded, without samples and individual times."""
    rows = [
        {
            "folder": str(entry.run.folder),
            "record": entry.run.record.model_dump(mode="json", exclude={"latency_ms", "transfers", "operators"}),
            "latency": entry.stats.model_dump() if entry.stats else None,
            "operators_by_kind": [asdict(kind) for kind in by_kind(entry.run.record.operators or ())],
            "relative_to_baseline": entry.relative_to(baseline),
            "scores": entry.scores.model_dump(mode="json") if entry.scores else None,
        }
        for entry in entries
    ]
    return json.dumps({"schema_version": 1, "runs": rows}, indent=2, allow_nan=False) + "\n"
