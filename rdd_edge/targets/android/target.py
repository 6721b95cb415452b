"""The Android target: torch.export → XNNPACK → model.pte."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...dependencies import import_or_explain
from ..base import Artifact, CalibrationSet, ExportSpec, Quantized, Runner, Target, installed

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["AndroidTarget"]


FOR_VULKAN = ("simplify", "fold_time", "attention")
FOR_XNNPACK = ("simplify", "fold_time", "upsample_subpixel", "attention", "group_norm")


class AndroidTarget(Target):
    """ExecuTorch with XNNPACK, on a phone's CPU.

    fp32   one type throughout.
    fp16   float16 activations. ExecuTorch stores the weights of convolutions as float32, so the file is no smaller.
    int8   every convolution and linear in int8, weights per channel, activations per tensor; the rest float32.
    mixed  int8 but for the layers that a budget of quality makes it keep in float32.

    And with Vulkan, on its GPU, in float32 or float16: vulkan-fp32, vulkan-fp16. Vulkan takes group normalisation and
    nearest upsampling as they are, and no masked attention. The runtime in executorch's wheel has no Vulkan, so these
    are built, their operators counted, and not run here.
    """

    name = "android"
    precisions = ("fp32", "fp16", "int8", "mixed", "vulkan-fp32", "vulkan-fp16")
    backends: ClassVar[dict[str, tuple[str, ...]]] = {"xnnpack": precisions[:4], "vulkan": precisions[4:]}
    quantized = ("int8", "mixed")
    parity_db: ClassVar[dict[str, float]] = {
        "fp32": 80.0, "fp16": 45.0, "int8": 35.0, "mixed": 35.0, "vulkan-fp32": 80.0, "vulkan-fp16": 45.0,
    }  # fmt: skip
    rewrites: ClassVar[dict[str, tuple[str, ...]]] = {
        **dict.fromkeys(backends["xnnpack"], FOR_XNNPACK),
        "fp32": (*FOR_XNNPACK, "winograd"),  # its sums and differences take more digits than fp16 and int8 have
        **dict.fromkeys(backends["vulkan"], FOR_VULKAN),
    }

    def require(self) -> None:
        for module in ("torch", "torchao", "executorch.exir"):
            import_or_explain(module, "the android target", "android")

    def quantize(
        self, program: ExportedProgram, spec: ExportSpec, calibration: CalibrationSet, keep: tuple[str, ...]
    ) -> Quantized:
        """The int8 program, its activation ranges measured on the calibration noise."""
        from .quantize import quantize

        self.require()
        return quantize(program, spec, calibration, keep)

    def lower(self, program: ExportedProgram | Quantized, spec: ExportSpec, out: Path) -> Artifact:
        from .lower import lower

        self.require()
        return lower(program.program if isinstance(program, Quantized) else program, spec, out)

    def runner(self, artifact: Path, spec: ExportSpec, threads: int) -> Runner | None:
        """ExecuTorch's own runtime: the wheel brings the kernels that ship on a phone, built for this processor."""
        if spec.precision in self.backends["vulkan"]:
            return None
        from .runner import ExecuTorchRunner

        return ExecuTorchRunner(artifact, threads)

    def broken_rules(self, artifact: Path, precision: str) -> tuple[str, ...] | None:
        return None

    def runtime_here(self) -> str | None:
        return installed("executorch")

    def cannot_run(self, precision: str) -> str:
        if precision in self.backends["vulkan"]:
            return "executorch's wheel has no Vulkan backend: an Android device has"
        return "executorch's runtime is in its wheel on every machine that exports for Android"

    def emulated(self, artifact: Path, spec: ExportSpec, arch: str, cpus: tuple[str, ...]) -> dict[str, Runner] | None:
        """XNNPACK's kernels for ARM under qemu's user-mode emulation."""
        if arch != "arm64" or spec.precision in self.backends["vulkan"]:
            return None
        from .arm64 import emulated_runners

        return emulated_runners(artifact, spec, cpus)
