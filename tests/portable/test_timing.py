"""The loop of the timed runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rdd_edge.portable import timing
from rdd_edge.portable.runner import Runner
from rdd_edge.portable.timing import Work, run_benchmark
from rdd_edge.targets.base import Runtime


class Instant(Runner):
    """Returns its input."""

    runtime = Runtime(name="instant", version="1", backend=None)

    def load(self) -> None:
        pass

    def run(self, z: Any, label: Any) -> Any:
        return z


@pytest.mark.parametrize(("runs", "timed"), [(3, 20), (30, 30)])
def test_the_seconds_add_no_more_runs_than_a_record_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int, timed: int
) -> None:
    monkeypatch.setattr(timing, "MOST_TIMED", 20)
    work = Work((1, 1, 2, 2), None, warmup=0, runs=runs, seconds=3600.0, samples=0, seed=0, floats=0)
    measured = run_benchmark(Instant(), work, tmp_path, lambda stage, count: None, profiled=False)
    assert len(measured["latency_ms"]) == timed
