"""The Android harness seen from Python: its build files, and runs that both sides agree on.

`make test-android` builds the harness's Kotlin core and sets RDD_EDGE_ANDROID_TESTS; without it the runs are skipped.
"""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from bundles import write_fake_bundle
from devices import tanh

import rdd_edge
from rdd_edge.benchmarking import android
from rdd_edge.benchmarking.run import read_bench_run
from rdd_edge.bundle import MANIFEST, AccuracyPlan, Manifest, PerformancePlan, Plan, read_bundle
from rdd_edge.exporting.harness import add_harness
from rdd_edge.files import sha256_of, write_model
from rdd_edge.portable import noise

ROOT = Path(__file__).parent.parent.parent
HARNESS = Path(rdd_edge.__file__).parent / "targets" / "android" / "harness"
BUILT = os.environ.get("RDD_EDGE_ANDROID_TESTS")
needs_build = pytest.mark.skipif(not BUILT, reason="the harness is built and run by `make test-android`")
PLAN = Plan(
    performance=PerformancePlan(warmup=1, runs=5, seconds=0),
    accuracy=AccuracyPlan(samples=70, seed=2**63 + 5, floats=10),
    threads=1,
)


def test_gradle_and_maven_name_the_same_versions() -> None:
    versions = (HARNESS / "gradle" / "libs.versions.toml").read_text().split("[libraries]")[0]
    catalog = dict(re.findall(r'^(\w+) = "([^"]+)"$', versions, re.MULTILINE))
    pom = (ROOT / "tests" / "android" / "pom.xml").read_text()
    maven = dict(re.findall(r"<(\w+)\.version>([^<]+)</", pom))
    shared = set(catalog) & set(maven)
    assert shared >= {"kotlin", "serialization"}
    assert {name: catalog[name] for name in shared} == {name: maven[name] for name in shared}


def test_executorchs_classes_are_fetched_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(ROOT / "tests" / "android" / "fetch_classes.py"))
    package, jar = tmp_path / "package.tgz", tmp_path / "folder" / "executorch.jar"
    write_classes, url = script["write_classes"], package.as_uri()
    write_classes(jar, url)
    assert "is not compiled against ExecuTorch's own classes: file:" in capsys.readouterr().out
    with tarfile.open(package, "w:gz") as archive:
        info = tarfile.TarInfo(script["MEMBER"])
        info.size = 7
        archive.addfile(info, io.BytesIO(b"classes"))
    with pytest.raises(SystemExit, match="is not the package with ExecuTorch's classes"):
        write_classes(jar, url)
    assert not jar.exists()
    write_classes(jar, url, sha256_of(package))
    assert jar.read_bytes() == b"classes"
    write_classes(jar, "file:///nowhere")
    os.utime(jar, (0, 0))  # older than the script, whose package may have changed
    with pytest.raises(SystemExit):
        write_classes(jar, url)


def test_the_app_takes_what_a_manifest_promises() -> None:
    from rdd_edge.targets.android.lower import ARCHITECTURES, LEAST_API, LIBRARIES

    build = (HARNESS / "app" / "build.gradle.kts").read_text()
    assert re.search(rf"minSdk = {LEAST_API}\b", build)
    assert re.search(r"abiFilters \+= listOf\((.*)\)", build)[1] == ", ".join(f'"{name}"' for name in ARCHITECTURES)  # type: ignore[index]
    assert f'module = "{LIBRARIES["vulkan"]}"' in (HARNESS / "gradle" / "libs.versions.toml").read_text()


def test_the_core_uses_nothing_of_android() -> None:
    sources = [path.read_text() for path in (HARNESS / "core").rglob("*.kt")]
    assert len(sources) >= 5
    imported = {name for text in sources for name in re.findall(r"^import (\S+)", text, re.MULTILINE)}
    assert {name.split(".")[0] for name in imported} <= {"java", "kotlin", "kotlinx"}


@pytest.mark.parametrize(("module", "most"), [("core", 800), ("app", 500)])
def test_it_stays_small_enough_to_be_copied(module: str, most: int) -> None:
    """In lines of code: neither blank lines nor comments count, so that nobody saves on those."""
    text = "".join(path.read_text() for path in (HARNESS / module / "src").rglob("*.kt"))
    code = [line for line in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).splitlines() if line.strip()]
    assert 100 < sum(not line.lstrip().startswith("//") for line in code) <= most


