"""A report as one HTML page that needs no network: the table, charts of all runs, and a section for each run."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..benchmarking.run import BenchRun
from ..dependencies import import_or_explain
from ..drawing.charts import Point, frontier, histogram, log_scale, number, over_time, strip
from ..drawing.grid import difference, grid_png
from ..evaluation.sample_quality import TITLES, Estimate, Neighbors
from ..portable.psnr import IDENTICAL_DB, psnr_per_image
from .details import by_kind, command, facts
from .entries import Entry, reference_of
from .table import (
    COLUMNS,
    DASH,
    HOST_NOTE,
    NEIGHBORS_NOTE,
    Cell,
    Notes,
    cells,
    distance_text,
    measured_on_host,
    neighbor_rows,
)

SHOWN = 16  # samples of each run
WORST = 8  # samples that differ most from the server's


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI. columns: images in a row; None: as many as there are rows."""

    uri: str
    caption: str
    alt: str
    columns: int | None


def page(entries: list[Entry], baseline: Entry | None) -> str:
    """The page's HTML."""
    jinja2 = import_or_explain("jinja2", "a report", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(Path(__file__).parent / "templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    notes = Notes()
    servers = [e.run for e in (*entries, *([baseline] if baseline else [])) if e.run.is_server]
    hidden = {"place", "runtime", *([] if baseline else ["relative"])}
    distances = [entry.distance for entry in entries if entry.distance]
    metrics = {distance.metric for distance in distances}
    metric = metrics.pop() if len(metrics) == 1 else None
    points = [
        Point(entry.stats.median, entry.frechet, entry.run.label, entry.run.is_server)
        for entry in entries
        if entry.stats and entry.frechet is not None
    ]
    html: str = environment.get_template("report.html.jinja").render(
        columns=[column for column in COLUMNS if column.name not in hidden],
        table=[_narrow(cells(entry, baseline, notes)) for entry in entries],
        sections=[_section(entry, reference_of(entry.run, servers)) for entry in entries],
        notes=notes.texts,
        frontier=frontier(points, metric) if metric and len(points) > 1 else None,
        metric=metric,
        floor=" ± ".join(map(distance_text, (distances[0].floor, distances[0].floor_spread))) if distances else None,
        titles=TITLES,
        neighbors=[(name, _estimates(one)) for name, one in neighbor_rows(entries)],
        neighbors_note=NEIGHBORS_NOTE,
        overview=_overview([(e.run.label, e.run.record.latency_ms) for e in entries if e.run.record.latency_ms]),
        baseline=baseline.run if baseline else None,
        host_note=HOST_NOTE if any(measured_on_host(entry) for entry in entries) else None,
        checkpoints=sorted({e.run.record.checkpoint_sha256 for e in entries}),
        one_seed=len({e.run.record.samples.seed for e in entries if e.run.record.samples}) == 1,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )  # fmt: skip
    return html


def _narrow(row: dict[str, Cell]) -> dict[str, Cell]:
    """The row with its place below its target and its runtime below its precision, for a window 1100 pixels wide."""
    place, runtime = f"on {row['place'].value}", None if row["runtime"].note else row["runtime"].value
    target, precision = replace(row["target"], extra=place), replace(row["precision"], extra=runtime)
    return {**row, "target": target, "precision": precision}


def _estimates(neighbors: Neighbors) -> list[tuple[str, str | None]]:
    """(value, interval) of each figure, in the order of TITLES."""
    figures: list[Estimate | None] = [getattr(neighbors, name) for name in Neighbors.model_fields]
    return [
        (DASH, None)
        if one is None
        else (f"{one.value:.3f}", None if one.low is None else f"{one.low:.3f} … {one.high:.3f}")
        for one in figures
    ]


def _section(entry: Entry, server: BenchRun | None) -> dict[str, object]:
    """What the template shows of one run. server: the server's run from the same noise."""
    run, times, images = entry.run, entry.run.record.latency_ms, entry.run.images()
    states = [(change.run, change.state) for change in run.record.thermal_changes]
    return {
        "run": run,
        "scores": entry.scores,
        "classes": _classes(run, server),
        "histogram": histogram(times) if times else None,
        "over_time": over_time(times, states if len(states) > 1 else ()) if times else None,
        "pictures": _pictures(images[:SHOWN], server) if len(images) else [],
        "worst": _worst(images, server.images()) if server and len(images) else None,
        "without_reference": len(images) > 0 and server is None and not run.is_server,
        "kinds": by_kind(run.record.operators or ()),
        "facts": facts(run),
        "missing": sorted(run.record.missing.items()),
        "command": command(run),
        "plan": run.plan.model_dump_json(indent=2),
    }


def _classes(run: BenchRun, server: BenchRun | None) -> str | None:
    """The classes of the samples that are shown, in their order, as the server's record names them."""
    names = (server or run).record.class_names
    return None if names is None else ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


def _overview(
    runs: Sequence[tuple[str, Sequence[float]]],
) -> tuple[list[tuple[str, str, float]], list[tuple[str, float]]] | None:
    """The latencies in ms of all runs on one logarithmic axis; None where there are none.

    Returns (title, strip, median in ms) of each run, and (label, percent from the left) of each tick.
    """
    if not runs:
        return None
    ends = (float(end) for _, times in runs for end in np.percentile(times, [1, 99]))
    scale = log_scale(ends, 1.1, 0.0, 1000.0)
    rows = [(title, strip(times, scale), float(np.median(times))) for title, times in runs]
    return rows, [(number(tick), scale(tick) / 10.0) for tick in scale.ticks()]


def _pictures(images: NDArray[np.uint8], server: BenchRun | None) -> list[Picture]:
    if server is None:
        return [_picture(images, "Samples", "grid of samples")]
    reference = server.images()[: len(images)]
    amplified, factor = difference(images, reference)
    caption = f"Difference × {factor}" if amplified.any() else "No difference"
    return [
        _picture(reference, "Server", "samples of the server"),
        _picture(images, "Artifact", "samples of the artifact from the same noise"),
        _picture(amplified, caption, "absolute difference, amplified"),
    ]


def _worst(images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Picture | None:
    """The images with the lowest PSNR as rows of server, artifact and difference."""
    values = psnr_per_image(images, reference, 255.0)
    order = [int(i) for i in np.argsort(values, kind="stable")[:WORST] if values[i] < IDENTICAL_DB]
    if not order:
        return None
    a, b = images[order], reference[order]
    amplified, factor = difference(a, b)
    decibels = ", ".join(f"{values[i]:.1f}" for i in order)
    caption = f"Rows: server, artifact, difference × {factor}. PSNR of the 8-bit images: {decibels} dB"
    alt = "the images that differ most from the server's"
    return _picture(np.concatenate([b, a, amplified]), caption, alt, len(order))


def _picture(images: NDArray[np.uint8], caption: str, alt: str, columns: int | None = None) -> Picture:
    shown = images if images.shape[3] in (1, 3) else images[..., :1]  # of other images the first channel
    data = base64.b64encode(grid_png(shown, columns)).decode()
    return Picture(f"data:image/png;base64,{data}", caption, alt, columns)
