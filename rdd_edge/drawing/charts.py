"""Charts as inline SVG, 360 wide, so that their text is readable on a phone without scaling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element, tostring

import numpy as np

WIDTH, HEIGHT = 360.0, 170.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 8.0, 10.0, 26.0
MOST_DOTS = 600
LEAST = 1e-9  # on a logarithmic axis, where smaller values are drawn: in ms, below any clock's resolution
LETTER = 6.2  # width of a label's letter, on average

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Scale:
    """A map of values low … high onto pixels start … end, and round ticks between."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(max(v, LEAST)) if self.log else v for v in (self.low, self.high, value))
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


def log_scale(values: Iterable[float], margin: float, start: float, end: float) -> Scale:
    """A logarithmic axis of these values, with a margin by which its ends are divided and multiplied."""
    positive = [max(value, LEAST) for value in values]
    return Scale(min(positive) / margin, max(positive) * margin, start, end, log=True)


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


def histogram(times: Sequence[float]) -> str:
    """Distribution of latencies in ms, with the median and the 90th percentile marked; the slowest 1 % end the axis."""
    values = np.asarray(times)
    low, high = _range(float(values.min()), float(np.percentile(values, 99)))
    counts, edges = np.histogram(values.clip(low, high), bins=min(40, max(8, len(values) // 6)), range=(low, high))
    x, y = Scale(low, high, LEFT, WIDTH - RIGHT), Scale(0.0, float(counts.max()), HEIGHT - BOTTOM, TOP)
    bars = [
        _element("rect", "bar", x=x(a), y=y(c), width=max(x(b) - x(a) - 1.0, 0.5), height=y(0) - y(c))
        for (a, b), c in zip(pairwise(edges), counts, strict=True)
        if c
    ]
    marks = [
        _element("line", kind, x1=x(min(value, high)), x2=x(min(value, high)), y1=TOP, y2=HEIGHT - BOTTOM)
        for kind, value in zip(("median", "p90"), np.percentile(values, [50, 90]), strict=True)
    ]
    return _plot("latency distribution", x, y, "ms", [*bars, *marks])


def over_time(times: Sequence[float], changes: Sequence[tuple[int, str]] = ()) -> str:
    """The latency of each inference in order, which rises where a device throttles.

    changes: (number of runs before it, name) of each state of the device, which is marked by a line.
    """
    values = np.asarray(times)
    low, high = _range(float(values.min()), float(np.percentile(values, 99.5)))
    x, y = Scale(1.0, max(2.0, len(values)), LEFT, WIDTH - RIGHT), Scale(low, high, HEIGHT - BOTTOM, TOP)
    dots = [_circle("dot", x(i + 1), y(min(values[i], high)), 1.6) for i in _spread(len(values), MOST_DOTS)]
    parts = np.array_split(np.arange(len(values)), len(values) // max(1, len(values) // 24))
    medians = [(x(part.mean() + 1), y(min(float(np.median(values[part])), high))) for part in parts]
    marks = [mark for run, name in changes for mark in _change(x(max(1, run)), name)]
    return _plot("latency over time", x, y, "run", [*dots, _trend(medians), *marks])


def _change(x: float, name: str) -> list[Element]:
    """A line where a state begins, and its name on the side where there is room."""
    right = x + 4 + LETTER * len(name) < WIDTH - RIGHT
    at, anchor = (x + 4, "start") if right else (x - 4, "end")
    line = _element("line", "p90", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM)
    return [line, _element("text", text=name, x=at, y=TOP + 8, text_anchor=anchor)]


def strip(times: Sequence[float], scale: Scale) -> str:
    """A row of the overview, 1000 × 20 and stretched to its cell: p5 to p95, the inferences and the median."""
    values = np.sort(times)
    p5, median, p95 = (scale(value) for value in np.percentile(values, [5, 50, 95]))
    shown = [value for value in values[_spread(len(values), 120)] if scale.low <= value <= scale.high]
    svg = Element("svg", {"viewBox": "0 0 1000 20", "preserveAspectRatio": "none", "aria-hidden": "true"})
    svg.append(_element("rect", "spread", x=p5, y=6, width=max(p95 - p5, 2.0), height=8))
    svg.extend(_element("rect", "run", x=scale(value), y=5, width=1.5, height=10) for value in shown)
    svg.append(_element("rect", "median", x=median - 2.0, y=1, width=4, height=18))
    return tostring(svg, "unicode")


def frontier(points: Sequence[Point], metric: str) -> str:
    """Quality against latency, with a line through the Pareto-optimal benchmark runs. Left and low is better."""
    bottom = 240.0 - BOTTOM
    x = log_scale((p.x for p in points), 1.3, LEFT, WIDTH - RIGHT)
    low, high = _range(min(p.y for p in points), max(p.y for p in points))
    y = Scale(low - 0.12 * (high - low), high + 0.12 * (high - low), bottom, TOP + 12)
    best = [p for p in points if not any(q.x <= p.x and q.y <= p.y and q != p for q in points)]
    line = [(x(p.x), y(p.y)) for p in sorted(best, key=lambda p: p.x)]
    on_line = (position for a, b in pairwise(line) for position in np.linspace(a, b, 60))
    taken: list[Box] = [(left - 2, top - 2, left + 2, top + 2) for left, top in on_line]
    taken += [(x(p.x) - 5, y(p.y) - 5, x(p.x) + 5, y(p.y) + 5) for p in points]
    marks = [_trend(line)]
    for p in sorted(points, key=lambda p: p.y):
        anchor, left, box = _place_label(x(p.x), y(p.y), LETTER * len(p.label), taken, bottom)
        marks.append(_leader(x(p.x), y(p.y), box))
        marks.append(_circle("server" if p.server else "point", x(p.x), y(p.y), 4))
        marks.append(_element("text", text=p.label, x=left, y=box[1] + 9, text_anchor=anchor))
    return _plot(f"{metric} against latency", x, y, "ms", marks)


def curve(xs: Sequence[float], ys: Sequence[float], name: str, metric: str) -> str:
    """A measurement against a setting, which is on a logarithmic axis where it spans more than a decade."""
    wide = min(xs) > 0 and max(xs) / min(xs) > 10
    low, high = (min(xs) / 1.1, max(xs) * 1.1) if wide else _range(min(xs), max(xs))
    x = Scale(low, high, LEFT, WIDTH - RIGHT, log=wide)
    y = Scale(*_range(min(ys), max(ys)), HEIGHT - BOTTOM, TOP)
    line = [(x(a), y(b)) for a, b in sorted(zip(xs, ys, strict=True))]
    return _plot(f"{metric} against {name}", x, y, name, [_trend(line), *(_circle("point", *at, 4) for at in line)])


def _place_label(x: float, y: float, width: float, taken: list[Box], bottom: float) -> tuple[str, float, Box]:
    """Anchor, position and box of a label of `width`, beside its point or else above or below; adds it to `taken`."""
    options: list[tuple[str, float, Box]] = []
    middle = max(LEFT, min(x - width / 2, WIDTH - width))  # of a long label, as near to the point as there is room
    for rise in (0, -14, 14, -28, 28, -42, 42):
        sides = [("start", x + 8, x + 8), ("end", x - 8, x - 8 - width)]
        for anchor, at, left in [*([("middle", middle + width / 2, middle)] if rise else []), *sides]:
            options.append((anchor, at, (left, y - 5 + rise, left + width, y + 6 + rise)))
    inside = [o for o in options if o[2][0] >= LEFT and o[2][2] <= WIDTH and o[2][1] >= 0 and o[2][3] <= bottom]
    free = [o for o in inside if not any(_overlap(o[2], other) for other in taken)]
    anchor, at, box = (free or inside or options)[0]
    taken.append(box)
    return anchor, at, box


def _leader(x: float, y: float, label: Box) -> Element:
    """A line from a point to its label, which may be nearer to another point; of no length beside the point."""
    end = min(max(x, label[0]), label[2]), min(max(y, label[1]), label[3])
    beside = label[1] <= y <= label[3]
    return _element("line", "leader", x1=x, y1=y, x2=x if beside else end[0], y2=y if beside else end[1])


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _range(low: float, high: float) -> tuple[float, float]:
    """The range with a margin, which is never zero."""
    margin = max(0.02 * (high - low), 0.005 * abs(high), 1e-6)
    return low - margin, high + margin


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the indices of `count` values, evenly spread."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))]


def _plot(title: str, x: Scale, y: Scale, unit: str, marks: Iterable[Element]) -> str:
    """Marks over two axes; the lower one is at y.start, and its unit is below the labels of the other."""
    base = y.start
    svg = Element("svg", {"viewBox": f"0 0 {WIDTH:g} {base + BOTTOM:g}", "role": "img", "aria-label": title})
    svg.append(_element("title", text=title))
    svg.append(_element("line", "axis", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base))
    for tick, label in zip(ticks := x.ticks(), labels(x, ticks), strict=True):
        anchor = "end" if x(tick) > WIDTH - 24 else "middle"
        svg.append(_element("text", text=label, x=x(tick), y=base + 15, text_anchor=anchor))
    svg.append(_element("text", "axis-unit", unit, x=4, y=base + 15))
    for tick, label in zip(ticks := y.ticks(3), labels(y, ticks), strict=True):
        svg.append(_element("line", "rule", x1=LEFT, x2=WIDTH - RIGHT, y1=y(tick), y2=y(tick)))
        svg.append(_element("text", text=label, x=LEFT - 6, y=y(tick) + 4, text_anchor="end"))
    svg.extend(marks)
    return tostring(svg, "unicode")


def _trend(points: Iterable[tuple[float, float]]) -> Element:
    return _element("polyline", "trend", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points))


def _circle(kind: str, x: float, y: float, radius: float) -> Element:
    return _element("circle", kind, cx=x, cy=y, r=radius)


def _element(tag: str, kind: str = "", text: str = "", **attributes: float | str) -> Element:
    """An element of class `kind`; ElementTree escapes all text. An underscore in an attribute's name is a hyphen."""
    element = Element(tag, {"class": kind} if kind else {})
    for name, value in attributes.items():
        element.set(name.replace("_", "-"), value if isinstance(value, str) else f"{value:.1f}")
    element.text = text
    return element
