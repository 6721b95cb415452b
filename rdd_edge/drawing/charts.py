"""Charts as inline SVG. Every string from a record is escaped by markupsafe.

They are 360 wide, so that their text is readable on a phone without scaling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Point", "Scale", "curve", "frontier", "histogram", "labels", "over_time", "strip"]

WIDTH, HEIGHT = 360.0, 170.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 8.0, 10.0, 26.0
MOST_DOTS = 600


@dataclass(frozen=True)
class Scale:
    """A map of values low … high onto pixels start … end, and round ticks between."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int = 4) -> list[float]:
        """Round values inside the range: 1, 2, 5 times powers of ten."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 8)):
                inside = [m * 10.0**d for d in decades for m in digits if self.low <= m * 10.0**d <= self.high]
                if len(inside) >= about - 1:
                    return inside[:: math.ceil(len(inside) / 9)]
        step = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(step))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= step)
        first = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Point:
    """A benchmark run in the frontier. x: milliseconds.  y: distance."""

    x: float
    y: float
    label: str
    server: bool


def number(value: float) -> str:
    """Three significant digits without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def labels(scale: Scale, ticks: Sequence[float]) -> list[str]:
    """Labels of an axis' ticks, all with the same number of decimals on a linear axis."""
    texts = [number(tick) for tick in ticks]
    if scale.log:
        return texts
    decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def histogram(times: Sequence[float]) -> Markup:
    """Distribution of latencies in ms, with the median and the 90th percentile marked; the slowest 1 % end the axis."""
    values = np.asarray(times)
    low, high = _range(float(values.min()), float(np.percentile(values, 99)))
    counts, edges = np.histogram(values.clip(low, high), bins=min(40, max(8, len(values) // 6)), range=(low, high))
    x = Scale(low, high, LEFT, WIDTH - RIGHT)
    y = Scale(0.0, float(counts.max()), HEIGHT - BOTTOM, TOP)
    bars = [
        _svg('<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>',
             x(a), y(c), max(x(b) - x(a) - 1.0, 0.5), y(0) - y(c))
        for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True) if c
    ]  # fmt: skip
    median, p90 = np.percentile(values, [50, 90])
    marks = [_mark(x, float(median), "median"), _mark(x, float(min(p90, high)), "p90")]
    return _frame("latency distribution", [*bars, *marks, *_bottom_axis(x, "ms"), *_left_axis(y)])


def over_time(times: Sequence[float]) -> Markup:
    """The latency of each inference in order, which rises where a device throttles."""
    values = np.asarray(times)
    low, high = _range(float(values.min()), float(np.percentile(values, 99.5)))
    x, y = Scale(1.0, max(2.0, len(values)), LEFT, WIDTH - RIGHT), Scale(low, high, HEIGHT - BOTTOM, TOP)
    shown = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_DOTS)).astype(int))
    dots = [
        _svg('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="1.6"/>', x(i + 1), y(min(float(values[i]), high)))
        for i in shown
    ]
    window = max(1, len(values) // 24)
    parts = [part for part in np.array_split(np.arange(len(values)), max(1, len(values) // window)) if len(part)]
    line = " ".join(f"{x(p.mean() + 1):.1f},{y(min(float(np.median(values[p])), high)):.1f}" for p in parts)
    trend = _svg('<polyline class="trend" points="{}"/>', line)
    return _frame("latency over time", [*dots, trend, *_bottom_axis(x, "run"), *_left_axis(y)])


def strip(times: Sequence[float], scale: Scale) -> Markup:
    """A row of the overview, 1000 × 20 and stretched to its cell: p5 to p95, the inferences and the median."""
    values = np.asarray(times)
    p5, median, p95 = (float(v) for v in np.percentile(values, [5, 50, 95]))
    shown = np.sort(values)[np.unique(np.linspace(0, len(values) - 1, min(len(values), 120)).astype(int))]
    ticks = [
        _svg('<rect class="run" x="{:.1f}" y="5" width="1.5" height="10"/>', scale(float(v)))
        for v in shown
        if scale.low <= v <= scale.high
    ]
    box = _svg(
        '<rect class="spread" x="{:.1f}" y="6" width="{:.1f}" height="8"/>', scale(p5), max(scale(p95) - scale(p5), 2.0)
    )
    middle = _svg('<rect class="median" x="{:.1f}" y="1" width="4" height="18"/>', scale(median) - 2.0)
    return _svg(
        '<svg viewBox="0 0 1000 20" preserveAspectRatio="none" aria-hidden="true">{}{}{}</svg>',
        box,
        _join(ticks),
        middle,
    )


def frontier(points: Sequence[Point], metric: str) -> Markup:
    """Quality against latency, with a line through the Pareto-optimal benchmark runs. Left and low is better."""
    height = 240.0
    lows, highs = min(p.x for p in points), max(p.x for p in points)
    x = Scale(lows / 1.3, highs * 1.3, LEFT, WIDTH - RIGHT, log=True)
    low, high = _range(min(p.y for p in points), max(p.y for p in points))
    y = Scale(low - 0.12 * (high - low), high + 0.12 * (high - low), height - BOTTOM, TOP + 12)
    best = [p for p in points if not any(q.x <= p.x and q.y <= p.y and q != p for q in points)]
    line = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in sorted(best, key=lambda p: p.x))
    marks = [_svg('<polyline class="trend" points="{}"/>', line)]
    taken = [_Box(x(p.x) - 5, y(p.y) - 5, x(p.x) + 5, y(p.y) + 5) for p in points]
    for p in sorted(points, key=lambda p: p.y):
        anchor, box = _place_label(x(p.x), y(p.y), 6.2 * len(p.label), taken, height)
        taken.append(box)
        start = {"start": box.left, "middle": (box.left + box.right) / 2, "end": box.right}[anchor]
        kind = "server" if p.server else "point"
        marks.append(_svg('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"/>', kind, x(p.x), y(p.y)))
        marks.append(
            _svg('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>', start, box.top + 9, anchor, p.label)
        )
    axes = [*_bottom_axis(x, "ms", height), *_left_axis(y)]
    return _frame(f"{metric} against latency", [*axes, *marks], height)


def curve(xs: Sequence[float], ys: Sequence[float], name: str, metric: str) -> Markup:
    """A measurement against a setting, which is on a logarithmic axis where it spans more than a decade."""
    wide = min(xs) > 0 and max(xs) / min(xs) > 10
    low, high = (min(xs) / 1.1, max(xs) * 1.1) if wide else _range(min(xs), max(xs))
    x = Scale(low, high, LEFT, WIDTH - RIGHT, log=wide)
    y = Scale(*_range(min(ys), max(ys)), HEIGHT - BOTTOM, TOP)
    pairs = sorted(zip(xs, ys, strict=True))
    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in pairs)
    dots = [_svg('<circle class="point" cx="{:.1f}" cy="{:.1f}" r="4"/>', x(a), y(b)) for a, b in pairs]
    trend = _svg('<polyline class="trend" points="{}"/>', line)
    return _frame(f"{metric} against {name}", [*_bottom_axis(x, name), *_left_axis(y), trend, *dots])


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def _place_label(x: float, y: float, width: float, taken: Sequence[_Box], height: float) -> tuple[str, _Box]:
    """A free position for a label of `width`: right, left, above or below its point, then further away."""
    sides = [("start", x + 8), ("end", x - 8 - width), ("middle", x - width / 2)]
    positions = [(anchor, left, rise) for rise in (0, -14, 14, -28, 28, -42, 42) for anchor, left in sides]
    positions.remove(("middle", x - width / 2, 0))
    positions.sort(key=lambda position: (abs(position[2]), position[0] != "middle" and position[2] != 0))
    inside = [
        (anchor, _Box(left, y - 5 + rise, left + width, y + 6 + rise))
        for anchor, left, rise in positions
        if left >= LEFT and left + width <= WIDTH and y - 5 + rise >= 0 and y + 6 + rise <= height - BOTTOM
    ]
    free = [position for position in inside if not any(position[1].overlaps(other) for other in taken)]
    return next(iter(free or inside), ("start", _Box(x + 8, y - 5, x + 8 + width, y + 6)))


def _range(low: float, high: float) -> tuple[float, float]:
    """The range with a margin, which is never zero."""
    margin = max(0.02 * (high - low), 0.005 * abs(high), 1e-6)
    return low - margin, high + margin


def _bottom_axis(x: Scale, unit: str, height: float = HEIGHT) -> list[Markup]:
    base = height - BOTTOM
    parts = [_svg('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>', LEFT, WIDTH - RIGHT, base, base)]
    ticks = x.ticks()
    for tick, label in zip(ticks, labels(x, ticks), strict=True):
        anchor = "end" if x(tick) > WIDTH - 24 else "middle"
        parts.append(_svg('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>', x(tick), base + 15, anchor, label))
    parts.append(_svg('<text class="axis-unit" x="4" y="{}">{}</text>', base + 15, unit))
    return parts


def _left_axis(y: Scale) -> list[Markup]:
    parts = []
    ticks = y.ticks(3)
    for tick, label in zip(ticks, labels(y, ticks), strict=True):
        parts.append(
            _svg('<line class="rule" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>', LEFT, WIDTH - RIGHT, y(tick), y(tick))
        )
        parts.append(_svg('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>', LEFT - 6, y(tick) + 4, label))
    return parts


def _mark(x: Scale, value: float, kind: str) -> Markup:
    return _svg(
        '<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>', kind, x(value), x(value), TOP, HEIGHT - BOTTOM
    )


def _frame(title: str, parts: Sequence[Markup], height: float = HEIGHT) -> Markup:
    template = '<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>'
    return _svg(template, WIDTH, height, title, title, _join(parts))


def _svg(template: str, *values: object) -> Markup:
    from markupsafe import Markup

    return Markup(template).format(*values)


def _join(parts: Sequence[Markup]) -> Markup:
    from markupsafe import Markup

    return Markup("").join(parts)
