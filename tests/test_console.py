"""Progress in a log file: a line at least every thirty seconds, and none for what takes a moment."""

from __future__ import annotations

import io
import re
import time

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
    monkeypatch.setattr(console, "LINE_SECONDS", 0.03)  # the reporter looks at its clock thirty times as often
    with ConsoleReporter():
        distill(tiny("teacher.steps=40"), tmp_path / "run", device="cpu", until="teacher")
    pattern = r"teacher +(\d+)/40 steps  loss \d\S*  \d+\.\d steps/s  \d+:\d\d left"
    found = [re.fullmatch(pattern, line) for line in log.getvalue().splitlines()]
    assert len([match for match in found if match]) >= 3


def test_a_stage_that_reports_nothing_gets_its_lines_too(log, monkeypatch):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.15)
    with ConsoleReporter("export:") as reporter:
        reporter.begin("android-fp32 lower")
        time.sleep(0.8)
    lines = log.getvalue().splitlines()
    assert 2 <= len(lines) <= 5
    assert all(re.fullmatch(r"export: android-fp32 lower  0 s so far|export: .* 1 s so far", line) for line in lines)


def test_no_line_comes_before_its_time(log):
    with ConsoleReporter() as reporter:
        reporter.begin("student-4", 1000, unit="steps")
        for done in range(1, 50):
            reporter.advance(done, 0.25)
        assert log.getvalue() == ""


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
    assert log.getvalue().splitlines() == ["reading       3/3 files  1.5 files/s  2 s"]
