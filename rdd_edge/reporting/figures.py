"""The pictures of one record on the page: charts of its times, grids of its samples."""

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
from ..evaluation.scores import Scores
from ..metrics.psnr import IDENTICAL_DB, psnr_per_image
from .operators import KindTime, by_kind

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Figures", "Overview", "Picture", "figures", "overview"]

SHOWN = 16
WORST = 8


@dataclass(frozen=True)
class Picture:
    uri: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Figures:
    histogram: Markup | None
    over_time: Markup | None
    pictures: list[Picture]
    worst: Picture | None
    worst_columns: int
    kinds: list[KindTime]  # where the time goes; empty where that is not known
    without_reference: bool  # samples are shown, and there is no server run to hold them against


@dataclass(frozen=True)
class Overview:
    """All latencies on one axis: (title, strip, median in ms) a row, (label, per cent from the left) a tick."""

    rows: list[tuple[str, Markup, float]]
    ticks: list[tuple[str, float]]


def figures(run: BenchRun, server: BenchRun | None, scores: Scores | None) -> Figures:
    """The pictures of a record beside the server's of the same noise, where that is given."""
    times, images = run.record.latency_ms, run.images()
    worst, columns = _worst(images, server.images()) if server and len(images) else (None, 0)
    return Figures(
        histogram=histogram(times) if times else None,
        over_time=over_time(times) if times else None,
        pictures=_pictures(images[:SHOWN], server) if len(images) else [],
        worst=worst,
        worst_columns=columns,
        kinds=by_kind(run.record.operators or ()),
        without_reference=bool(len(images)) and server is None and run.record.target != "server",
    )


def overview(runs: Sequence[tuple[str, Sequence[float]]]) -> Overview | None:
    """All records' latencies on one logarithmic axis, or None where none has any."""
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
        return [_picture(images, None, "samples", "a grid of samples")]
    theirs = server.images()[: len(images)]
    apart, factor = difference(images, theirs)
    exact = "no difference" if not apart.any() else f"difference, × {factor}"
    return [
        _picture(theirs, None, "server", "the server's samples"),
        _picture(images, None, "artifact", "the artifact's samples from the same noise"),
        _picture(apart, None, exact, "their absolute difference, amplified"),
    ]


def _worst(images: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> tuple[Picture | None, int]:
    """The images furthest from the server's, their rows below each other, and how many; none that is identical."""
    values = psnr_per_image(images, theirs, 255.0)
    order = [int(i) for i in np.argsort(values, kind="stable")[:WORST] if values[i] < IDENTICAL_DB]
    if not order:
        return None, 0
    a, b = images[order], theirs[order]
    apart, factor = difference(a, b)
    rows = np.concatenate([b, a, apart])
    named = ", ".join(f"{values[i]:.1f}" for i in order)
    caption = f"server, artifact, difference × {factor}; PSNR of the uint8 images {named} dB"
    return _picture(rows, len(order), caption, "the images furthest from the server's"), len(order)


def _picture(images: NDArray[np.uint8], columns: int | None, caption: str, alt: str) -> Picture:
    shown = images if images.shape[3] in (1, 3) else images[..., :1]  # of other channel counts the first
    data = base64.b64encode(grid_png(shown, columns)).decode()
    return Picture(f"data:image/png;base64,{data}", caption, alt)
