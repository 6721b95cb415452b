"""The table of a report: a row for each run, each value with its sort key and, where it is missing, the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..evaluation.sample_quality import Neighbors
from ..evaluation.scores import Distance
from ..portable.psnr import IDENTICAL_DB
from .entries import Entry

DASH = "–"
REFERENCE = "The reference, with whose images those of the artifacts are compared"
NOT_SCORED = "Not evaluated: use rdd-edge evaluate BENCH --reference SERVER_BENCH --out BENCH/scores.json"


HOST_NOTE = (
    "Times on a host are those of the machine that ran the benchmark in place of the device: they say nothing about "
    "the device's speed."
)


@dataclass(frozen=True)
class Column:
    """Title and unit as the table shows them. text: left-aligned.  minor: hidden on a narrow page until asked for."""

    name: str
    title: str
    unit: str = ""
    text: bool = False
    minor: bool = False


COLUMNS = [
    Column("target", "Target", text=True),
    Column("precision", "Precision", text=True),
    Column("place", "Ran on", text=True),
    Column("runtime", "Runtime", text=True),
    Column("size", "Size"),
    Column("load", "Load", minor=True),
    Column("first", "First inference", minor=True),
    Column("median", "Median"),
    Column("p90", "p90", minor=True),
    Column("relative", "Median", "vs. baseline", minor=True),
    Column("memory", "Peak memory", minor=True),
    Column("psnr", "PSNR", "median"),
    Column("worst", "PSNR", "worst 1 %", minor=True),
    Column("distance", "Fréchet", "distance"),
    Column("rise", "Rise", "over student", minor=True),
]


@dataclass(frozen=True)
class Cell:
    """What is shown, its sort key (None: last), the number of the note on a dash, and small print below the value."""

    value: str
    sort: float | str | None = None
    note: int | None = None
    extra: str | None = None


@dataclass
class Notes:
    """Reasons for dashes, numbered from 1 in the order of their first use."""

    texts: list[str] = field(default_factory=list)

    def dash(self, reason: str) -> Cell:
        text = reason[:1].upper() + reason[1:]
        text = text if text.endswith(".") else text + "."
        if text not in self.texts:
            self.texts.append(text)
        return Cell(DASH, None, self.texts.index(text) + 1)


def milliseconds(value: float) -> str:
    """Three significant digits, in ms below ten seconds and in s above."""
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def distance_text(value: float) -> str:
    """A Fréchet distance, with the same number of decimals in every row."""
    return f"{value:.3f}"


def megabytes(value: int) -> str:
    """A size in decimal units, as app stores show it."""
    if value < 1000:
        return f"{value} B"
    if value < 1_000_000:
        return f"{value / 1e3:.0f} kB"
    return f"{value / 1e6:.1f} MB" if value < 1e8 else f"{value / 1e6:.0f} MB"


def measured_on_host(entry: Entry) -> bool:
    """Whether the entry has times of an artifact that did not run on a device of its target."""
    return entry.stats is not None and entry.run.record.where != "device" and not entry.run.is_server


def cells(entry: Entry, baseline: Entry | None, notes: Notes) -> dict[str, Cell]:
    """The row of one run, by column name."""
    r = entry.run.record

    def cell(name: str, value: float | None, shown: Callable[[Any], str], why: str = "not recorded") -> Cell:
        """The value, or a dash with the reason that the record gives for the field `name`, else `why`."""
        return notes.dash(r.missing.get(name, why)) if value is None else Cell(shown(value), value)

    median, p90 = (entry.stats.median, entry.stats.p90) if entry.stats else (None, None)
    relative = entry.relative_to(baseline)
    return {
        "target": Cell(r.target, r.target),
        "precision": Cell(r.precision, r.precision),
        "place": Cell(entry.run.place, entry.run.place),
        "runtime": Cell(r.runtime.name, r.runtime.name) if r.runtime else notes.dash(r.missing["runtime"]),
        "size": cell("artifact_bytes", r.artifact_bytes, megabytes),
        "load": cell("load_ms", r.load_ms, milliseconds),
        "first": cell("first_inference_ms", r.first_inference_ms, milliseconds),
        "median": cell("latency_ms", median, milliseconds),
        "p90": cell("latency_ms", p90, milliseconds),
        "relative": cell("latency_ms", relative, "{:.2f}×".format, "the baseline has no time")
        if baseline
        else Cell(""),
        "memory": cell("peak_memory_bytes", r.peak_memory_bytes, megabytes),
        **_quality(entry, notes),
    }


def _quality(entry: Entry, notes: Notes) -> dict[str, Cell]:
    scores, d = entry.scores, entry.distance
    if scores is None:
        unscored = REFERENCE if entry.run.is_server else NOT_SCORED
        why = unscored if entry.run.record.samples else entry.run.record.missing["samples"]
        row = {name: notes.dash(why) for name in ("psnr", "worst", "distance", "rise")}
        return row if entry.frechet is None else {**row, "distance": _distance(entry.frechet)}
    psnr = scores.psnr_float or scores.psnr_uint8
    if psnr is None:
        median = worst = notes.dash(scores.missing.get("psnr_uint8", "not evaluated"))
    else:
        median, worst = _decibels(psnr.median_db), _decibels(psnr.worst_percent_db)
    if d is None:
        distance = rise = notes.dash(scores.missing.get("distance", "not evaluated"))
    else:
        distance, rise = _distance(d.artifact), _rise(d)
    return {"psnr": median, "worst": worst, "distance": distance, "rise": rise}


def _distance(value: float) -> Cell:
    return Cell(distance_text(value), value)


def _decibels(value: float) -> Cell:
    return Cell("identical" if value >= IDENTICAL_DB else f"{value:.1f} dB", value)


def _rise(d: Distance) -> Cell:
    """The rise in percent of the student's own distance, with its interval."""
    if d.server == 0:
        return Cell(f"+{d.rise:.3g}" if d.rise else "0", d.rise)
    interval = None
    if d.rise_low is not None and d.rise_high is not None:
        interval = f"{_percent(d.rise_low / d.server)} … {_percent(d.rise_high / d.server)}"
    return Cell(f"{_percent(d.rise / d.server)} %", d.rise / d.server, extra=interval)


def _percent(fraction: float) -> str:
    text = f"{100 * fraction:+.1f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


NEIGHBORS_NOTE = (
    "By nearest neighbors in the extractor's features. Precision: share of images near real ones (k = 3). Recall: "
    "share of real images near these. Density: number of real images near an image, which is 1 for real ones (k = 5)."
    " Coverage: share of real images with an image near them. Near copies, in pixels: share of images that are closer"
    " to a real one than 95 % of real images are to one another."
)


def neighbor_rows(entries: Sequence[Entry]) -> list[tuple[str, Neighbors]]:
    """Fidelity, diversity and copying by name: each student, its artifacts, and what other real images would have."""
    scored = [(entry, entry.scores.neighbors) for entry in entries if entry.scores and entry.scores.neighbors]
    students = {entry.run.record.checkpoint_sha256: found.server for entry, found in scored}
    rows = [("student" if len(students) == 1 else f"student {sha[:12]}", one) for sha, one in students.items()]
    rows += [(entry.run.label, found.artifact) for entry, found in scored if not entry.run.is_server]
    return rows + [("real images", found.real) for _, found in scored[:1]]
