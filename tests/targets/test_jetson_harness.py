"""The harness as a board would run it: a process of its own, with NumPy and a runtime and nothing of rdd-edge's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import run_harness
from tanh_onnx import write_tanh_bundle

import rdd_edge.schemas
import rdd_edge.targets
from rdd_edge.benchmarking.bench import bench
from rdd_edge.benchmarking.returned import SelfTest
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import MANIFEST, AccuracyPlan, PerformancePlan, Plan, read_bundle
from rdd_edge.files import sha256_of
from rdd_edge.portable import noise
from rdd_edge.portable.plan import RANGES
from rdd_edge.portable.psnr import psnr_per_image
from rdd_edge.reading.documents import read_model

PLAN = Plan(
    performance=PerformancePlan(warmup=1, runs=5, seconds=0),
    accuracy=AccuracyPlan(samples=70, seed=2**63 + 5, floats=10),
    threads=1,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tanh_bundle(tmp_path)


def run(bundle: Path, out: Path, *more: str, plan: Plan | dict[str, Any] = PLAN) -> subprocess.CompletedProcess[str]:
    bare = ("pydantic", "torch", "diffusers", "rich", "typer")
    return run_harness(bundle, out, "--runtime", "onnxruntime", *more, plan=plan, without=bare)


def test_its_run_is_that_of_the_host(tmp_path: Path, bundle: Path) -> None:
    done = run(bundle, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    mine = read_bench_run(tmp_path / "out")
    bench(bundle, "host", tmp_path / "host", PLAN)
    host = read_bench_run(tmp_path / "host")
    assert mine.plan == host.plan == PLAN
    np.testing.assert_array_equal(mine.images(), host.images())
    np.testing.assert_array_equal(mine.floats(), host.floats())
    x = np.tanh(noise.normals(2**63 + 5, range(70), (1, 8, 8)))
    np.testing.assert_allclose(mine.floats(), x[:10].transpose(0, 2, 3, 1), atol=1e-6)
    same = ("target", "precision", "bundle_sha256", "checkpoint_sha256", "runtime", "batch", "artifact_bytes", "device")
    for name in same:
        assert getattr(mine.record, name) == getattr(host.record, name), name
    assert mine.record.where == "device"
    assert mine.record.latency_ms is not None
    assert len(mine.record.latency_ms) == 5
    assert mine.record.peak_memory_bytes is not None


def test_it_compares_its_images_with_the_students(tmp_path: Path, bundle: Path) -> None:
    x = np.fromfile(bundle / "parity/x.f32", "<f4").reshape(2, 1, 8, 8)
    x[1] += 0.1
    x.tofile(bundle / "parity/x.f32")
    rehash(bundle, "parity/x.f32")
    done = run(bundle, tmp_path / "out", "--min-psnr", "45")
    assert done.returncode == 0, done.stderr
    test = read_model(tmp_path / "out" / "selftest.json", SelfTest)
    images = np.tanh(np.fromfile(bundle / "parity/z.f32", "<f4").reshape(x.shape))
    expected = psnr_per_image(images, x, 2.0)
    assert test.worst_psnr_db == pytest.approx(expected.min(), abs=0.01) == pytest.approx(26.0, abs=0.1)
    assert (test.samples, test.threshold_db) == (2, 45.0)
    assert test.psnr_db > 45 and test.noise_max_difference <= 1e-6
    x[0] += 0.1
    x.tofile(bundle / "parity/x.f32")
    rehash(bundle, "parity/x.f32")
    done = run(bundle, tmp_path / "other", "--min-psnr", "45")
    assert (done.returncode, done.stderr.count("\n")) == (8, 1)
    assert "images are 26.0 dB from the student's (median of 2), and they have to reach 45 dB" in done.stderr
    assert not (tmp_path / "other").exists()
    assert run(bundle, tmp_path / "other").returncode == 0  # measured, and nothing required


def test_progress_is_a_line_a_stage(tmp_path: Path, bundle: Path) -> None:
    told = [json.loads(line) for line in run(bundle, tmp_path / "out").stdout.splitlines()]
    assert [t["stage"] for t in told][:2] == ["load", "first"]
    assert told[-1] == {"stage": "done", "done": 5}


def test_it_leaves_the_bundle_as_it_was(tmp_path: Path, bundle: Path) -> None:
    assert run(bundle, tmp_path / "out").returncode == 0
    read_bundle(bundle)
    assert not list(bundle.rglob("__pycache__"))
    done = run(bundle, bundle / "orin")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "orin is inside the bundle" in done.stderr
    assert read_bundle(bundle)


def test_it_replaces_a_benchmark_run_and_nothing_else(tmp_path: Path, bundle: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    assert run(bundle, precious).returncode == 0  # an empty folder
    assert run(bundle, precious).returncode == 0  # an earlier benchmark run
    (precious / "chapter 1.txt").write_text("It was a dark and stormy night.")
    done = run(bundle, precious)
    holds = f"{precious} holds 'chapter 1.txt', which is not part of a benchmark run: choose another --out\n"
    assert (done.returncode, done.stderr) == (2, holds)
    (precious / "chapter 1.txt").unlink()
    for record in ('{"artist": "Miles Davis"}', "no document"):
        (precious / "record.json").write_text(record)
        for out in (precious, tmp_path / "plan.json"):
            done = run(bundle, out)
            is_not = f"{out} exists and is not a benchmark run: choose another --out\n"
            assert (done.returncode, done.stderr) == (2, is_not)
    assert (precious / "samples.u8").is_file()


def test_it_names_a_foreign_file_and_ignores_a_systems(tmp_path: Path, bundle: Path) -> None:
    (bundle / ".DS_Store").write_text("x")
    assert run(bundle, tmp_path / "out").returncode == 0
    (bundle / "harness" / "notes.txt").write_text("x")
    done = run(bundle, tmp_path / "out")
    assert done.returncode == 4
    assert "harness/notes.txt is foreign" in done.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"runs": 3}, "runs is unknown; the keys are schema_version, performance, accuracy, threads"),
        ({"performance": {"rnus": 3}}, "performance.rnus is unknown; the keys are warmup, runs, seconds"),
        ({"performance": 3}, "performance must hold warmup, runs, seconds"),
        ({"performance": {"runs": "3"}}, "performance.runs must be a whole number from 1 to 10000000"),
        ({"performance": {"seconds": -1}}, "performance.seconds must be a number from 0 to 86400"),
        ({"accuracy": {"samples": 1.5}}, "accuracy.samples must be a whole number from 0 to 10000000"),
        ({"threads": True}, "threads must be a whole number from 1 to 1024"),
        ({"\x1b[31m": 1}, "?[31m is unknown"),
    ],
    ids=["key", "key below", "no section", "text", "negative", "fraction", "truth", "control"],
)
def test_a_plan_written_by_hand_is_checked(
    tmp_path: Path, bundle: Path, change: dict[str, object], sentence: str
) -> None:
    done = run(bundle, tmp_path / "out", plan={"schema_version": 1, **change})
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert f"plan.json is not a plan: {sentence}" in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_a_plan_lacks_is_the_bundles(tmp_path: Path, bundle: Path) -> None:
    done = run(bundle, tmp_path / "out", plan={"schema_version": 1, "performance": {"runs": 6}})
    assert done.returncode == 0, done.stderr
    default = read_bundle(bundle).manifest.default_plan
    mine = read_bench_run(tmp_path / "out")
    assert mine.plan == default.changed(runs=6)
    assert mine.record.latency_ms is not None
    assert len(mine.record.latency_ms) == 6


def test_the_ranges_of_a_plan_are_those_of_its_schema() -> None:
    schema = json.loads((Path(rdd_edge.schemas.__path__[0]) / "plan.json").read_text())

    def ranges(section: dict[str, Any], prefix: str = "") -> dict[str, tuple[float, float]]:
        found = {}
        for name, about in section["properties"].items():
            if "$ref" in about:
                found |= ranges(schema["$defs"][about["$ref"].rpartition("/")[2]], f"{name}.")
            else:
                high = about.get("maximum", about.get("exclusiveMaximum", 0) - 1)
                found[prefix + name] = (about["minimum"], high)
        return found

    assert ranges(schema) == RANGES


def rehash(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = sha256_of(bundle / name)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["model.fake", "parity/x.f32", "harness/rdd_edge/portable/noise.py"])
def test_it_refuses_a_changed_file(tmp_path: Path, bundle: Path, name: str) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes() + b"\n")
    done = run(bundle, tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert f"{name} is not the file its manifest names" in done.stderr
    assert not (tmp_path / "out").exists()


def test_it_refuses_other_noise(tmp_path: Path, bundle: Path) -> None:
    z = np.fromfile(bundle / "parity/z.f32", "<f4")
    z[5] += 1e-5
    z.tofile(bundle / "parity/z.f32")
    rehash(bundle, "parity/z.f32")
    done = run(bundle, tmp_path / "out")
    assert done.returncode == 8
    assert "the noise self-test failed" in done.stderr


def test_it_refuses_other_rounding(tmp_path: Path, bundle: Path) -> None:
    path = bundle / "contract" / "rounding.json"
    path.write_text(path.read_text().replace('"pixel":255', '"pixel":254'))
    rehash(bundle, "contract/rounding.json")
    done = run(bundle, tmp_path / "out")
    assert done.returncode == 8
    assert "this machine computes other rounding, case " in done.stderr


def test_it_refuses_another_bundle_or_version(tmp_path: Path, bundle: Path) -> None:
    done = run(bundle, tmp_path / "out", "--expect", "0" * 64)
    assert done.returncode == 4
    assert "is not the expected bundle" in done.stderr
    document = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**document, "schema_version": 9}))
    done = run(bundle, tmp_path / "out")
    assert done.returncode == 4
    assert "does not have schema version 1" in done.stderr


def test_an_artifact_that_does_not_load_is_a_sentence(tmp_path: Path, bundle: Path) -> None:
    (bundle / "model.fake").write_bytes(b"not a graph")
    rehash(bundle, "model.fake")
    done = run(bundle, tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (8, 1)
    assert done.stderr.startswith("ONNX Runtime cannot load ")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_second_load_finds_the_first_released(bundle: Path) -> None:
    import onnxruntime

    from rdd_edge.targets.jetson.harness.onnx_runtime import OnnxRuntime

    runner, held = OnnxRuntime(onnxruntime, bundle / "model.fake", 1), []
    opened = runner._open
    runner._open = lambda model: held.append(runner._session) or opened(model)  # type: ignore[method-assign]
    runner.load()
    runner.load()
    assert held == [None, None]
    assert runner._session is not None
