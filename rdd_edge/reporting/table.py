"""The table of a report: a row for each run, each value with its sort key and, where it is missing, the reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..benchmarking.record import Summary, summary
from ..benchmarking.run import BenchRun
from ..evaluation.scores import Distance, Psnr, Scores
from ..metrics.psnr import IDENTICAL_DB

__all__ = ["COLUMNS", "Cell", "Column", "Notes", "cells", "distance_text", "megabytes", "milliseconds"]

DASH = "–"
NOT_SCORED = "Not evaluated: use rdd-edge evaluate BENCH --reference SERVER_BENCH --out BENCH/scores.json"


@dataclass(frozen=True)
class Column:
    """Title and unit as the table shows them. text: left-aligned."""

    name: str
    title: str
    unit: str = ""
    text: bool = False


COLUMNS = [
    Column("target", "Target", text=True),
    Column("precision", "Precision", text=True),
    Column("runtime", "Runtime", text=True),
    Column("size", "Size"),
    Column("load", "Load"),
    Column("first", "First inference"),
    Column("median", "Median"),
    Column("p90", "p90"),
    Column("relative", "Median", "vs. baseline"),
    Column("memory", "Peak memory"),
    Column("psnr", "PSNR", "median"),
    Column("worst", "PSNR", "worst 1 %"),
    Column("distance", "Fréchet", "distance"),
    Column("rise", "Rise", "over student"),
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


def cells(
    run: BenchRun, scores: Scores | None, stats: Summary | None, baseline: BenchRun | None, notes: Notes
) -> dict[str, Cell]:
    """The row of one run, by column name."""
    r = run.record

    def time(name: str) -> Cell:
        value = getattr(r, name)
        return Cell(milliseconds(value), value) if value is not None else notes.dash(r.missing[name])

    def latency(name: str) -> Cell:
        if stats is None:
            return notes.dash(r.missing["latency_ms"])
        return Cell(milliseconds(getattr(stats, name)), getattr(stats, name))

    peak = r.peak_memory_bytes
    return {
        "target": Cell(r.target, r.target),
        "precision": Cell(r.precision, r.precision),
        "runtime": Cell(r.runtime.name, r.runtime.name) if r.runtime else notes.dash(r.missing["runtime"]),
        "size": Cell(megabytes(r.artifact_bytes), r.artifact_bytes)
        if r.artifact_bytes is not None
        else notes.dash(r.missing.get("artifact_bytes", "the size was not recorded")),
        "load": time("load_ms"),
        "first": time("first_inference_ms"),
        "median": latency("median"),
        "p90": latency("p90"),
        "relative": _relative(stats, baseline, r.missing.get("latency_ms", ""), notes),
        "memory": Cell(megabytes(peak), peak) if peak is not None else notes.dash(r.missing["peak_memory_bytes"]),
        **_quality(run, scores, notes),
    }


def _relative(stats: Summary | None, baseline: BenchRun | None, reason: str, notes: Notes) -> Cell:
    base = summary(baseline.record) if baseline else None
    if base is None:
        return Cell("")
    if stats is None:
        return notes.dash(reason)
    ratio = stats.median / base.median
    return Cell(f"{ratio:.2f}×", ratio)


def _quality(run: BenchRun, scores: Scores | None, notes: Notes) -> dict[str, Cell]:
    names = ("psnr", "worst", "distance", "rise")
    if scores is None:
        why = run.record.missing["samples"] if run.record.samples is None else NOT_SCORED
        return {name: notes.dash(why) for name in names}
    psnr = scores.psnr_float or scores.psnr_uint8
    d = scores.distance
    why = scores.missing.get("distance", "not evaluated")
    if psnr is None:
        median = worst = notes.dash(scores.missing.get("psnr_uint8", "not evaluated"))
    else:
        median, worst = _decibels(psnr, psnr.median_db), _decibels(psnr, psnr.worst_percent_db)
    return {
        "psnr": median,
        "worst": worst,
        "distance": Cell(distance_text(d.artifact), d.artifact) if d else notes.dash(why),
        "rise": _rise(d) if d else notes.dash(why),
    }


def _decibels(psnr: Psnr, value: float) -> Cell:
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
