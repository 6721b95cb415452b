"""Bench runs and their scores as one self-contained page, as Markdown, or as JSON.

Nothing is measured here. What a record does not know is a dash, with its reason in a note.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ..benchmarking.record import Condition, Summary, summary
from ..benchmarking.run import BenchRun, read_bench_run
from ..dependencies import import_or_explain
from ..errors import CorruptError, UsageError
from ..evaluation.scores import Scores
from ..files import read_model, sha256_of, write_bytes
from .figures import Figures, figures
from .operators import by_kind
from .table import COLUMNS, Cell, Notes, cells, distance_text, milliseconds

__all__ = ["SCORES", "Entry", "Format", "report"]

SCORES = "scores.json"  # of a run, in its folder

Format = Literal["html", "md", "json"]


@dataclass(frozen=True)
class Entry:
    """One bench run with all that the report says of it."""

    run: BenchRun
    scores: Scores | None
    stats: Summary | None

    @property
    def is_server(self) -> bool:
        return self.run.record.target == "server"


def report(
    benches: Sequence[Path],
    out: Path,
    baseline: Path | None = None,
    scores: Sequence[Path] = (),
    form: Format | None = None,
) -> None:
    """Write a report of bench runs to the file `out`.

    baseline: a bench run that the others' medians are divided by.  scores: files of `scores.score`, each of one of the
    runs; a scores.json in a run's own folder is found by itself.  form: None for what the file's name ends in.
    Raises UsageError for scores of another run, MissingError and CorruptError as read_bench_run does.
    """
    if not benches:
        raise UsageError("a report needs at least one bench run")
    if out.is_dir():
        raise UsageError(f"{out} is a folder: --out takes the file to write")
    entries = _entries(benches, scores)
    base = read_bench_run(baseline) if baseline else None
    if base and not summary(base.record):
        raise UsageError(f"the baseline {baseline} has no latencies: {base.record.missing['latency_ms']}")
    writers = {"html": _html, "md": _markdown, "json": _json}
    form = form or _form(out)
    if form not in writers:
        raise UsageError(f"there is no report format {form!r}: choose from {', '.join(writers)}")
    write_bytes(out, writers[form](entries, base).encode())


def _form(out: Path) -> Format:
    endings: dict[str, Format] = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}
    if out.suffix.lower() not in endings:
        raise UsageError(f"{out} ends in none of {', '.join(endings)}: name the file so, or give --format")
    return endings[out.suffix.lower()]


def _entries(benches: Sequence[Path], scores: Sequence[Path]) -> list[Entry]:
    by_record: dict[str, tuple[Path, Scores]] = {}
    for path in scores:
        read = read_model(path, Scores)
        by_record[read.record_sha256] = path, read
    entries = []
    for folder in benches:
        run = read_bench_run(folder)
        _, mine = by_record.pop(sha256_of(folder / "record.json"), (None, None))
        if mine is None and (folder / SCORES).is_file():
            mine = read_model(folder / SCORES, Scores)
            if mine.record_sha256 != sha256_of(folder / "record.json"):
                raise CorruptError(f"{folder / SCORES} scores another record than the one beside it: score it again")
        entries.append(Entry(run, mine, summary(run.record)))
    if by_record:
        path, _ = next(iter(by_record.values()))
        raise UsageError(f"{path} scores none of the bench runs given: score them again, or give that run as well")
    return sorted(entries, key=lambda e: (not e.is_server, e.run.record.target, e.run.record.precision))


def _reference(entry: Entry, runs: Sequence[BenchRun]) -> BenchRun | None:
    """The server's run on the same noise, if it is among those given."""
    mine = entry.run.record
    for other in runs:
        theirs = other.record
        if theirs.target != "server" or entry.is_server or mine.samples is None or theirs.samples is None:
            continue
        keys = ("seed", "count", "height", "width", "channels")
        same = all(getattr(mine.samples, key) == getattr(theirs.samples, key) for key in keys)
        if same and mine.checkpoint_sha256 == theirs.checkpoint_sha256:
            return other
    return None


