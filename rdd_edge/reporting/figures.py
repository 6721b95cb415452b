"""The figures of one run on the page: charts of its latencies, grids of its samples."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..benchmarking.run import BenchRun
from ..drawing.charts import Scale, histogram, number, over_time, strip
from ..drawing.grid import difference, grid_png
from ..metrics.psnr import IDENTICAL_DB, psnr_per_image
from .operators import KindTime, by_kind

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Figures", "Overview", "Picture", "figures", "overview"]

SHOWN = 16
WORST = 8


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI."""

    uri: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Figures:
    """What is shown of one run."""

    histogram: Markup | None
    over_time: Markup | None
    pictures: list[Picture]
    worst: Picture | None
    worst_columns: int
    kinds: list[KindTime]  # empty where the operators were not measured
    without_reference: bool  # there is no server run to compare the samples with


@dataclass(frozen=True)
class Overview:
    """All latencies on one axis. rows: (title, strip, median in ms).  ticks: (label, percent from the left)."""

    rows: list[tuple[str, Markup, float]]
    ticks: list[tuple[str, float]]


def figures(run: BenchRun, server: BenchRun | None) -> Figures:
    """The figures of a run.  server: the server's run from the same noise."""
    times, images = run.record.latency_ms, run.images()
    worst, columns = _worst(images, server.images()) if server and len(images) else (None, 0)
    return Figures(
        histogram=histogram(times) if times else None,
        over_time=over_time(times) if times else None,
        pictures=_pictures(images[:SHOWN], server) if len(images) else [],
        worst=worst,
        worst_columns=columns,
        kinds=by_kind(run.record.operators or ()),
        without_reference=bool(len(images)) and server is None and not run.is_server,
    )


def overview(runs: Sequence[tuple[str, Sequence[float]]]) -> Overview | None:
    """The latencies of all runs on one logarithmic axis; None where there are none.  runs: (title, latencies in ms)."""
    timed = [(title, times) for title, times in runs if len(times)]
    if not timed:
        return None
    low = min(float(np.percentile(times, 1)) for _, times in timed)
    high = max(float(np.percentile(times, 99)) for _, times in timed)
    scale = Scale(low / 1.1, high * 1.1, 0.0, 1000.0, log=True)
    ticks = [(number(tick), scale(tick) / 10.0) for tick in scale.ticks()]
    return Overview([(title, strip(times, scale), float(np.median(times))) for title, times in timed], ticks)


def _pictures(images: NDArray[np.uint8], server: BenchRun | None) -> list[Picture]:
    if server is None:
        return [_picture(images, None, "Samples", "grid of samples")]
    reference = server.images()[: len(images)]
    amplified, factor = difference(images, reference)
    caption = f"Difference × {factor}" if amplified.any() else "No difference"
    return [
        _picture(reference, None, "Server", "samples of the server"),
        _picture(images, None, "Artifact", "samples of the artifact from the same noise"),
        _picture(amplified, None, caption, "absolute difference, amplified"),
    ]


def _worst(images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> tuple[Picture | None, int]:
    """The images with the lowest PSNR as rows of server, artifact and difference, and their number."""
    values = psnr_per_image(images, reference, 255.0)
    order = [int(i) for i in np.argsort(values, kind="stable")[:WORST] if values[i] < IDENTICAL_DB]
    if not order:
        return None, 0
    a, b = images[order], reference[order]
    amplified, factor = difference(a, b)
    rows = np.concatenate([b, a, amplified])
    decibels = ", ".join(f"{values[i]:.1f}" for i in order)
    caption = f"Rows: server, artifact, difference × {factor}. PSNR of the 8-bit images: {decibels} dB"
    return _picture(rows, len(order), caption, "the images that differ most from the server's"), len(order)


def _picture(images: NDArray[np.uint8], columns: int | None, caption: str, alt: str) -> Picture:
    shown = images if images.shape[3] in (1, 3) else images[..., :1]  # else the first
    data = base64.b64encode(grid_png(shown, columns)).decode()
    return Picture(f"data:image/png;base64,{data}", caption, alt)
