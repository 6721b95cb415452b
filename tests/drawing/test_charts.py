"""Scales and ticks; the drawings themselves are looked at on the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from rdd_edge.drawing.charts import Point, Scale, frontier, histogram, labels, number, over_time, strip


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.5, 700.0), (1.3, 6.2), (97.0, 98.2), (0.001, 0.002)])
def test_scale_maps_ends_to_ends_and_ticks_lie_inside(low: float, high: float, log: bool) -> None:
    scale = Scale(low, high, 40.0, 360.0, log)
    assert (scale(low), scale(high)) == (pytest.approx(40.0), pytest.approx(360.0))
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0751, "0.0751"), (1, "1"), (1.5, "1.5"), (412.3, "412"), (20, "20"), (1234.0, "1234")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_ticks_of_a_linear_axis_have_as_many_decimals() -> None:
    assert labels(Scale(1, 2, 0, 9), [1.4, 1.42, 1.44]) == ["1.40", "1.42", "1.44"]
    assert labels(Scale(1, 2, 0, 9), [20.0, 100.0]) == ["20", "100"]
    assert labels(Scale(0.1, 20, 0, 9, log=True), [0.5, 1.0, 20.0]) == ["0.5", "1", "20"]


@pytest.mark.parametrize("times", [[1.0], [2.0, 2.0, 2.0], list(np.linspace(1, 3, 5000)), [0.0, 0.0]])
def test_drawings_are_well_formed_and_inside_their_frame(times: list[float]) -> None:
    states = [(0, "none"), (len(times), "<severe>")]
    for drawing in (histogram(times), over_time(times), over_time(times, states)):
        root = ElementTree.fromstring(str(drawing))
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for circle in root.iter("circle"):
            assert 0 <= float(circle.attrib["cx"]) <= width
            assert 0 <= float(circle.attrib["cy"]) <= height
        for bar in root.iter("rect"):
            assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width + 0.1
        assert all(0 <= float(line.attrib["x1"]) <= width for line in root.iter("line"))


def test_states_are_marked_where_they_begin() -> None:
    root = ElementTree.fromstring(over_time([1.0] * 100, [(0, "none"), (51, "light"), (99, "severe")]))
    marks = [float(line.attrib["x1"]) for line in root.iter("line") if line.attrib["class"] == "p90"]
    names = [text for text in root.iter("text") if text.text in ("none", "light", "severe")]
    assert [text.text for text in names] == ["none", "light", "severe"]
    assert marks == sorted(marks) and len(set(marks)) == 3
    assert [text.attrib["text-anchor"] for text in names] == ["start", "start", "end"]  # inside the frame


def test_histogram_counts_every_run() -> None:
    root = ElementTree.fromstring(str(histogram([1.0, 2.0, 2.0, 3.0])))
    heights = [float(bar.attrib["height"]) for bar in root.iter("rect")]
    assert sorted(h / max(heights) for h in heights) == pytest.approx([0.5, 0.5, 1.0], abs=0.01)


def test_strip_and_frontier_escape_their_labels() -> None:
    points = [Point(1.0, 2.0, "<b>&", False), Point(2.0, 1.0, "fast", True), Point(3.0, 3.0, "beaten", False)]
    text = str(frontier(points, "fd_<x>"))
    ElementTree.fromstring(text)
    assert "&lt;b&gt;&amp;" in text
    assert "<b>" not in text
    line = re.search(r'polyline class="trend" points="([^"]+)"', text)
    assert line is not None
    assert len(line.group(1).split()) == 2  # the beaten point is not on the frontier
    ElementTree.fromstring(str(strip([1.0, 2.0], Scale(0.5, 4, 0, 1000, True))))


def test_a_label_that_is_not_beside_its_point_is_joined_to_it() -> None:
    places = [(16.1, 10.559), (4.04, 10.559), (1.93, 10.567), (5.28, 10.565), (14.6, 10.551)]
    points = [Point(x, y, "android fp32 (host)", False) for x, y in places]
    root = ElementTree.fromstring(frontier(points, "fd"))
    dots = {(dot.attrib["cx"], dot.attrib["cy"]) for dot in root.iter("circle")}
    leaders = [line.attrib for line in root.iter("line") if line.get("class") == "leader"]
    assert {(line["x1"], line["y1"]) for line in leaders} == dots
    lengths = [
        abs(float(line["x1"]) - float(line["x2"])) + abs(float(line["y1"]) - float(line["y2"])) for line in leaders
    ]
    assert sum(length > 5 for length in lengths) >= 3


def test_a_long_label_lies_over_no_point_and_not_on_the_line() -> None:
    name = "android fp32 (robolectric robolectric)"
    places = [(0.48, 0.1385), (0.83, 0.13788), (3.7, 0.1378801)]
    root = ElementTree.fromstring(frontier([Point(x, y, name, False) for x, y in places], "fd"))
    heights = [float(dot.attrib["cy"]) for dot in root.iter("circle")]
    bottoms = [float(text.attrib["y"]) + 2 for text in root.iter("text") if text.text == name]
    assert len(heights) == len(bottoms) == 3
    for bottom in bottoms:
        assert not any(bottom - 11 < height < bottom for height in heights)
