"""The iOS target: an ML program for iOS 17 and later."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...dependencies import import_or_explain
from ..base import Artifact, CalibrationSet, ExportSpec, Quantized, Runner, Target

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["IosTarget"]


class IosTarget(Target):
    """Core ML packages.

    fp32          for a comparison: the Neural Engine computes in float16 only.
    fp16          weights and activations float16, the statistics of group normalisation in float32.
    w8, w6, w4    fp16 with weights stored smaller: int8 per channel, or a table of 64 or 16 values per tensor.
    int8          w8 with the inputs of the products in int8 as well; pays on an A17 Pro, M4 or later.
    """

    name = "ios"
    precisions = ("fp16", "fp32", "w8", "w6", "w4", "int8")
    backends: ClassVar[dict[str, tuple[str, ...]]] = {"coreml": precisions}
    quantized = ("int8",)
    parity_db: ClassVar[dict[str, float]] = {
        "fp32": 80.0, "fp16": 45.0, "w8": 35.0, "w6": 30.0, "w4": 20.0, "int8": 35.0,
    }  # fmt: skip
    rewrites: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(precisions, ("fold_time",))

    def require(self) -> None:
        for module in ("torch", "coremltools"):
            import_or_explain(module, "the ios target", "ios")

    def quantize(
        self, program: ExportedProgram, spec: ExportSpec, calibration: CalibrationSet, keep: tuple[str, ...]
    ) -> Quantized:
        """The program with its products' inputs rounded to int8; `lower` does the weights."""
        from .activations import quantize

        self.require()
        return quantize(program, spec, calibration, keep)

    def lower(self, program: ExportedProgram | Quantized, spec: ExportSpec, out: Path) -> Artifact:
        from .lower import lower

        self.require()
        return lower(program, spec, out)

    def runner(self, artifact: Path, spec: ExportSpec, threads: int) -> Runner:
        """Core ML itself on a Mac; elsewhere the evaluator of the saved package, which makes no claim about time."""
        from .runner import CoreMLRunner, EvaluatorRunner

        return CoreMLRunner(artifact) if sys.platform == "darwin" else EvaluatorRunner(artifact, threads)

    def broken_rules(self, artifact: Path, precision: str) -> tuple[str, ...] | None:
        return None

    def runtime_here(self) -> str:
        if sys.platform == "darwin":
            return f"Core ML on macOS {platform.mac_ver()[0]}"
        return "an evaluator of the package, for quality and not for time"

    def cannot_run(self, precision: str) -> str:
        return "a Core ML package runs or is evaluated on every machine that rdd-edge runs on"
