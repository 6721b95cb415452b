"""The iOS target: an ML program for iOS 17 and later."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from ...bundle import Manifest
from ...portable.runner import Runner
from ..base import ExportSpec, Precision, Target

REWRITES = ("fold_time", "group_norm")


class IosTarget(Target):
    """Core ML packages.

    fp16          weights and activations float16, group normalisation scaled to stay in its range.
    fp32          for comparison: the Neural Engine computes in float16 only.
    w8, w6, w4    fp16 with smaller weights: int8 per channel, or a table of 64 or 16 values per tensor.
    int8          w8 with the inputs of convolutions and linear layers in int8 as well; faster on A17 Pro, M4 or later.
    """

    name = "ios"
    modules = ("torch", "coremltools")
    label_dtype = "int32"
    precisions = (
        Precision("fp16", "coreml", REWRITES, quantized=False, parity_db=45.0),
        Precision("fp32", "coreml", REWRITES, quantized=False, parity_db=80.0),
        Precision("w8", "coreml", REWRITES, quantized=False, parity_db=35.0),
        Precision("w6", "coreml", REWRITES, quantized=False, parity_db=30.0),
        Precision("w4", "coreml", REWRITES, quantized=False, parity_db=20.0),
        Precision("int8", "coreml", REWRITES, quantized=True, parity_db=35.0),
    )

    def runner(self, artifact: Path, spec: ExportSpec, threads: int) -> Runner:
        """Core ML itself on a Mac; elsewhere an evaluator of the saved package, whose times are not valid."""
        from .runner import CoreMLRunner, EvaluatorRunner

        return CoreMLRunner(artifact) if sys.platform == "darwin" else EvaluatorRunner(artifact, threads)

    def broken_rules(self, artifact: Path, precision: str) -> tuple[str, ...]:
        """The operators of a float16 package that the Neural Engine does not take."""
        from .evaluator import read_package
        from .rules import broken_rules

        return broken_rules(read_package(artifact), precision)

    def checked_runner(self, artifact: Path, spec: ExportSpec, threads: int) -> tuple[Runner, tuple[str, ...]]:
        """Both from one reading of the package, unless Core ML reads it itself."""
        from .rules import broken_rules
        from .runner import CoreMLRunner, EvaluatorRunner

        if sys.platform == "darwin":
            return CoreMLRunner(artifact), self.broken_rules(artifact, spec.precision)
        runner = EvaluatorRunner(artifact, threads)
        return runner, broken_rules(runner.function, spec.precision)

    def runtime_here(self) -> str:
        if sys.platform == "darwin":
            return f"Core ML on macOS {platform.mac_ver()[0]}"
        return "an evaluator of the package, which measures quality but not time"

    def snippets(self, manifest: Manifest) -> dict[str, str]:
        from .usage import snippets

        return snippets(manifest)
