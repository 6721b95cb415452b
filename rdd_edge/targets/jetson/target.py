"""The Jetson target. An engine is good only for the GPU and the TensorRT that built it, so what ships is ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...dependencies import import_or_explain
from ..base import Artifact, CalibrationSet, ExportSpec, Quantized, Runner, Target, installed

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["JetsonTarget"]


class JetsonTarget(Target):
    """ONNX opset 20, strongly typed: precision lives in the file, as TensorRT 11 demands and 10 allows.

    fp32  one type throughout.
    fp16  weights and activations float16, group normalisation in float32 between casts, z and x float32.
    int8  symmetric Q/DQ around every convolution and linear, per channel for weights; all else float16.
    """

    name = "jetson"
    precisions = ("fp16", "fp32", "int8")
    backends: ClassVar[dict[str, tuple[str, ...]]] = {"tensorrt": precisions}
    quantized = ("int8",)
    parity_db: ClassVar[dict[str, float]] = {"fp32": 80.0, "fp16": 45.0, "int8": 35.0}
    # TensorRT fuses Resize, InstanceNormalization and MatMul-Softmax-MatMul itself; only t = 1 is ours to fold.
    rewrites: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(precisions, ("fold_time",))

    def require(self) -> None:
        for module in ("torch", "onnx", "onnxruntime", "onnxscript"):
            import_or_explain(module, "the jetson target", "jetson")

    def quantize(
        self, program: ExportedProgram, spec: ExportSpec, calibration: CalibrationSet, keep: tuple[str, ...]
    ) -> Quantized:
        """The int8 graph, its activation ranges measured on the float32 graph in ONNX Runtime."""
        from .quantize import quantize

        self.require()
        return quantize(program, spec, calibration, keep)

    def lower(self, program: ExportedProgram | Quantized, spec: ExportSpec, out: Path) -> Artifact:
        from .lower import lower

        self.require()
        return lower(program, spec, out)

    def runner(self, artifact: Path, spec: ExportSpec, threads: int) -> Runner:
        """ONNX Runtime on the CPU: the same file that TensorRT reads, and no statement about a Jetson's speed."""
        from .runner import OnnxRunner

        return OnnxRunner(artifact, threads)

    def broken_rules(self, artifact: Path, precision: str) -> tuple[str, ...]:
        """TensorRT's rules that the saved graph breaks."""
        from .rules import broken_rules

        return broken_rules(artifact, precision)

    def runtime_here(self) -> str | None:
        return installed("onnxruntime")

    def cannot_run(self, precision: str) -> str:
        return "ONNX Runtime runs on every machine that rdd-edge runs on"