def test_the_driver_and_the_app_name_the_same_folders() -> None:
    """The tests that run the app give it the simulated phone's; BenchmarkActivityTest has one with the app's own."""
    activity = next(HARNESS.rglob("BenchmarkActivity.kt")).read_text()
    assert f'val inbox = File("{android.INBOX}")' in activity
    assert f'const val TAG = "{android.TAG}"' in activity
    assert f'applicationId = "{android.PACKAGE}"' in (HARNESS / "app" / "build.gradle.kts").read_text()


def test_a_bundle_does_not_carry_the_app(tmp_path: Path) -> None:
    add_harness("android", tmp_path)
    names = {path.name for path in (tmp_path / "harness").iterdir()}
    assert names == {"bench.py", "executorch_runtime.py", "rdd_edge"}  # for a Linux board


def run(bundle: Path, out: Path, plan: Plan | None = PLAN, least: float = 80.0) -> subprocess.CompletedProcess[str]:
    """A run of the Kotlin core in a JVM, its runtime one that computes tanh."""
    assert BUILT
    built = ROOT / BUILT
    path = [str(built / "classes"), str(built / "test-classes"), (built / "classpath.txt").read_text()]
    planned = bundle.parent / "plan.json"
    if plan is not None:
        write_model(planned, plan)
    command = ["java", "-cp", os.pathsep.join(path), "org.rddedge.core.ExchangeKt"]
    command += [str(bundle), "-" if plan is None else str(planned), str(out), str(least)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@needs_build
@pytest.mark.parametrize(
    ("batch", "classes", "channels", "seed"),
    [(1, None, 1, 2**63 + 5), (4, 10, 3, 0), (8, None, 3, 2**64 - 1)],
)
def test_its_run_is_one_of_ours(tmp_path: Path, batch: int, classes: int | None, channels: int, seed: int) -> None:
    bundle = write_fake_bundle(tmp_path, batch=batch, classes=classes, channels=channels, target="android")
    accuracy = AccuracyPlan(samples=70, seed=seed, floats=10)
    plan = PLAN.model_copy(update={"accuracy": accuracy})
    done = run(bundle, tmp_path / "out", plan, least=0.0 if classes else 80.0)
    assert done.returncode == 0, done.stderr
    found = read_bench_run(tmp_path / "out")
    assert found.plan == plan
    x = tanh(range(70), (channels, 8, 8), seed, classes)
    assert (tmp_path / "out" / "samples.u8").read_bytes() == noise.to_uint8(x).tobytes()
    np.testing.assert_allclose(found.floats(), x[:10].transpose(0, 2, 3, 1), rtol=0, atol=1e-6)
    record, ours = found.record, read_bundle(bundle)
    assert (record.target, record.precision, record.where, record.batch) == ("android", "fp32", "host", batch)
    assert (record.bundle_sha256, record.artifact_bytes) == (ours.sha256, ours.artifact_bytes)
    assert record.latency_ms is not None
    assert len(record.latency_ms) == plan.performance.runs
    assert [one.when for one in record.conditions or ()] == ["before", "during", "after"]
    test = json.loads((tmp_path / "out" / "selftest.json").read_text())
    assert test["samples"] == 2
    assert classes is not None or test["psnr_db"] > 120


@needs_build
def test_it_takes_the_bundles_own_plan_and_every_field_of_a_manifest(tmp_path: Path) -> None:
    bundle = write_fake_bundle(tmp_path)
    manifest = json.loads((bundle / MANIFEST).read_text())
    assert set(manifest) == set(Manifest.model_fields)
    done = run(bundle, tmp_path / "out", plan=None)
    assert done.returncode == 0, done.stderr
    assert read_bench_run(tmp_path / "out").plan == read_bundle(bundle).manifest.default_plan


@needs_build
def test_what_it_refuses_is_an_error_of_ours(tmp_path: Path) -> None:
    from rdd_edge import errors

    bundle = write_fake_bundle(tmp_path)
    (bundle / "model.fake").write_text("another")
    done = run(bundle, tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["error.json"]
    error = json.loads((tmp_path / "out" / "error.json").read_text())
    assert error["sentence"] == done.stderr.strip()
    assert error["sentence"].isprintable()
    assert error["kind"] == "CorruptError"
    kinds = re.findall(r'^    [A-Z]+\("(\w+)"\)', next(HARNESS.rglob("Errors.kt")).read_text(), re.MULTILINE)
    assert len(kinds) >= 5
    assert set(kinds) <= set(errors.__all__)
