"""The base class of a target and the records that it exchanges with the exporter.

A target converts an exported program to an artifact and runs it where this machine can. It is independent of training
and of the other targets.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..bundle import Manifest, Needs
from ..dependencies import import_or_explain
from ..diffusion.conversion import Conversion
from ..errors import UsageError
from ..portable.runner import Runner
from ..schema import Frozen, Text

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class Runtime(Frozen):
    """What executed an artifact."""

    name: Text  # executorch, onnxruntime, coreml, tensorrt, torch
    version: Text
    backend: Text | None  # xnnpack, CPUExecutionProvider, …


@dataclass(frozen=True)
class ExportSpec:
    """The one-step function to lower: z (N, C, H, W) float32 [, label (N,) int64] → x (N, C, H, W) in [-1, 1]."""

    precision: str
    input_shape: tuple[int, int, int, int]
    classes: int | None  # None: unconditional
    conversion: Conversion | None = None  # which a foreign student needs in PyTorch; artifacts contain it


@dataclass(frozen=True)
class CalibrationSet:
    """Noise at t = 1 on which a quantizer observes the ranges of activations."""

    z: NDArray[np.float32]  # (samples, C, H, W)
    label: NDArray[np.int64] | None  # (samples,)
    seed: int

    def batches(self, size: int) -> Iterator[tuple[NDArray[Any], ...]]:
        """The inputs, z [, label], of each whole batch. Raises UsageError for fewer samples than one batch."""
        if len(self.z) < size:
            raise UsageError(f"a calibration set of {len(self.z)} samples is smaller than one batch of {size}")
        inputs = (self.z,) if self.label is None else (self.z, self.label)
        for start in range(0, len(self.z) - size + 1, size):
            yield tuple(array[start : start + size] for array in inputs)


@dataclass(frozen=True)
class Quantized:
    """A quantized program in the form that its target lowers."""

    program: Any  # an ExportedProgram, an onnx_ir.Model, …: opaque to everything but its target
    int8_macs_fraction: float | None  # in 8 bits, of the multiplications of all layers; None: weights only
    keep: tuple[str, ...]  # layers left in higher precision


@dataclass(frozen=True)
class Artifact:
    """A file or folder written by `Target.lower`."""

    path: Path
    tool_versions: dict[str, str]
    needs: Needs
    outside: dict[str, int] | None = None  # count of each operator that runs in no backend; None: unknown


@dataclass(frozen=True)
class Precision:
    """One row in a target's table of precisions."""

    name: str
    backend: str
    rewrites: tuple[str, ...]  # names of passes in exporting/rewrites, in order
    quantized: bool  # whether the program goes through `quantize` first
    parity_db: float  # least median PSNR to the student
    unlike_device: str | None = None  # why this machine's PSNR is not a device's; None: it is


class Target(ABC):
    """A platform: a folder beside this file, whose `__init__.py` has an instance of a subclass as `target`.

    The folder's quantize.py and lower.py each define a function of that name. Only methods import converters.
    """

    name: ClassVar[str]  # of the folder, and of the extra that installs its packages
    modules: ClassVar[tuple[str, ...]]  # required for export
    runtime_package: ClassVar[str | None] = None  # runs its artifacts on this machine
    label_dtype: ClassVar[Literal["int32", "int64"]] = "int64"  # of the artifact's input; parity/label.i64 is int64
    precisions: ClassVar[tuple[Precision, ...]]  # the first is the default, and the first of a backend is its default

    def precision(self, name: str) -> Precision:
        """The precision of that name. Raises UsageError where there is none."""
        for precision in self.precisions:
            if precision.name == name:
                return precision
        names = ", ".join(precision.name for precision in self.precisions)
        raise UsageError(f"the {self.name} target has no precision {name!r}: it has {names}")

    def require(self) -> None:
        """Raise DependencyError, which names the extra, where a module that export requires is not installed."""
        for module in self.modules:
            import_or_explain(module, f"the {self.name} target", self.name)

    def quantize(
        self, program: ExportedProgram, spec: ExportSpec, calibration: CalibrationSet, keep: tuple[str, ...]
    ) -> Quantized:
        """The program with every convolution and linear layer except those of `keep` in 8 bits.

        calibration: at least one batch of spec.input_shape[0] samples.  keep: names of layers, as in the network.
        Raises UsageError for a layer that the program does not have.
        """
        self.require()
        quantized: Quantized = self._submodule("quantize").quantize(program, spec, calibration, keep)
        return quantized

    def lower(self, program: ExportedProgram | Quantized, spec: ExportSpec, out: Path) -> Artifact:
        """Write the artifact into the folder `out`. Raises ExportError."""
        self.require()
        artifact: Artifact = self._submodule("lower").lower(program, spec, out)
        return artifact

    @abstractmethod
    def runner(self, artifact: Path, spec: ExportSpec, threads: int) -> Runner | None:
        """A runner on this machine, or None where this machine has no runtime for the artifact."""

    def broken_rules(self, artifact: Path, precision: str) -> tuple[str, ...] | None:
        """What the device's runtime would refuse or run slowly in the saved file, one clause each.

        None: the target has no rules, because its own runtime is available on this machine.
        """
        return None

    def checked_runner(
        self, artifact: Path, spec: ExportSpec, threads: int
    ) -> tuple[Runner | None, tuple[str, ...] | None]:
        """`runner` and `broken_rules`; override it where both read the same large file."""
        return self.runner(artifact, spec, threads), self.broken_rules(artifact, spec.precision)

    def runtime_here(self) -> str | None:
        """Name and version of the runtime on this machine, or None. Does not import it."""
        try:
            return f"{self.runtime_package} {version(self.runtime_package)}" if self.runtime_package else None
        except PackageNotFoundError:
            return None

    def cannot_run(self, precision: str) -> str:
        """Why this machine cannot run artifacts of a precision: one clause for a record's `missing`."""
        return f"needs {self.runtime_package}: pip install 'rdd-edge[{self.name}]'"

    def emulated(self, artifact: Path, spec: ExportSpec, arch: str, cpus: tuple[str, ...]) -> dict[str, Runner] | None:
        """Runners by CPU model of another architecture.  cpus: the models, or empty for the target's default ones.

        Their run() accepts any number of whole batches. None: the target has no emulation of `arch`.
        """
        return None

    def snippets(self, manifest: Manifest) -> dict[str, str]:
        """Code that loads and runs a bundle's artifact, by language, for the bundle's README; none by default."""
        return {}

    def _submodule(self, name: str) -> Any:
        package = type(self).__module__.rpartition(".")[0]
        return importlib.import_module(f"{package}.{name}")
