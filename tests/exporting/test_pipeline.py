"""From a checkpoint to bundles: what each holds, what is refused before any work, what a failure leaves behind."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Recorder

from rdd_edge.bundle import read_bundle
from rdd_edge.console import reporting_to
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.network import one_step
from rdd_edge.errors import CorruptError, DependencyError, ExportError, MissingError, ThresholdError, UsageError
from rdd_edge.exporting import pipeline
from rdd_edge.exporting.budget import PsnrBudget
from rdd_edge.exporting.pipeline import export_bundles
from rdd_edge.exporting.selection import plan_bundles
from rdd_edge.files import tree_sha256
from rdd_edge.targets.android import target as android


class ExportRecorder(Recorder):
    """Keeps the results as well."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[str] = []

    def result(self, line: str) -> None:
        self.results.append(line)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_conditional_checkpoint: Path) -> tuple[Any, ...]:
    """The Android bundles of a conditional network, and what the export reported."""
    recorder = ExportRecorder()
    out = tmp_path_factory.mktemp("bundles")
    with reporting_to(recorder):
        bundles = export_bundles(tiny_conditional_checkpoint, ("android",), "all", out)
    return out, bundles, recorder


def test_each_precision_of_the_target_becomes_a_bundle(exported: Any) -> None:
    out, bundles, _ = exported
    names = ["fp32", "fp16", "int8"]  # mixed needs a budget, and vulkan is another backend
    assert [bundle.folder for bundle in bundles] == [out / f"android-{name}" for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(bundle.folder.name for bundle in bundles)
    assert [read_bundle(bundle.folder) for bundle in bundles] == bundles


def test_manifest_describes_the_artifact(exported: Any, tiny_conditional_checkpoint: Path) -> None:
    manifests = {bundle.manifest.precision: bundle.manifest for bundle in exported[1]}
    fp32, int8 = manifests["fp32"], manifests["int8"]
    assert fp32.input.shape == fp32.output.shape == (1, 1, 8, 8)
    assert (fp32.label.name, fp32.label.dtype, fp32.label.low, fp32.label.high) == ("label", "int64", 0, 9)
    assert fp32.checkpoint_sha256 == read_checkpoint(tiny_conditional_checkpoint).sha256
    assert fp32.quantization is None
    assert fp32.class_names is not None and fp32.class_names[:2] == ("zero", "one")
    assert int8.quantization.calibration.samples == 256 and int8.quantization.keep == ()
    assert int8.quantization.int8_macs_fraction >= 0.95
    assert {"rdd-edge", "torch", "executorch", "python"} <= set(fp32.tool_versions)
    assert fp32.needs.backend == "xnnpack"
    runtime = fp32.needs.runtime
    assert (runtime.name, runtime.least) == ("org.pytorch:executorch-android", fp32.tool_versions["executorch"])


def run_python_of(readme: Path) -> float:
    """Run the page's Python code in the bundle's folder, as a reader would; the PSNR that it prints, in dB."""
    code = re.findall(r"```python\n(.*?)\n```", readme.read_text(), re.DOTALL)
    assert len(code) == 1
    done = subprocess.run([sys.executable, "-B", "-c", code[0]], cwd=readme.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(re.findall(r"PSNR (\S+) dB", done.stdout)[0])


def test_the_readme_describes_the_bundle_and_its_python_runs(exported: Any) -> None:
    bundle = exported[1][0]
    text = (bundle.folder / "README.md").read_text()
    assert "README.md" in bundle.manifest.files
    for said in ("(1, 1, 8, 8)", "`label`", "0 zero, 1 one", "floor(127.5 · x + 128)", "```kotlin"):
        assert said in text
    _, _, x = bundle.parity_vectors()
    assert f"x = {x[0, 0, 0, 0]:.4f}, " in text
    assert run_python_of(bundle.folder / "README.md") > 80


def test_parity_vectors_are_the_students_own_images(exported: Any, tiny_conditional_checkpoint: Path) -> None:
    z, label, x = exported[1][0].parity_vectors()
    assert label is not None and len(z) == 32 and list(label[:11]) == [*range(10), 0]
    unet = read_checkpoint(tiny_conditional_checkpoint).load()
    with torch.no_grad():
        expected = one_step(unet, torch.from_numpy(z), torch.from_numpy(label)).numpy()
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_kernels_unlike_a_phones_give_no_parity(exported: Any) -> None:
    parity = {bundle.manifest.precision: bundle.manifest.parity for bundle in exported[1]}
    assert parity["fp32"].psnr_db is not None and parity["int8"].psnr_db is not None
    if platform.machine() in ("aarch64", "arm64"):
        assert parity["fp16"].psnr_db >= 45
    else:
        assert parity["fp16"].psnr_db is parity["fp16"].worst_psnr_db is None
        assert re.search(r"those for a phone's.*; this machine's kernels give \d+\.\d dB$", parity["fp16"].reason)


def test_stages_are_reported_in_order_and_the_result_has_the_parity(exported: Any) -> None:
    _, bundles, recorder = exported
    stages = [stage for stage, _ in recorder.stages if "android" in stage or stage == "export"]
    assert stages[:4] == ["export", "android-fp32 rewrite", "android-fp32 lower", "android-fp32 parity"]
    assert stages[-3:] == ["android-int8 quantize", "android-int8 lower", "android-int8 parity"]
    for bundle, result in zip(bundles, recorder.results, strict=True):
        parity = bundle.manifest.parity
        shown = f"not measured: {parity.reason}" if parity.psnr_db is None else f"{parity.psnr_db:.1f} dB"
        assert result.startswith(f"{bundle.folder}: parity {shown}")
    assert "100.0% of the multiplications in 8 bits" in recorder.results[-1]


@pytest.mark.parametrize(
    ("targets", "precision", "sentence"),
    [
        (("windows",), None, "there is no target 'windows': choose from android"),
        (("android",), "int3", "the android target has no precision 'int3': it has fp32, "),
        ((), None, "name at least one target"),
        (("android",), "mixed", "mixed precision needs a quality budget: give --min-psnr"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    tmp_path: Path, targets: tuple[str, ...], precision: str | None, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        export_bundles(tmp_path / "no checkpoint is read", targets, precision, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_budget_without_mixed_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="apply to mixed precision only"):
        plan_bundles(("android",), "int8", tmp_path, PsnrBudget(40.0))


def test_without_a_precision_each_target_has_a_default_and_a_budget_means_mixed(tmp_path: Path) -> None:
    found = plan_bundles(("android", "ios", "jetson"), None, tmp_path)
    assert [(target.name, name) for target, name in found] == [("android", "fp32"), ("ios", "fp16"), ("jetson", "fp16")]
    assert [name for _, name in plan_bundles(("android",), None, tmp_path, PsnrBudget(40.0))] == ["mixed"]
    with pytest.raises(UsageError, match="the ios target has no precision 'mixed'"):
        plan_bundles(("android", "ios"), None, tmp_path, PsnrBudget(40.0))


def test_a_backend_has_precisions_of_its_own(tmp_path: Path) -> None:
    def names(precision: str | tuple[str, ...] | None, backend: str | None) -> list[str]:
        return [name for _, name in plan_bundles(("android",), precision, tmp_path, backend=backend)]

    assert names("all", None) == names("all", "xnnpack") == ["fp32", "fp16", "int8"]
    assert names("all", "vulkan") == ["vulkan-fp32", "vulkan-fp16"]
    assert names(("int8", "fp32", "int8"), None) == ["int8", "fp32"]
    assert names(("fp16", "all"), "vulkan") == ["vulkan-fp16", "vulkan-fp32"]
    with pytest.raises(UsageError, match="no precision 'int3'"):
        names(("fp32", "int3"), None)
    with pytest.raises(UsageError, match="mixed precision needs a quality budget"):
        names(("fp32", "mixed"), None)
    assert names(None, "vulkan") == ["vulkan-fp32"]
    assert names("fp16", "vulkan") == names("vulkan-fp16", None) == ["vulkan-fp16"]
    with pytest.raises(UsageError, match="no precision 'int8' on vulkan: it has vulkan-fp32, vulkan-fp16"):
        names("int8", "vulkan")
    with pytest.raises(UsageError, match="the ios target has no backend 'vulkan': it has coreml"):
        plan_bundles(("android", "ios"), None, tmp_path, backend="vulkan")


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "android-fp32").mkdir()
    with pytest.raises(UsageError, match="android-fp32 exists and is not a bundle"):
        plan_bundles(("android",), "fp32", tmp_path)


def test_missing_converter_is_a_sentence_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def require(self: Any) -> None:
        raise DependencyError("the android target needs executorch: pip install 'rdd-edge[android]'")

    monkeypatch.setattr(type(android), "require", require)
    with pytest.raises(DependencyError, match="needs executorch"):
        export_bundles(tmp_path / "no checkpoint is read", ("android",), None, tmp_path)


def test_missing_and_broken_checkpoints_are_sentences(tmp_path: Path, tiny_checkpoint: Path) -> None:
    import shutil

    with pytest.raises(MissingError, match="there is no checkpoint"):
        export_bundles(tmp_path / "nowhere", ("android",), "fp32", tmp_path / "out")
    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    weights = broken / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CorruptError, match="truncated or changed"):
        export_bundles(broken, ("android",), "fp32", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_the_old_bundle_and_nothing_else(
    exported: Any, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out: Path = exported[0]

    def lower(self: Any, program: Any, spec: Any, folder: Path) -> Any:
        (folder / "model.pte").write_bytes(b"half")
        raise ExportError("the compiler gave up")

    monkeypatch.setattr(type(android), "lower", lower)
    before = tree_sha256(out)
    with pytest.raises(ExportError, match="gave up"):
        export_bundles(tiny_checkpoint, ("android",), "fp32", out)
    assert tree_sha256(out) == before


def test_an_artifact_far_from_its_student_is_kept_only_where_that_is_allowed(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pipeline.measure
    monkeypatch.setattr(pipeline, "measure", lambda *given: real(*given).model_copy(update={"psnr_db": 20.0}))
    with pytest.raises(
        ThresholdError, match=r"jetson-fp32 was not created: its images are 20\.0 dB .* --allow-low-parity"
    ):
        export_bundles(tiny_checkpoint, ("jetson",), "fp32", tmp_path)
    assert list(tmp_path.iterdir()) == []
    (bundle,) = export_bundles(tiny_checkpoint, ("jetson",), "fp32", tmp_path, allow_low_parity=True)
    assert bundle.manifest.parity.low_allowed
