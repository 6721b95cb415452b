"""The core of the iOS harness seen from Python: runs that both sides agree on.

RDD_EDGE_IOS_HARNESS is the command line of the executable `harness` of tests/ios/core; without it the runs are skipped.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_fake_bundle
from devices import tanh

import rdd_edge
from rdd_edge import errors
from rdd_edge.benchmarking.returned import check_run
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import MANIFEST, AccuracyPlan, Manifest, PerformancePlan, Plan, read_bundle
from rdd_edge.files import write_model
from rdd_edge.portable import noise

CORE = Path(rdd_edge.__file__).parent / "targets" / "ios" / "harness" / "Core"
HARNESS = os.environ.get("RDD_EDGE_IOS_HARNESS")
needs_build = pytest.mark.skipif(not HARNESS, reason="RDD_EDGE_IOS_HARNESS names no executable of tests/ios/core")
OUT = "driver/run-0123456789abcdef"
PLAN = Plan(
    performance=PerformancePlan(warmup=1, runs=5, seconds=0),
    accuracy=AccuracyPlan(samples=70, seed=2**63 + 5, floats=10),
    threads=1,
)


def test_the_core_imports_foundation_and_cryptokit_only() -> None:
    sources = [path.read_text() for path in CORE.rglob("*.swift") if path.name != "Package.swift"]
    assert len(sources) >= 5
    imported = {name for text in sources for name in re.findall(r"^\s*(?:@\w+ )*import (.+)", text, re.MULTILINE)}
    assert imported == {"Foundation", "CryptoKit"}


def test_its_errors_are_ours() -> None:
    source = (CORE / "Sources" / "HarnessCore" / "Errors.swift").read_text()
    kinds = re.findall(r'^    case \w+ = "(\w+)"', source, re.MULTILINE)
    assert len(kinds) >= 5
    assert set(kinds) <= set(errors.__all__)


def run(root: Path, plan: Plan | None = PLAN, *arguments: str, **environment: str) -> list[str]:
    """The lines of a driven run of root/driver/bundle without their prefix; the harness is ended after the last one."""
    assert HARNESS
    command = [*shlex.split(HARNESS), "--bundle", "driver/bundle", "--out", OUT, *arguments]
    if plan is not None:
        write_model(root / "driver" / "plan.json", plan)
        command += ["--plan", "driver/plan.json"]
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HARNESS_ROOT": str(root), **environment}
    ) as process:
        assert process.stdout
        for line in process.stdout:
            assert line.startswith("rdd-edge: ")
            lines.append(line.removeprefix("rdd-edge: ").rstrip("\n"))
            if lines[-1].split()[0] in ("done", "error"):
                process.kill()
    return lines


def bundle_in(root: Path, **options: Any) -> Path:
    return write_fake_bundle(root / "driver", target="ios", backend="coreml", **options)


@needs_build
@pytest.mark.parametrize(
    ("batch", "classes", "channels", "seed"),
    [(1, None, 1, 2**63 + 5), (4, 10, 3, 0), (8, None, 3, 2**64 - 1)],
)
def test_its_run_is_one_of_ours(tmp_path: Path, batch: int, classes: int | None, channels: int, seed: int) -> None:
    bundle = bundle_in(tmp_path, batch=batch, classes=classes, channels=channels)
    plan = PLAN.model_copy(update={"accuracy": AccuracyPlan(samples=70, seed=seed, floats=10)})
    lines = run(tmp_path, plan, "--bundle-sha256", read_bundle(bundle).sha256)
    assert re.fullmatch(r"done \d+\.\d{3} ms median, \d+\.\d dB from the student", lines[-1])
    stages = " ".join(name for name, _ in itertools.groupby(line.split()[0] for line in lines))
    assert stages == "check verify build load first verify load warmup time samples check publish done"
    out, ours = tmp_path / OUT, read_bundle(bundle)
    record, test = check_run(out, ours, plan, "a simulated iPhone")
    assert record.where == "device"
    found = read_bench_run(out)
    x = tanh(range(70), (channels, 8, 8), seed, classes)
    assert (out / "samples.u8").read_bytes() == noise.to_uint8(x).tobytes()
    np.testing.assert_allclose(found.floats(), x[:10].transpose(0, 2, 3, 1), rtol=0, atol=1e-6)
    assert record.artifact_bytes == ours.artifact_bytes
    assert record.latency_ms is not None
    assert len(record.latency_ms) == plan.performance.runs
    assert record.build_ms is not None
    assert record.build_ms >= 0
    assert "Core ML" in record.missing["compiled_before"]
    assert [one.when for one in record.conditions or ()] == ["before", "during", "after"]
    assert test.samples == 2
    assert classes is not None or test.psnr_db > 120


@needs_build
def test_it_takes_the_bundles_own_plan_and_every_field_of_a_manifest(tmp_path: Path) -> None:
    bundle = bundle_in(tmp_path)
    manifest = json.loads((bundle / MANIFEST).read_text())
    assert set(manifest) == set(Manifest.model_fields)
    assert run(tmp_path, None)[-1].startswith("done ")
    assert read_bench_run(tmp_path / OUT).plan == read_bundle(bundle).manifest.default_plan


@needs_build
def test_what_it_refuses_is_an_error_of_ours(tmp_path: Path) -> None:
    bundle = bundle_in(tmp_path)
    (bundle / "model.fake").write_text("another")
    (tmp_path / "driver" / "run-fedcba9876543210").mkdir()
    lines = run(tmp_path)
    assert [path.name for path in (tmp_path / OUT).iterdir()] == ["error.json"]
    error = json.loads((tmp_path / OUT / "error.json").read_text())
    assert lines[-1] == f"error CorruptError {error['sentence']}"
    assert error["sentence"].isprintable()
    assert error["kind"] == "CorruptError"
    assert sorted(path.name for path in (tmp_path / "driver").iterdir()) == ["bundle", "plan.json", OUT.split("/")[1]]
    assert run(tmp_path, PLAN, "--out", "../elsewhere") == ["error UsageError --out is given twice"]


@needs_build
@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("throw", "error ArtifactError fakert 7.0 cannot run "),
        ("hang", "error ArtifactError there was no progress for 1.5 s in stage verify"),
        ("swap", "error ThresholdError fakert 7.0 is "),
        ("crash", "verify "),  # and the end of the process
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, fault: str, end: str) -> None:
    bundle_in(tmp_path, channels=3)
    lines = run(tmp_path, PLAN, "--stall-seconds", "1.5", "--min-psnr-db", "80", HARNESS_FAULT=fault)
    assert lines[-1].startswith(end)
    assert (tmp_path / OUT / "error.json").exists() == (fault != "crash")


CHILD = """
import math, sys
import numpy as np
artifact, threads, labels = sys.argv[1], sys.argv[2], int(sys.argv[4])
shape = tuple(map(int, sys.argv[3].split(",")))
assert open(artifact).read() == "fine" and threads == "1"
read, out, runs = sys.stdin.buffer.read, sys.stdout.buffer, 0
while command := read(1):
    if command == b"l":
        out.write(b"r")
    else:
        runs += 1
        if runs == {last}:
            sys.exit()
        x = np.tanh(np.frombuffer(read(4 * math.prod(shape)), "<f4")).reshape(shape[0], -1)
        label = np.frombuffer(read(8 * labels), "<i8")[:, None] if labels else 10
        out.write((x * (label / np.float32(10))).astype("<f4").tobytes())
    out.flush()
"""


@needs_build
@pytest.mark.parametrize("last", [0, 6])
def test_a_child_process_runs_the_artifact(tmp_path: Path, last: int) -> None:
    bundle_in(tmp_path, batch=4, classes=10, channels=3)
    (tmp_path / "child.py").write_text(CHILD.replace("{last}", str(last)))
    lines = run(tmp_path, HARNESS_CHILD=shlex.join([sys.executable, str(tmp_path / "child.py")]))
    if last:
        assert re.fullmatch(r"error ArtifactError .* cannot run .*model.fake: the child process has ended", lines[-1])
    else:
        assert lines[-1].startswith("done ")
        x = tanh(range(70), (3, 8, 8), 2**63 + 5, 10)
        found = np.frombuffer((tmp_path / OUT / "samples.u8").read_bytes(), np.uint8).astype(int)
        assert abs(found - noise.to_uint8(x).ravel()).max() <= 1
