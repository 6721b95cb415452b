"""What the doctor finds, with and without the things it looks for."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from rdd_edge.doctor import Row, doctor


def by_name() -> dict[str, Row]:
    return {row.name: row for row in doctor()}


def test_every_target_is_asked_for(fake_target: None) -> None:
    rows = by_name()
    assert rows["fake runtime"] == Row("targets", "fake runtime", True, "fakert 7.0")
    for name in ("android", "ios", "jetson", "fake"):
        assert rows[name].group == "targets"


def test_versions_are_those_installed() -> None:
    assert f"torch {metadata.version('torch')}" in by_name()["distill"].detail


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(package: str) -> str:
        if package == "executorch":
            raise metadata.PackageNotFoundError
        return real(package)

    monkeypatch.setattr("rdd_edge.doctor.metadata.version", version)
    row = by_name()["android"]
    assert not row.present
    assert row.detail == "needs executorch: pip install 'rdd-edge[android]'"
    assert str(row).startswith("– android")


def test_tools_are_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not by_name()["adb"].present
    program = tmp_path / "adb"
    program.write_text("#!/bin/sh\necho Android Debug Bridge version 1.0.41\n")
    program.chmod(0o755)
    assert by_name()["adb"] == Row("tools", "adb", True, f"1.0.41, {program}")
    program.write_text("#!/bin/sh\nexit 1\n")
    assert by_name()["adb"].detail.startswith("version unknown")


def test_a_cuda_device_is_told_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not by_name()["CUDA device"].present
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA X, 1024 MiB'\n")
    program.chmod(0o755)
    assert by_name()["CUDA device"].detail == "NVIDIA X, 1024 MiB"


def test_nothing_heavy_is_imported() -> None:
    code = "import sys; from rdd_edge.doctor import doctor; doctor()\n"
    code += "print([m for m in ('torch', 'executorch', 'coremltools', 'onnx', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
