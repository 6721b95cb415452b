"""An Android bundle on a Linux board: its harness in a process of its own, with nothing of rdd-edge's dependencies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from boards import run_harness
from tanh_pte import write_tanh_bundle

from rdd_edge.benchmarking.bench import bench
from rdd_edge.benchmarking.returned import SelfTest
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import AccuracyPlan, PerformancePlan, Plan, read_bundle
from rdd_edge.reading.documents import read_model

pytest.importorskip("executorch")
PLAN = Plan(
    performance=PerformancePlan(warmup=1, runs=5, seconds=0, starts=1),
    accuracy=AccuracyPlan(samples=70, seed=5, floats=10),
    threads=1,
)
OURS = ("pydantic", "diffusers", "rich", "typer")


def run(bundle: Path, out: Path, *more: str, without: tuple[str, ...] = OURS) -> subprocess.CompletedProcess[str]:
    return run_harness(bundle, out, *more, plan=PLAN, without=without)


def test_its_run_is_that_of_the_host(tmp_path: Path) -> None:
    bundle = write_tanh_bundle(tmp_path, classes=3)
    done = run(bundle, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    mine = read_bench_run(tmp_path / "out")
    bench(bundle, "host", tmp_path / "host", PLAN)
    host = read_bench_run(tmp_path / "host")
    np.testing.assert_array_equal(mine.images(), host.images())
    np.testing.assert_array_equal(mine.floats(), host.floats())
    for name in ("target", "bundle_sha256", "checkpoint_sha256", "runtime", "batch", "artifact_bytes", "device"):
        assert getattr(mine.record, name) == getattr(host.record, name), name
    assert (mine.record.where, mine.plan) == ("device", PLAN)
    assert mine.record.latency_ms is not None and len(mine.record.latency_ms) == 5
    read_bundle(bundle)  # which the run has left as it was


def test_it_compares_its_images_with_the_students(tmp_path: Path) -> None:
    bundle = write_tanh_bundle(tmp_path)
    assert run(bundle, tmp_path / "out", "--min-psnr", "80").returncode == 0
    test = read_model(tmp_path / "out" / "selftest.json", SelfTest)
    assert test.psnr_db > 80 and test.threshold_db == 80
    done = run(bundle, tmp_path / "other", "--min-psnr", "999")
    assert done.returncode == 8
    assert "its kernels compute something else" in done.stderr.splitlines()[-1]  # after the runtime's own messages


def test_a_board_without_the_runtime_is_told_how_to_get_it(tmp_path: Path) -> None:
    done = run(write_tanh_bundle(tmp_path), tmp_path / "out", without=("executorch",))
    assert (done.returncode, done.stderr) == (
        6,
        "this bundle needs ExecuTorch, which cannot be imported (executorch is not on this board): "
        "python3 -m pip install executorch==7.0\n",
    )


def test_a_backend_that_the_wheel_lacks_is_a_sentence(tmp_path: Path) -> None:
    done = run(write_tanh_bundle(tmp_path, backend="vulkan"), tmp_path / "out")
    assert done.returncode == 2
    assert "vulkan backend, which its wheel for Linux does not have" in done.stderr
