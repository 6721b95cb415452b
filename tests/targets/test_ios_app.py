"""The iOS app against stand-ins of Apple's frameworks: its own tests, and whole runs as a driver starts them.

`make test-ios` sets RDD_EDGE_IOS_HARNESS; without it nothing is compiled. Core ML's stand-in computes tanh(z).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_fake_bundle

from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import MANIFEST, read_bundle
from rdd_edge.portable import noise

pytestmark = pytest.mark.skipif(
    "RDD_EDGE_IOS_HARNESS" not in os.environ, reason="the app is compiled and run by `make test-ios`"
)
PACKAGE = Path(__file__).parent.parent / "ios" / "app"
SWIFT = ["sh", str(PACKAGE.parent / "swift.sh")]
APP = PACKAGE / ".build" / "debug" / "HarnessApp"


def write_bundle(parent: Path, name: str, word: str = "", least: str = "1", units: str = "all", **kinds: Any) -> Path:
    """A bundle for the ios target, as the exporter writes its manifest. Linux takes the kernel's version for iOS's."""
    folder = write_fake_bundle(parent, word or name, name=name, target="ios", backend="coreml", **kinds)
    manifest = json.loads((folder / MANIFEST).read_text())
    needs = {"runtime": {"name": "Core ML specification", "least": "8", "below": None}}
    needs |= {"system": {"name": "iOS", "least": least, "below": None}, "compute_units": units}
    manifest["needs"] |= needs
    if manifest["label"]:
        manifest["label"]["dtype"] = "int32"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    read_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Below the project, since Swift may run in a root of its own, where nothing else is the same."""
    folder = PACKAGE / ".build" / "pytest"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def test_the_apps_own_tests(folder: Path) -> None:
    for name in ("plain", "float16", "narrow", "broken"):
        write_bundle(folder, name)
    write_bundle(folder, "padded", units="cpuAndNeuralEngine")
    write_bundle(folder, "newer", least="17.4")
    write_bundle(folder, "labels", batch=2, classes=10, channels=3)
    environment = {**os.environ, "RDD_EDGE_IOS_BUNDLES": str(folder)}
    command = [*SWIFT, "swift", "test"]
    result = subprocess.run(
        command, cwd=PACKAGE, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    executed = re.findall(r"Executed (\d+) tests, with", result.stdout + result.stderr)
    assert executed and int(executed[-1]) >= 18 and "skipped" not in result.stdout


def drive(root: Path, *arguments: str) -> list[str]:
    """Start the app as a driver does, and end it after its last line. Returns its lines. `root` is its Documents."""
    command, environment = [*SWIFT, str(APP), *arguments], {**os.environ, "HARNESS_ROOT": str(root)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            assert line.startswith("rdd-edge: ")
            lines.append(line.removeprefix("rdd-edge: ").rstrip("\n"))
            if lines[-1].startswith(("done ", "error ")):
                break
        assert process.poll() is None  # a driven run does not end the app
        process.kill()
    return lines


@pytest.mark.parametrize(("word", "channels", "batch"), [("plain", 3, 4), ("padded", 1, 1)])
def test_a_driven_run_is_a_bench_run(folder: Path, word: str, channels: int, batch: int) -> None:
    root = folder / f"root-{word}"
    bundle = write_bundle(root / "driver", "bundle", word, channels=channels, batch=batch)
    sha256 = read_bundle(bundle).sha256
    out = "driver/run-0123456789abcdef"
    arguments = ("--bundle", "driver/bundle", "--bundle-sha256", sha256, "--out", out, "--min-psnr-db", "80")
    lines = drive(root, *arguments)
    assert re.fullmatch(r"done \d+\.\d{3} ms median, \d+\.\d dB from the student", lines[-1]), lines
    stages = list(dict.fromkeys(line.split()[0] for line in lines))
    assert stages[:4] == ["check", "verify", "build", "load"] and {"time", "samples"} < set(stages)
    run = read_bench_run(root / out)
    assert run.record.bundle_sha256 == sha256
    assert (run.record.runtime.name, run.record.runtime.backend) == ("coreml", "all compute units")
    assert (run.record.where, run.record.batch) == ("device", batch)
    x = np.tanh(noise.normals(3, range(70), (channels, 8, 8)).astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(run.floats(), x[:10].transpose(0, 2, 3, 1), rtol=0, atol=1e-6)
    samples = np.fromfile(run.folder / "samples.u8", dtype=np.uint8)
    assert np.abs(samples - noise.to_uint8(x).reshape(-1).astype(int)).max() <= 1  # tanh in float32 may round otherwise


def test_a_driven_run_that_fails_says_so(folder: Path) -> None:
    root = folder / "root"
    write_bundle(root / "driver", "bundle", least="99.1")
    lines = drive(root, "--bundle", "driver/bundle", "--out", "driver/run-0123456789abcdef")
    assert lines[-1].startswith("error ArtifactError ") and "needs iOS 99.1, and this is iOS " in lines[-1]
    [error] = (root / "driver" / "run-0123456789abcdef").iterdir()
    assert json.loads(error.read_text())["kind"] == "ArtifactError"
    assert drive(root, "--bundle", "/etc", "--out", "driver/x")[-1].startswith(
        "error UsageError --bundle is not a path"
    )
