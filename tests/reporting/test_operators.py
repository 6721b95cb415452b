"""Times of operators, from the profilers of ONNX Runtime and PyTorch to the rows of the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from records import write_run
from tanh_onnx import write_tanh_bundle

from rdd_edge.benchmarking.bench import bench
from rdd_edge.benchmarking.record import OperatorTime
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan
from rdd_edge.reporting.details import KindTime, by_kind, facts
from rdd_edge.targets.jetson.harness.onnx_runtime import nodes

PLAN = Plan(
    performance=PerformancePlan(warmup=0, runs=3, seconds=0, starts=1), accuracy=AccuracyPlan(samples=0), threads=1
)  # fmt: skip


def operator(kind: str, milliseconds: float, backend: str | None = "cpu") -> OperatorTime:
    return OperatorTime(name=f"{kind} {milliseconds}", kind=kind, milliseconds=milliseconds, backend=backend)


def test_kinds_are_added_up_by_who_ran_them() -> None:
    rows = by_kind([operator("Add", 1.0), operator("Conv", 4.0), operator("Conv", 2.0), operator("Conv", 1.0, None)])
    assert rows == [
        KindTime("Conv", "cpu", 2, 6.0, 0.75),
        KindTime("Add", "cpu", 1, 1.0, 0.125),
        KindTime("Conv", None, 1, 1.0, 0.125),
    ]
    assert by_kind([]) == []
    assert by_kind([operator("Add", 0.0)]) == [KindTime("Add", "cpu", 1, 0.0, 0.0)]


def test_the_rest_of_many_kinds_is_one_row() -> None:
    rows = by_kind([operator(f"k{i}", float(i)) for i in range(1, 31)], shown=4)
    assert [row.kind for row in rows] == ["k30", "k29", "k28", "k27", "26 other kinds"]
    assert rows[-1].count == 26
    assert sum(row.fraction for row in rows) == pytest.approx(1.0)
    assert sum(row.milliseconds for row in rows) == pytest.approx(sum(range(1, 31)))
    assert len(by_kind([operator(f"k{i}", 1.0) for i in range(5)], shown=4)) == 5  # a row for one says its name


def test_a_mean_is_over_the_runs_that_count() -> None:
    """The slower first run of a session is left out, and so are events that are not kernels of a node."""
    kernel = {
        "cat": "Node",
        "name": "conv_kernel_time",
        "args": {"op_name": "Conv", "provider": "CPUExecutionProvider"},
    }
    events = [{**kernel, "dur": duration} for duration in (90_000, 2000, 4000)]
    events += [{"cat": "Session", "name": "model_run", "dur": 5}, {**kernel, "name": "conv_fence_before", "dur": 7}]
    (found,) = nodes(events, 2)
    assert found == ("conv", "Conv", 3.0, "CPUExecutionProvider")


def test_onnx_runtime_tells_every_node(tmp_path: Path) -> None:
    bundle = write_tanh_bundle(tmp_path, classes=10)
    record = bench(bundle, "host", tmp_path / "run", PLAN)
    assert record.operators is not None
    assert {(o.name, o.kind) for o in record.operators} >= {("tanh", "Tanh"), ("mul", "Mul")}
    assert {o.backend for o in record.operators} == {"CPUExecutionProvider"}
    assert all(0 <= o.milliseconds < 1000 for o in record.operators)
    assert "operators" not in record.missing


def test_torch_tells_every_kind(tmp_path: Path, tiny_checkpoint: Path) -> None:
    record = bench(tiny_checkpoint, "server", tmp_path / "run", PLAN)
    assert record.operators is not None
    assert record.latency_ms is not None
    times = {o.kind: o.milliseconds for o in record.operators}
    assert any("conv" in kind for kind in times)
    assert any("group_norm" in kind for kind in times)
    # Own times, each counted once: together no more than an inference, which profiling slows several times over
    assert sum(times.values()) < 20 * np.median(record.latency_ms)


@pytest.mark.parametrize(
    ("times", "starts", "text"),
    [
        ([1.0] * 100 + [2.0] * 100, 1, "1.00 ms in the first tenth of runs, 2.00 ms in the last (2.00×)"),
        ([1.0] * 100 + [2.0] * 100, 2, None),  # the last runs are the last of a second start
        ([1.0] * 99, 1, None),  # too few
    ],
)
def test_first_and_sustained_latency(tmp_path: Path, times: list[float], starts: int, text: str | None) -> None:
    run = read_bench_run(write_run(tmp_path / "run"))
    record = run.record.model_copy(update={"latency_ms": tuple(times), "starts": starts})
    assert dict(facts(dataclasses.replace(run, record=record))).get("Start and end") == text
