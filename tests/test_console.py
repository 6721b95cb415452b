"""Progress in a log file: a line at least every thirty seconds, and none for what takes a moment."""

from __future__ import annotations

import io
import re
from itertools import pairwise

import pytest
from rich.console import Console
from tiny import tiny

from rdd_edge import console
from rdd_edge.console import LINE_SECONDS, ConsoleReporter
from rdd_edge.distillation.run import distill


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """stderr as a file."""
    file = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=file, highlight=False, soft_wrap=True))
    return file


def test_a_training_run_writes_a_line_at_least_every_thirty_seconds(log, monkeypatch, tmp_path):
    assert LINE_SECONDS <= 30
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)  # every step is late
    with ConsoleReporter():
        distill(tiny(), tmp_path / "run", device="cpu", until="teacher")
    pattern = r"teacher +(\d)/8 steps  loss \d\S*  \d+\.\d steps/s  \d+:\d\d left"
    found = [re.fullmatch(pattern, line) for line in log.getvalue().splitlines()]
    assert [match[1] for match in found if match] == list("12345678")


@pytest.mark.parametrize("seconds_per_step", [0.5, 4.0, 29.0, 45.0])
def test_lines_come_when_thirty_seconds_have_passed(log, monkeypatch, seconds_per_step):
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    written = [0.0]
    with ConsoleReporter() as reporter:
        reporter.begin("student-4", 1000, unit="steps")
        for done in range(1, 201):
            now += seconds_per_step
            before = log.tell()
            reporter.advance(done, 0.25)
            if log.tell() > before:
                written.append(now)
    gaps = [after - before for before, after in pairwise(written)]
    assert max(gaps) < LINE_SECONDS + seconds_per_step
    assert min(gaps) >= LINE_SECONDS
    line = log.getvalue().splitlines()[-1]
    assert re.fullmatch(
        rf"student-4 +\d+/1000 steps  loss 0\.25  {1 / seconds_per_step:.1f} steps/s  \d+:\d\d left", line
    )


def test_a_stage_of_a_fraction_of_a_second_leaves_no_line(log):
    with ConsoleReporter() as reporter:
        reporter.begin("reading", 3, unit="files")
        reporter.advance(3)
        reporter.end()
    assert log.getvalue() == ""


def test_a_longer_stage_leaves_one_line(log, monkeypatch):
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with ConsoleReporter() as reporter:
        reporter.begin("reading", 3, unit="files")
        now = 2.0
        reporter.advance(3)
        reporter.end()
    assert log.getvalue().splitlines() == ["reading    3/3 files  1.5 files/s  2 s"]