@dataclass(frozen=True)
class Section:
    """One record on the page."""

    entry: Entry
    anchor: str
    figures: Figures
    facts: list[tuple[str, str]]  # name, value
    reasons: list[tuple[str, str]]  # what is missing, why
    command: str
    plan: str


def _html(entries: list[Entry], baseline: BenchRun | None) -> str:
    from ..drawing.charts import Point, frontier
    from .figures import overview

    notes = Notes()
    runs = [*(entry.run for entry in entries), *([baseline] if baseline else [])]
    table = [_narrow(cells(entry.run, entry.scores, entry.stats, baseline, notes)) for entry in entries]
    hidden = {"runtime", *([] if baseline else ["relative"])}
    sections = [
        Section(
            entry=entry,
            anchor=f"run-{i}",
            figures=figures(entry.run, _reference(entry, runs), entry.scores),
            facts=_facts(entry.run),
            reasons=sorted(entry.run.record.missing.items()),
            command=_command(entry.run),
            plan=entry.run.plan.model_dump_json(indent=2),
        )
        for i, entry in enumerate(entries, 1)
    ]
    points = [
        Point(e.stats.median, e.scores.distance.artifact, e.run.title, e.is_server)
        for e in entries
        if e.stats and e.scores and e.scores.distance
    ]
    metrics = {e.scores.distance.metric for e in entries if e.scores and e.scores.distance}
    chart = frontier(points, next(iter(metrics))) if len(points) > 1 and len(metrics) == 1 else None
    page: str = _environment().get_template("report.html.jinja").render(
        columns=[column for column in COLUMNS if column.name not in hidden],
        table=table,
        sections=sections,
        notes=notes.texts,
        frontier=chart,
        metric=next(iter(metrics)) if len(metrics) == 1 else None,
        floor=next((distance_text(e.scores.distance.floor) for e in entries if e.scores and e.scores.distance), None),
        overview=overview([(e.run.title, e.run.record.latency_ms or ()) for e in entries]),
        baseline=baseline,
        checkpoints=sorted({e.run.record.checkpoint_sha256 for e in entries}),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )  # fmt: skip
    return page


def _narrow(row: dict[str, Cell]) -> dict[str, Cell]:
    """The row with its runtime under its precision: a column less, and the table fits a window 1100 wide."""
    runtime = row["runtime"]
    return row if runtime.note else {**row, "precision": replace(row["precision"], extra=runtime.value)}


def _markdown(entries: list[Entry], baseline: BenchRun | None) -> str:
    notes = Notes()
    columns = COLUMNS if baseline else [c for c in COLUMNS if c.name != "relative"]
    lines = ["| " + " | ".join(f"{c.title} {c.unit}".strip() for c in columns) + " |"]
    lines.append("|" + "|".join("---" if c.text else "---:" for c in columns) + "|")
    for entry in entries:
        row = cells(entry.run, entry.scores, entry.stats, baseline, notes)
        lines.append("| " + " | ".join(_markdown_cell(row[c.name]) for c in columns) + " |")
    lines += ["", *(f"{i}. {_escaped(text)}" for i, text in enumerate(notes.texts, 1))] if notes.texts else []
    for entry in entries:
        for fault in entry.scores.diagnoses if entry.scores else ():
            lines += ["", f"**{_escaped(entry.run.title)}: {_escaped(fault.name)}.** {_escaped(fault.sentence)}"]
    for entry in entries:
        facts = "; ".join(f"{name.lower()} {value}" for name, value in _facts(entry.run))
        lines += ["", f"**{_escaped(entry.run.title)}**: {_escaped(facts)}"]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell) -> str:
    return _escaped(cell.value) + (f" [{cell.note}]" if cell.note else "")


def _escaped(text: str) -> str:
    """Text in which Markdown and the HTML inside it see no markup of their own."""
    return " ".join(text.translate({ord(c): f"&#{ord(c)};" for c in "\\`*_[]<>|#~&"}).split())


