"""`rdd-edge doctor`: what is installed, and how to install what is missing. Imports nothing heavy."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from .benchmarking.record import this_machine
from .targets import load_target, target_names

PACKAGE = "rdd-edge"
EMULATION = "for verify --arch arm64"
TOOLS = (  # name, command that prints the version, advice
    ("adb", "adb version", "for Android devices: apt-get install adb, or Android Platform-Tools"),
    ("ssh", "ssh -V", "for Jetson boards: apt-get install openssh-client"),
    ("trtexec", "trtexec --help", "part of TensorRT on Jetson boards: /usr/src/tensorrt/bin/trtexec"),
    ("Xcode", "xcodebuild -version", "for iPhones and iPads: a Mac with Xcode"),
    ("ARM compiler", "aarch64-linux-gnu-g++ --version", f"{EMULATION}: apt-get install g++-aarch64-linux-gnu"),
    ("ARM emulator", "qemu-aarch64-static --version", f"{EMULATION}: apt-get install qemu-user-static"),
)
Group = Literal["machine", "stages", "targets", "tools"]


@dataclass(frozen=True)
class Row:
    """One line of the result."""

    group: Group
    name: str
    present: bool
    detail: str  # versions, or how to install it

    def __str__(self) -> str:
        return f"{'✓' if self.present else '–'} {self.name:<22} {self.detail}"


def doctor() -> list[Row]:
    """The machine, the optional dependencies of each stage, the targets and their runtimes, and the tools."""
    targets = target_names()
    needs = _extras()
    stages = [name for name in needs if name not in targets and name != "dev"]
    return [
        *_machine(),
        *(_packages("stages", name, needs[name]) for name in stages),
        *(row for name in targets for row in (_packages("targets", name, needs.get(name, [])), _runtime(name))),
        *(_tool(name, command, advice) for name, command, advice in TOOLS),
    ]


def _machine() -> list[Row]:
    d = this_machine()
    memory = f", {d.memory_bytes / 2**30:.1f} GiB" if d.memory_bytes else ""
    python = ".".join(map(str, sys.version_info[:3]))
    # From nvidia-smi, because importing torch is slow.
    gpus = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    gpu = "; ".join((gpus or "none: training and the server reference use the CPU").splitlines())
    return [
        Row("machine", "Python", (3, 10) <= sys.version_info < (3, 14), python),
        Row("machine", "processor", True, f"{d.processor or d.machine}, {d.cores} cores{memory}, {d.system}"),
        Row("machine", "CUDA device", gpus is not None, gpu),
    ]


def _extras() -> dict[str, list[str]]:
    """Packages of each extra, from the metadata of the installed rdd-edge."""
    extras: dict[str, list[str]] = {}
    for line in metadata.requires(PACKAGE) or []:
        match = re.match(r"(?P<name>[\w.-]+).*extra\s*==\s*['\"](?P<extra>\w+)['\"]", line)
        if match and match["name"] != PACKAGE:
            extras.setdefault(match["extra"], []).append(match["name"])
    return extras


def _packages(group: Group, extra: str, packages: list[str]) -> Row:
    versions = {package: _version(package) for package in packages}
    if missing := [package for package, version in versions.items() if version is None]:
        return Row(group, extra, False, f"needs {', '.join(missing)}: pip install '{PACKAGE}[{extra}]'")
    return Row(group, extra, True, ", ".join(f"{package} {version}" for package, version in versions.items()))


def _runtime(name: str) -> Row:
    """The runtime that executes the target's artifacts on this machine."""
    target = load_target(name)
    runtime = target.runtime_here()
    detail = runtime or target.cannot_run(target.precisions[0].name)
    return Row("targets", f"{name} runtime", runtime is not None, detail)


def _tool(name: str, command: str, advice: str) -> Row:
    """A program, with its version as `command` prints it, or advice where it is not installed."""
    program, *options = command.split()
    jetpack = Path("/usr/src/tensorrt/bin") / program  # JetPack does not add it to PATH
    path = shutil.which(program) or (str(jetpack) if jetpack.is_file() else None)
    if path is None:
        return Row("tools", name, False, advice)
    version = re.search(r"[Vv]?\d+(\.\d+)+[^\s)]*", _output(path, *options) or "")
    return Row("tools", name, True, f"{version.group().rstrip(',') if version else 'version unknown'}, {path}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """The output of a command; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = (done.stdout + done.stderr).strip()
    return text if done.returncode == 0 and text else None
