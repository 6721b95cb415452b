"""What this machine has of what rdd-edge can use, and what to install for what is missing. Imports nothing heavy."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from .machine import this_machine

__all__ = ["Row", "doctor"]

Group = Literal["machine", "stages", "targets", "tools"]


@dataclass(frozen=True)
class Row:
    """One thing that was looked for."""

    group: Group
    name: str
    present: bool
    detail: str  # versions where present, what to do where not


@dataclass(frozen=True)
class Need:
    """Packages that a stage or a target imports, and the extra that installs them."""

    group: Group
    name: str
    packages: tuple[str, ...]
    extra: str


NEEDS = (
    Need("stages", "distil and sample", ("torch", "diffusers", "safetensors", "scikit-learn", "pillow"), "distill"),
    Need("stages", "CIFAR-10 from parquet", ("pyarrow",), "cifar"),
    Need("stages", "report", ("jinja2", "pillow"), "report"),
    Need("targets", "android", ("torch", "executorch", "torchao"), "android"),
    Need("targets", "ios", ("torch", "coremltools"), "ios"),
    Need("targets", "jetson", ("torch", "onnx", "onnxruntime", "onnxscript"), "jetson"),
)


def doctor() -> list[Row]:
    """Each thing in the order it is used: the machine, the stages, the targets and what runs them here, the tools."""
    return [*_machine(), *(_packages(need) for need in NEEDS), *_runtimes(), *_tools()]


def _machine() -> list[Row]:
    d = this_machine()
    memory = f", {d.memory_bytes / 2**30:.1f} GiB" if d.memory_bytes else ""
    python = ".".join(map(str, sys.version_info[:3]))
    return [
        Row("machine", "Python", (3, 10) <= sys.version_info < (3, 14), f"{python} (3.10 to 3.13 are tested)"),
        Row("machine", "processor", True, f"{d.processor or d.machine}, {d.cores} cores{memory}, {d.system}"),
        _cuda(),
    ]


def _cuda() -> Row:
    """By nvidia-smi: asking torch would cost its import."""
    found = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    if found is None:
        return Row("machine", "CUDA device", False, "none: training and the server reference run on the CPU")
    return Row("machine", "CUDA device", True, "; ".join(found.splitlines()))


def _packages(need: Need) -> Row:
    versions, missing = [], []
    for package in need.packages:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return Row(need.group, need.name, False, f"needs {', '.join(missing)}: pip install 'rdd-edge[{need.extra}]'")
    return Row(need.group, need.name, True, ", ".join(versions))


def _runtimes() -> list[Row]:
    """Where each target's artifact can run on this machine."""
    on_mac = sys.platform == "darwin"
    core_ml = "Core ML" if on_mac else "runs on a Mac only"
    tensorrt = _version("tensorrt")
    return [
        Row("targets", "android, run here", _version("executorch") is not None, _runs("executorch", "android")),
        Row("targets", "ios, run here", on_mac, core_ml),
        Row("targets", "jetson, run here", _version("onnxruntime") is not None, _runs("onnxruntime", "jetson")),
        Row(
            "targets",
            "TensorRT",
            tensorrt is not None,
            tensorrt or "comes with JetPack: an engine is built on the board that runs it",
        ),
    ]


def _runs(package: str, extra: str) -> str:
    version = _version(package)
    return f"{package} {version}" if version else f"needs {package}: pip install 'rdd-edge[{extra}]'"


def _tools() -> list[Row]:
    tools: list[tuple[str, tuple[str, ...], str]] = [
        ("adb", ("adb", "version"), "for Android devices: apt-get install adb, or Android's platform-tools"),
        ("ssh", ("ssh", "-V"), "for Jetson boards: apt-get install openssh-client"),
        ("trtexec", ("trtexec", "--help"), "comes with TensorRT on the board: /usr/src/tensorrt/bin/trtexec"),
        ("Xcode", ("xcodebuild", "-version"), "for iPhones and iPads: a Mac with Xcode"),
    ]
    return [_tool(name, command, advice) for name, command, advice in tools]


def _tool(name: str, command: tuple[str, ...], advice: str) -> Row:
    program = shutil.which(command[0])
    beside = Path("/usr/src/tensorrt/bin") / command[0]  # where JetPack puts it, on no PATH
    if program is None and not beside.is_file():
        return Row("tools", name, False, advice)
    text = _output(program or str(beside), *command[1:]) or ""
    version = re.search(r"[Vv]?\d+(\.\d+)+\S*", text)
    return Row(
        "tools", name, True, f"{version.group().rstrip(',') if version else 'version unknown'}, {program or beside}"
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """What a command printed, or None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = (done.stdout + done.stderr).strip()
    return text if done.returncode == 0 and text else None
