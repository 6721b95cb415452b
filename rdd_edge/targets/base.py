"""The protocols behind which every platform lives.

A target turns an exported program into an artifact and, where this machine can, runs it. It knows nothing of training
and never imports a sibling. Each target's `__init__.py` holds `target`, an object of this protocol whose module imports
no converter at the top level.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..portable.runner import Runner
from ..schema import Frozen, Text

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["Artifact", "CalibrationSet", "ExportSpec", "Quantized", "Runtime", "Target", "installed"]


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


class Target(Protocol):
    """A platform."""

    name: str
    precisions: tuple[str, ...]
    backends: dict[str, tuple[str, ...]]  # by name, the precisions in it; the first backend and precision are defaults
    quantized: tuple[str, ...]  # those of the precisions that go through `quantize`
    parity_db: dict[str, float]  # by precision: the least median PSNR to the student
    rewrites: dict[str, tuple[str, ...]]  # by precision: the passes in export/rewrites that its backend runs best with

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
