"""The saved .pte on ARM's kernels under emulation: parity on two CPU models, planted faults, and missing tools.

All that needs a bundle is marked arm64: `make test-arm64`.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdd_edge.benchmarking.verify import verify_bundle, verify_emulated
from rdd_edge.bundle import read_bundle
from rdd_edge.errors import ArtifactError, CorruptError, DependencyError, ThresholdError, UsageError
from rdd_edge.files import tree_sha256, write_model
from rdd_edge.targets.android.arm64 import CPU_MODELS, native_runner, sdk, toolchain
from rdd_edge.targets.android.arm64.runner import ProcessRunner
from rdd_edge.targets.base import ExportSpec

IMAGES = 4
needs_tools = pytest.mark.skipif(
    not (shutil.which("qemu-aarch64-static") and shutil.which("aarch64-linux-gnu-g++")),
    reason="needs qemu-aarch64-static and aarch64-linux-gnu-g++: make test-arm64 installs them",
)
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++ to build the runner for this machine")


def tools(test: Callable[..., None]) -> Callable[..., None]:
    """Runs an artifact on an emulated CPU model."""
    return pytest.mark.arm64(needs_tools(test))


def native(test: Callable[..., None]) -> Callable[..., None]:
    """Runs an artifact in the same runner, built for this machine."""
    return pytest.mark.arm64(needs_compiler(test))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, tiny_conditional_checkpoint: Path) -> dict[str, Path]:
    """Of a network with 10 classes, so that labels cross as well."""
    from rdd_edge.exporting.pipeline import export_bundles

    out = tmp_path_factory.mktemp("bundles")
    made = [export_bundles(tiny_conditional_checkpoint, ("android",), name, out) for name in ("fp32", "fp16", "int8")]
    return {bundle.manifest.precision: bundle.folder for (bundle,) in made}


def altered(bundle: Path, to: Path, file: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy with one file changed and the manifest's hashes made to fit."""
    shutil.copytree(bundle, to)
    (to / file).write_bytes(change((to / file).read_bytes()))
    files = {name: digest for name, digest in tree_sha256(to).items() if name != "manifest.json"}
    write_model(to / "manifest.json", read_bundle(bundle).manifest.model_copy(update={"files": files}))
    return to


@tools
@pytest.mark.parametrize(("precision", "least_db"), [("fp32", 120.0), ("int8", 35.0)])
def test_parity_without_and_with_dot_product(bundles: dict[str, Path], precision: str, least_db: float) -> None:
    cpus = ("cortex-a53", "cortex-a76")
    found = list(verify_emulated(bundles[precision], "arm64", cpus, IMAGES))
    assert tuple(report.processor for report in found) == tuple(f"arm64 {cpu}" for cpu in cpus)
    assert all(report.psnr_db >= least_db and report.samples == IMAGES for report in found)
    x86 = read_bundle(bundles[precision]).manifest.parity.psnr_db
    assert all(report.psnr_db == pytest.approx(x86, abs=6) for report in found)


