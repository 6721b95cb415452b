"""The Jetson target: ONNX, because a TensorRT engine works only with the GPU and version that built it."""

from __future__ import annotations

from pathlib import Path

from ...bundle import Manifest
from ...portable.runner import Runner
from ..base import ExportSpec, Precision, Target

# TensorRT itself optimizes Resize, InstanceNormalization and MatMul-Softmax-MatMul.
REWRITES = ("fold_time",)


class JetsonTarget(Target):
    """ONNX opset 20, strongly typed: the file fixes the precision, as TensorRT 11 requires and 10 allows.

    fp16  weights and activations float16, group normalization in float32 between casts, z and x float32.
    fp32  float32 throughout.
    int8  symmetric Q/DQ around every convolution and linear layer, per channel for weights; the rest as in fp16.
    fp8   the same in float8 E4M3, for boards from Thor on; layers whose channels its kernels do not take stay float16.
    """

    name = "jetson"
    modules = ("torch", "onnx", "onnxruntime", "onnxscript")
    runtime_package = "onnxruntime"
    precisions = (
        Precision("fp16", "tensorrt", REWRITES, quantized=False, parity_db=45.0),
        Precision("fp32", "tensorrt", REWRITES, quantized=False, parity_db=80.0),
        Precision("int8", "tensorrt", REWRITES, quantized=True, parity_db=35.0),
        Precision("fp8", "tensorrt", REWRITES, quantized=True, parity_db=30.0),
    )

    def runner(self, artifact: Path, spec: ExportSpec, threads: int) -> Runner:
        """ONNX Runtime on the CPU: it runs the same file as TensorRT, but does not predict a Jetson's speed."""
        from .runner import OnnxRunner

        return OnnxRunner(artifact, threads)

    def broken_rules(self, artifact: Path, precision: str) -> tuple[str, ...]:
        """TensorRT's rules that the saved graph breaks."""
        from .rules import broken_rules

        return broken_rules(artifact, precision)

    def snippets(self, manifest: Manifest) -> dict[str, str]:
        from .usage import snippets

        return snippets(manifest)
