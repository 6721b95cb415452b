from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdd_edge.benchmarking.verify import VerifyReport, verify_bundle, verify_emulated
from rdd_edge.bundle import Manifest, read_bundle
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.errors import ArtifactError, CorruptError, MissingError, ThresholdError
from rdd_edge.files import tree_sha256, write_model
from rdd_edge.reading.documents import read_model
from rdd_edge.targets import load_target


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> dict[str, Path]:
    from rdd_edge.exporting.pipeline import export_bundles

    out = tmp_path_factory.mktemp("bundles")
    made = export_bundles(tiny_checkpoint, ("ios", "jetson"), "fp16", out)
    return {bundle.manifest.target: bundle.folder for bundle in made}


WEIGHTS = {"ios": "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin", "jetson": "model.onnx"}


def altered(bundle: Path, to: Path, file: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy with one file changed and the hashes in the manifest adapted."""
    shutil.copytree(bundle, to)
    (to / file).write_bytes(change((to / file).read_bytes()))
    files = {name: digest for name, digest in tree_sha256(to).items() if name != "manifest.json"}
    manifest = read_bundle(bundle).manifest.model_copy(update={"files": files})
    write_model(to / "manifest.json", manifest)
    return to


def here(folder: Path) -> VerifyReport:
    return verify_bundle(folder)


def emulated(folder: Path) -> VerifyReport:
    (report,) = verify_emulated(folder, "arm64")
    return report


@pytest.mark.parametrize(("check", "place"), [(here, ""), (emulated, "on arm64 cpu-x, ")], ids=["here", "emulated"])
def test_a_low_parity_is_refused_unless_the_export_allowed_it(
    make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, check: Any, place: str
) -> None:
    target = load_target("fake")
    monkeypatch.setattr(
        type(target), "emulated", lambda self, path, spec, *_: {"cpu-x": self.runner(path, spec, 1)}, raising=False
    )
    folder = make_bundle(batch=2)  # the parity vectors are one batch, as an emulator takes them
    x = folder / "parity/x.f32"
    x.write_bytes((np.fromfile(x, "<f4") + np.float32(0.1)).astype("<f4").tobytes())
    files = {name: digest for name, digest in tree_sha256(folder).items() if name != "manifest.json"}
    manifest = read_model(folder / "manifest.json", Manifest).model_copy(update={"files": files})
    write_model(folder / "manifest.json", manifest)
    with pytest.raises(ThresholdError, match=rf"^{place}.*bundle is 26\.\d dB .* fake fp32 has to reach 80 dB"):
        check(folder)
    allowed = manifest.model_copy(update={"parity": manifest.parity.model_copy(update={"low_allowed": True})})
    write_model(folder / "manifest.json", allowed)
    report = check(folder)
    assert (report.psnr_db, report.low_allowed) == (pytest.approx(26.0, abs=0.1), True)


@pytest.mark.parametrize("target", ["ios", "jetson"])
def test_the_saved_bytes_reach_what_the_export_measured(bundles: dict[str, Path], target: str) -> None:
    report = verify_bundle(bundles[target])
    assert report.psnr_db is not None
    assert report.psnr_db == pytest.approx(read_bundle(bundles[target]).manifest.parity.psnr_db)
    assert report.psnr_db >= report.threshold_db == 45.0
    assert report.runtime is not None
    assert report.rules_checked
    manifest = read_bundle(bundles[target]).manifest
    assert manifest.needs.backend == load_target(target).precision(manifest.precision).backend
    values = list(report.largest.values())
    assert len(values) == 5
    assert values == sorted(values, reverse=True)
    assert all(0 < value < 65504 for value in values)


@pytest.mark.parametrize("target", sorted(WEIGHTS))
def test_a_zeroed_channel_is_caught(
    bundles: dict[str, Path], tmp_path: Path, tiny_checkpoint: Path, target: str
) -> None:
    channel = read_checkpoint(tiny_checkpoint).load().conv_in.weight[3].detach().half().numpy().tobytes()

    def zero(content: bytes) -> bytes:
        assert content.count(channel) == 1
        return content.replace(channel, bytes(len(channel)))

    folder = altered(bundles[target], tmp_path / "zeroed", WEIGHTS[target], zero)
    with pytest.raises(ThresholdError, match=rf"zeroed is \d+\.\d dB .* {target} fp16 has to reach 45 dB"):
        verify_bundle(folder)


@pytest.mark.parametrize("target", sorted(WEIGHTS))
def test_noise_in_another_order_is_caught(bundles: dict[str, Path], tmp_path: Path, target: str) -> None:
    def swap(content: bytes) -> bytes:
        return np.frombuffer(content, "<f4").reshape(-1, 8, 8).swapaxes(1, 2).tobytes()

    folder = altered(bundles[target], tmp_path / "swapped", "parity/z.f32", swap)
    with pytest.raises(ThresholdError, match=rf"swapped is \d+\.\d dB .* {target} fp16 has to reach 45 dB"):
        verify_bundle(folder)


def test_images_of_another_student(bundles: dict[str, Path], tmp_path: Path) -> None:
    def shift(content: bytes) -> bytes:
        return (np.frombuffer(content, "<f4") + np.float32(0.1)).astype("<f4").tobytes()

    folder = altered(bundles["jetson"], tmp_path / "shifted", "parity/x.f32", shift)
    with pytest.raises(ThresholdError, match=r"shifted is 26\.\d dB .* jetson fp16 has to reach 45 dB"):
        verify_bundle(folder)


def test_flipped_weight_in_a_package(bundles: dict[str, Path], tmp_path: Path) -> None:
    def flip(content: bytes) -> bytes:
        """The signs of 2,000 bytes in the middle of weight.bin."""
        middle = len(content) // 2
        changed = np.frombuffer(content, np.uint8).copy()
        changed[middle + 1 : middle + 4000 : 2] ^= 0x80
        return changed.tobytes()

    weights = "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    with pytest.raises(ThresholdError, match="ios fp16 has to reach 45 dB"):
        verify_bundle(altered(bundles["ios"], tmp_path / "flipped", weights, flip))


def test_graph_that_tensorrt_would_refuse(bundles: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    def newer(content: bytes) -> bytes:
        model = onnx.ModelProto.FromString(content)
        model.opset_import[0].version = 22
        return bytes(model.SerializeToString())

    folder = altered(bundles["jetson"], tmp_path / "newer", "model.onnx", newer)
    with pytest.raises(ArtifactError, match=r"model\.onnx would not run as it should on the device: its opset is 22"):
        verify_bundle(folder)


def test_changed_file_is_refused_before_it_runs(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(bundles["jetson"], folder)
    with (folder / "model.onnx").open("r+b") as file:
        file.write(b"x")
    with pytest.raises(CorruptError, match="its SHA-256 differs"):
        verify_bundle(folder)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="is not a bundle"):
        verify_bundle(tmp_path)


def test_crash_and_absence_of_a_runtime(make_bundle: Callable[..., Any]) -> None:
    with pytest.raises(ArtifactError, match="SIGSEGV"):
        verify_bundle(make_bundle("segfault", name="crash"))
    report = verify_bundle(make_bundle("nowhere", name="absent"))
    assert (report.psnr_db, report.runtime) == (None, None)
    assert report.reason == "fakert runs on fake machines only"