@tools
@pytest.mark.parametrize("cpu", CPU_MODELS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_parity_of_every_precision_on_every_model(bundles: dict[str, Path], precision: str, cpu: str) -> None:
    (report,) = verify_emulated(bundles[precision], "arm64", (cpu,), 8)
    assert report.psnr_db >= report.threshold_db
    print(f"{precision} on {cpu}: {report.psnr_db:.1f} dB median, {report.worst_psnr_db:.1f} dB worst")


@native
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_program_gives_what_the_python_runtime_gives(bundles: dict[str, Path], precision: str) -> None:
    from rdd_edge.benchmarking.isolation import run_artifact

    bundle = read_bundle(bundles[precision])
    z, label, _ = bundle.parity_vectors()
    spec = ExportSpec(precision, bundle.manifest.input.shape, 10)
    expected = run_artifact("android", bundle.artifact, spec, 1, z, label)
    assert expected is not None
    np.testing.assert_array_equal(native_runner(bundle.artifact, spec).run(z, label), expected)


@tools
def test_a_zeroed_channel_is_caught(
    bundles: dict[str, Path], tmp_path: Path, tiny_conditional_checkpoint: Path
) -> None:
    """The weights of one output channel of a convolution, in the bytes of the .pte, where they are (H, W, C)."""
    from rdd_edge.diffusion.checkpoint import read_checkpoint

    convolution = read_checkpoint(tiny_conditional_checkpoint).load().down_blocks[0].resnets[0].conv1
    channel = convolution.weight[3].detach().permute(1, 2, 0).contiguous().numpy().tobytes()

    def zero(content: bytes) -> bytes:
        assert content.count(channel) == 1
        return content.replace(channel, bytes(len(channel)))

    folder = altered(bundles["fp32"], tmp_path / "zeroed", "model.pte", zero)
    with pytest.raises(ThresholdError, match=r"on arm64 cortex-a53, .*zeroed is \d+\.\d dB .* has to reach 80 dB"):
        list(verify_emulated(folder, "arm64", ("cortex-a53",), IMAGES))
    with pytest.raises(ThresholdError, match=r"^[^ ]*zeroed is \d+\.\d dB .* has to reach 80 dB"):
        verify_bundle(folder)


@tools
def test_labels_in_another_order_are_caught(bundles: dict[str, Path], tmp_path: Path) -> None:
    def roll(content: bytes) -> bytes:
        return np.roll(np.frombuffer(content, "<i8"), 1).tobytes()

    folder = altered(bundles["fp32"], tmp_path / "rolled", "parity/label.i64", roll)
    with pytest.raises(ThresholdError, match="on arm64 cortex-a76"):
        list(verify_emulated(folder, "arm64", ("cortex-a76",), IMAGES))


@tools
def test_a_file_that_is_no_program_is_named_with_the_cpu_model(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = altered(bundles["fp32"], tmp_path / "broken", "model.pte", lambda content: content[:100])
    with pytest.raises(ArtifactError, match=r"cannot load .*broken/model\.pte on cortex-a53: "):
        list(verify_emulated(folder, "arm64", ("cortex-a53",), IMAGES))


@tools
@pytest.mark.parametrize(
    ("cpu", "sentence"), [("pentium", "qemu has no CPU model pentium"), ("max", "the CPU model max has SME")]
)
def test_cpu_models_that_qemu_lacks_or_emulates_wrongly(bundles: dict[str, Path], cpu: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        list(verify_emulated(bundles["int8"], "arm64", (cpu,), IMAGES))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            r"model\.pte crashed ExecuTorch on cortex-x \(SIGILL\)",
        ),
        (
            "print('Missing operator: aten::mul.out'); raise SystemExit(4)",
            "cannot run .* on cortex-x: Missing operator",
        ),
        ("raise SystemExit(9)", r"does not run on cortex-x \(exit code 9\): no reason given"),
        ("import time; time.sleep(60)", "made no progress on cortex-x for 0.2 s and was stopped"),
    ],
)
def test_a_process_that_dies_or_stalls_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, sentence: str
) -> None:
    if "sleep" in code:
        monkeypatch.setattr("rdd_edge.targets.android.arm64.runner.STALL_SECONDS", 0.2)
    spec = ExportSpec("fp32", (1, 1, 2, 2), None)
    runner = ProcessRunner([sys.executable, "-c", code], tmp_path / "model.pte", spec, "cortex-x")
    with pytest.raises(ArtifactError, match=sentence):
        runner.run(np.zeros((1, 1, 2, 2), dtype=np.float32), None)


def test_a_missing_tool_is_a_sentence(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    install = "apt-get install g++-aarch64-linux-gnu qemu-user-static"
    with pytest.raises(DependencyError, match=f"needs qemu-aarch64-static: {re.escape(install)}"):
        list(verify_emulated(bundles["fp32"], "arm64"))
    with pytest.raises(DependencyError, match=f"needs aarch64-linux-gnu-g\\+\\+: {re.escape(install)}"):
        toolchain.cross_compiler()


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another(version: str, folder: Path) -> Path:
        (folder / "executorch.whl").write_bytes(b"another wheel")
        return folder / "executorch.whl"

    monkeypatch.setenv("RDD_EDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(sdk, "_download", another)
    with pytest.raises(CorruptError, match=r"executorch\.whl from the package index is not the wheel whose SHA-256"):
        sdk.arm64_sdk()
    assert not list(tmp_path.rglob("include"))


def test_a_version_without_a_pinned_wheel_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "version", lambda _: "9.9.9")
    with pytest.raises(DependencyError, match=r"needs executorch 1\.5\.1.*9\.9\.9 is installed"):
        sdk.arm64_sdk()


def test_the_installed_version_has_a_pinned_wheel() -> None:
    assert sdk.executorch_version() in sdk.WHEEL_SHA256


def test_other_targets_and_architectures_have_no_emulation(make_bundle: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="is fake fp32, for which there is no emulation of arm64"):
        list(verify_emulated(make_bundle("ok"), "arm64"))
