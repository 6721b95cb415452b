"""The compiled program as a runner, under qemu's user-mode emulation or directly on this machine."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....console import reporter
from ....errors import ArtifactError, UsageError
from ....portable.runner import Runner
from ...base import ExportSpec, Runtime
from .build import arm64_program, native_program
from .sdk import executorch_version
from .toolchain import SYSROOT, emulator

CPU_MODELS = (
    "cortex-a53",  # Armv8.0: no dot product, no fp16 arithmetic
    "cortex-a76",  # Armv8.2: dot product and fp16 arithmetic
    "neoverse-n1",  # the same, on a server
    "a64fx",  # SVE of 512 bits and fp16 arithmetic, no dot product
    "max,sme=off",  # int8 matrix products (i8mm), SVE2, bf16
)
STALL_SECONDS = 1800.0  # without progress: a large network takes minutes per image under emulation
LOAD_FAILED, RUN_FAILED, HAS_SME = 3, 4, 5  # exit codes of runner.cpp
THREADS = 1  # under emulation, more threads mostly wait for each other


def emulated_runners(artifact: Path, spec: ExportSpec, cpus: tuple[str, ...]) -> dict[str, Runner]:
    """A runner for each CPU model, by default those of CPU_MODELS. Raises DependencyError for a missing tool or SDK."""
    qemu = emulator()
    program = arm64_program()
    return {
        cpu: ProcessRunner([qemu, "-cpu", cpu, "-L", str(SYSROOT), str(program)], artifact, spec, cpu)
        for cpu in cpus or CPU_MODELS
    }


def native_runner(artifact: Path, spec: ExportSpec) -> Runner:
    """The same program built for this machine, which must give the same images as ExecuTorch's Python runtime."""
    return ProcessRunner([str(native_program())], artifact, spec, "this machine")


class ProcessRunner(Runner):
    """runner.cpp in a new process for each call of `run`.  command: starts it.  cpu: the CPU model, for messages."""

    any_batch = True

    def __init__(self, command: list[str], artifact: Path, spec: ExportSpec, cpu: str) -> None:
        self._command, self._artifact, self._spec, self._cpu = command, artifact, spec, cpu
        self.runtime = Runtime(name="executorch", version=executorch_version(), backend="xnnpack")

    def load(self) -> None:
        """Does nothing: the process that runs the artifact loads it."""

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """x (N, C, H, W) for z (N, C, H, W), N a multiple of the artifact's batch.

        Raises ArtifactError where the program does not load, does not run, crashes or stalls, and UsageError for a CPU
        model that qemu does not have or emulates incorrectly.
        """
        with tempfile.TemporaryDirectory(prefix="rdd-edge-") as name:
            folder = Path(name)
            z.astype("<f4").tofile(folder / "z.f32")
            arguments = [str(self._artifact), str(folder / "z.f32"), str(folder / "x.f32")]
            arguments += [*map(str, self._spec.input_shape), str(THREADS)]
            if label is not None:
                label.astype("<i8").tofile(folder / "label.i64")
                arguments.append(str(folder / "label.i64"))
            reporter().begin(self._cpu, total=len(z), unit="images")
            code = self._wait([*self._command, *arguments], folder, z[0].nbytes)
            reporter().end()
            if code != 0:
                raise self._error(code, (folder / "output").read_text(errors="replace"))
            return np.fromfile(folder / "x.f32", "<f4").astype(np.float32).reshape(z.shape)

    def _wait(self, command: list[str], folder: Path, image_bytes: int) -> int | None:
        """Exit code of the process (negative: a signal), or None where it stalled and was killed."""
        out, seen, since = folder / "x.f32", 0, time.monotonic()
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            try:
                while time.monotonic() - since <= STALL_SECONDS:
                    try:
                        return process.wait(timeout=0.1)
                    except subprocess.TimeoutExpired:
                        size = out.stat().st_size if out.exists() else 0
                    if size != seen:
                        seen, since = size, time.monotonic()
                        reporter().advance(seen // image_bytes)
                return None
            finally:
                process.kill()
                process.wait()

    def _error(self, code: int | None, output: str) -> Exception:
        where = f"on {self._cpu}"
        reason = _reason(output)
        if code is None:
            return ArtifactError(f"{self._artifact} made no progress {where} for {STALL_SECONDS:g} s and was stopped")
        if code < 0:
            return ArtifactError(f"{self._artifact} crashed ExecuTorch {where} ({signal.Signals(-code).name})")
        if code == HAS_SME:
            return UsageError(
                f"the CPU model {self._cpu} has SME, whose integer products qemu emulates incorrectly: "
                "use one without it, such as max,sme=off"
            )
        if code in (LOAD_FAILED, RUN_FAILED):
            verb = "load" if code == LOAD_FAILED else "run"
            return ArtifactError(f"ExecuTorch cannot {verb} {self._artifact} {where}: {reason}")
        if "CPU model" in reason or "Property" in reason:
            return UsageError(f"qemu has no CPU model {self._cpu}: {reason}")
        return ArtifactError(f"{self._artifact} does not run {where} (exit code {code}): {reason}")


def _reason(output: str) -> str:
    """The first error that ExecuTorch logged, which causes the later ones, or else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[EF] \d\d:\d\d", line)]
    return (errors[:1] or lines[-1:] or ["no reason given"])[0][:300]
