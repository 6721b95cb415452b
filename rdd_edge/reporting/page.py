"""A report as one HTML page that needs no network: the table, charts of all runs, and a section for each run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmarking.run import BenchRun
from ..dependencies import import_or_explain
from .details import command, facts
from .entries import Entry, reference_of
from .figures import Figures, figures, overview
from .table import COLUMNS, Cell, Notes, cells, distance_text

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["page"]


@dataclass(frozen=True)
class Section:
    """One run on the page."""

    entry: Entry
    anchor: str
    figures: Figures
    facts: list[tuple[str, str]]  # (name, value)
    reasons: list[tuple[str, str]]  # (field that is missing, reason)
    command: str
    plan: str


def page(entries: list[Entry], baseline: BenchRun | None) -> str:
    """The page's HTML."""
    notes = Notes()
    runs = [*(entry.run for entry in entries), *([baseline] if baseline else [])]
    hidden = {"runtime", *([] if baseline else ["relative"])}
    sections = [
        Section(
            entry=entry,
            anchor=f"run-{i}",
            figures=figures(entry.run, reference_of(entry, runs)),
            facts=facts(entry.run),
            reasons=sorted(entry.run.record.missing.items()),
            command=command(entry.run),
            plan=entry.run.plan.model_dump_json(indent=2),
        )
        for i, entry in enumerate(entries, 1)
    ]
    distances = [entry.distance for entry in entries if entry.distance]
    metrics = {distance.metric for distance in distances}
    metric = metrics.pop() if len(metrics) == 1 else None
    html: str = _environment().get_template("report.html.jinja").render(
        columns=[column for column in COLUMNS if column.name not in hidden],
        table=[_narrow(cells(entry.run, entry.scores, entry.stats, baseline, notes)) for entry in entries],
        sections=sections,
        notes=notes.texts,
        frontier=_frontier(entries, metric) if metric else None,
        metric=metric,
        floor=distance_text(distances[0].floor) if distances else None,
        overview=overview([(e.run.title, e.run.record.latency_ms or ()) for e in entries]),
        baseline=baseline,
        checkpoints=sorted({e.run.record.checkpoint_sha256 for e in entries}),
        one_seed=len({e.run.record.samples.seed for e in entries if e.run.record.samples}) == 1,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )  # fmt: skip
    return html


def _frontier(entries: list[Entry], metric: str) -> Markup | None:
    from ..drawing.charts import Point, frontier

    points = [
        Point(entry.stats.median, entry.distance.artifact, entry.run.title, entry.run.is_server)
        for entry in entries
        if entry.stats and entry.distance
    ]
    return frontier(points, metric) if len(points) > 1 else None


def _narrow(row: dict[str, Cell]) -> dict[str, Cell]:
    """The row with its runtime below its precision, so that the table fits a window 1100 pixels wide."""
    runtime = row["runtime"]
    return row if runtime.note else {**row, "precision": replace(row["precision"], extra=runtime.value)}


def _environment() -> Any:
    jinja2 = import_or_explain("jinja2", "a report", "report")
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(Path(__file__).parent / "templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
