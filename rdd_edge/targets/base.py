"""The protocols behind which every platform lives.

A target turns an exported program into an artifact and, where this machine can, runs it. It knows nothing of training
and never imports a sibling. Each target's `__init__.py` holds `target`, an object of this protocol whose module imports
no converter at the top level.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ..schema import Frozen, Text

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["Artifact", "CalibrationSet", "ExportSpec", "Quantized", "Runner", "Target", "installed"]


class Runtime(Frozen):
    """What executed the artifact."""

    name: Text  # executorch, onnxruntime, coreml, tensorrt, torch
    version: Text
    backend: Text | None  # xnnpack, CPUExecutionProvider, …


@dataclass(frozen=True)
class ExportSpec:
    """The one-step function to lower: z (N, C, H, W) float32 [, label (N,) int64] → x (N, C, H, W) in [-1, 1]."""

    precision: str
    input_shape: tuple[int, int, int, int]
    classes: int | None  # None: unconditional


@dataclass(frozen=True)
class CalibrationSet:
    """Noise at t = 1, one entry a sample, for the observers of a quantizer."""

    z: NDArray[np.float32]  # (samples, C, H, W)
    label: NDArray[np.int64] | None  # (samples,)
    seed: int


@dataclass(frozen=True)
class Quantized:
    """A quantized program in the form its target lowers from."""

    program: Any  # an ExportedProgram, an onnx.ModelProto, …: only the target that made it looks inside
    int8_macs_fraction: float | None  # of all multiplications of convolutions and linears; None: weights only
    keep: tuple[str, ...]  # layers left in higher precision


@dataclass(frozen=True)
class Artifact:
    """What `lower` wrote. outside: operators in the saved file that its backend did not take, by name with their
    number; None where the file does not tell.
    """

    path: Path
    tool_versions: dict[str, str]
    outside: dict[str, int] | None = None


def installed(package: str) -> str | None:
    """Name and version of a package that is installed, or None; it is not imported."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


class Runner(Protocol):
    """An artifact loaded in its own runtime. Built inside a child process, which a crash may kill.

    A runner that stands in for a runtime and says nothing about its speed has an attribute `timed` that is False; a
    bench of it records images and no times.

    A runner that can look inside its artifact has `largest(z, label)`: by name, the largest magnitude of each float16
    tensor for one batch; it raises ArtifactError where one overflows.

    A bench asks these as well, where a runner has them:

    build() -> str | None             make what load() reads; a clause that says why nothing had to be made
    measure(z, label) -> Times        one run by the device's own clock, computing and copies apart
    profile(z, label, runs)           rows of timing.Operator, means over `runs` runs of its own, or a clause that says
        -> list[Operator] | str       why there are none; it may load the artifact once more, since profiling slows
    unseen_memory = "a clause"        why the system does not count the runner's memory to its process, as on a GPU
    any_batch = True                  run() takes any number of images at once
    """

    runtime: Runtime

    def load(self) -> None:
        """Load (again). Raises ArtifactError."""
        ...

    def run(self, z: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """x (N, C, H, W) for z (N, C, H, W), N the artifact's batch."""
        ...


class Target(Protocol):
    """A platform."""

    name: str
    precisions: tuple[str, ...]
    backends: ClassVar[dict[str, tuple[str, ...]]]  # by name, its precisions; the first of each are defaults
    quantized: tuple[str, ...]  # those of the precisions that go through `quantize`
    parity_db: ClassVar[dict[str, float]]  # by precision: the least median PSNR to the student
    rewrites: ClassVar[dict[str, tuple[str, ...]]]  # by precision: the passes that its backend runs best with

    def require(self) -> None:
        """Raise DependencyError, naming the extra, when its converter is not installed."""
        ...

    def quantize(
        self, program: ExportedProgram, spec: ExportSpec, calibration: CalibrationSet, keep: tuple[str, ...]
    ) -> Quantized: ...

    def lower(self, program: ExportedProgram | Quantized, spec: ExportSpec, out: Path) -> Artifact:
        """Write the artifact into the folder `out`. Raises ExportError."""
        ...

    def runner(self, artifact: Path, spec: ExportSpec, threads: int) -> Runner | None:
        """A runner on this machine, or None where no runtime of this target exists here."""
        ...

    def broken_rules(self, artifact: Path, precision: str) -> tuple[str, ...] | None:
        """What a runtime that is not at hand would refuse or run slowly in the saved file, one clause each.

        None: the target has no rules, since its own runtime is asked.
        """
        ...

    def runtime_here(self) -> str | None:
        """What `runner` would run with on this machine, name and version, or None. Imports no runtime."""
        ...

    def cannot_run(self, precision: str) -> str:
        """Why `runner` is None on this machine: one clause for a record's `missing`."""
        ...

    def emulated(self, artifact: Path, spec: ExportSpec, arch: str, cpus: tuple[str, ...]) -> dict[str, Runner] | None:
        """Runners on the kernels of another architecture, by CPU model; `cpus` empty: the target's own choice of them.

        Their run() takes any number of whole batches at once. None: this target has no emulation of `arch`.
        """
        return None