def _json(entries: list[Entry], baseline: BenchRun | None) -> str:
    """For scripts: the table's figures, unrounded, and the scores as they are. Samples and raw times stay behind."""
    base = summary(baseline.record) if baseline else None
    rows: list[dict[str, Any]] = []
    for entry in entries:
        record = entry.run.record.model_dump(mode="json", exclude={"latency_ms", "transfers", "operators"})
        rows.append(
            {
                "folder": str(entry.run.folder),
                "record": record,
                "latency": entry.stats.model_dump() if entry.stats else None,
                "operators_by_kind": [asdict(kind) for kind in by_kind(entry.run.record.operators or ())],
                "relative_to_baseline": entry.stats.median / base.median if entry.stats and base else None,
                "scores": entry.scores.model_dump(mode="json") if entry.scores else None,
            }
        )
    return json.dumps({"schema_version": 1, "runs": rows}, indent=2, allow_nan=False) + "\n"


def _facts(run: BenchRun) -> list[tuple[str, str]]:
    """What ran where, in words."""
    r, d = run.record, run.record.device
    memory = f"{d.memory_bytes / 2**30:.1f} GiB" if d.memory_bytes else None
    backend = f" ({r.runtime.backend})" if r.runtime and r.runtime.backend else ""
    facts = [
        ("Ran on", f"{d.name}, {r.where}"),
        ("Processor", d.processor),
        ("Cores, memory", ", ".join(str(v) for v in (d.cores, memory) if v) or None),
        ("System", f"{d.system}, {d.machine}"),
        ("Runtime", f"{r.runtime.name} {r.runtime.version}{backend}" if r.runtime else None),
        ("Threads, batch", f"{r.threads}, {r.batch}" if r.threads else None),
        ("Power mode", _power_mode(run)),
        ("Engine build", milliseconds(r.build_ms) if r.build_ms is not None else None),
        ("Second load", milliseconds(r.second_load_ms) if r.second_load_ms is not None else None),
        ("Copies", _copies(run)),
        ("Conditions", "; ".join(_condition(c) for c in r.conditions or ()) or None),
        ("Started", r.started_at),
        ("Bundle", r.bundle_sha256),
        ("Checkpoint", r.checkpoint_sha256),
    ]
    return [(name, value) for name, value in facts if value]


def _power_mode(run: BenchRun) -> str | None:
    r = run.record
    clocks = {True: "clocks locked", False: "clocks free", None: None}[r.clocks_locked]
    return ", ".join(part for part in (r.power_mode, clocks) if part) or None


def _copies(run: BenchRun) -> str | None:
    """Medians of what a latency leaves out."""
    moved = run.record.transfers
    if moved is None or not moved.to_device_ms:
        return None
    to_device, from_device = (median(times) for times in (moved.to_device_ms, moved.from_device_ms))
    return f"{milliseconds(to_device)} to the device, {milliseconds(from_device)} back, beside the latency"


def _condition(c: Condition) -> str:
    told = [
        (c.temperature_c, "{:.0f} °C"),
        (c.clock_mhz, "{:.0f} MHz"),
        (c.gpu_clock_mhz, "GPU {:.0f} MHz"),
        (c.gpu_load, "GPU {:.0%} busy"),
        (c.power_w, "{:.1f} W"),
        (c.throttled or None, "throttled"),
    ]
    return f"{c.when} " + ", ".join(text.format(value) for value, text in told if value is not None)


def _command(run: BenchRun) -> str:
    import shlex

    r = run.record
    if r.target == "server":
        return f"rdd-edge bench {shlex.quote(r.checkpoint or 'CHECKPOINT')} --device server --out BENCH"
    if r.where == "host":
        return "rdd-edge bench BUNDLE --device host --out BENCH"
    own = "" if r.runtime is None or r.runtime.name != "onnxruntime" else " --runtime onnxruntime"
    return f"rdd-edge bench BUNDLE --device DEVICE{own} --out BENCH"


def _environment() -> Any:
    jinja2 = import_or_explain("jinja2", "a report", "report")
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(Path(__file__).parent / "templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
