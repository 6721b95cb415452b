"""The Android target: torch.export → XNNPACK or Vulkan → model.pte."""

from __future__ import annotations

import platform
from pathlib import Path

from ...bundle import Manifest
from ...portable.runner import Runner
from ..base import ExportSpec, Precision, Target

VULKAN = "vulkan"
FOR_VULKAN = ("simplify", "fold_time", "attention")
FOR_XNNPACK = ("simplify", "fold_time", "upsample_subpixel", "attention", "group_norm")
FOR_XNNPACK_FP32 = (*FOR_XNNPACK, "winograd")  # whose transforms need more precision than fp16 and int8 have

# XNNPACK has a set of float16 kernels for each kind of processor, some of which accumulate in float32: docs/arm64.md.
FP16_HERE = (
    None
    if platform.machine() in ("aarch64", "arm64")
    else "XNNPACK's float16 kernels for this processor do not round as those for a phone's ARM cores: use "
    "rdd-edge verify --arch arm64"
)


class AndroidTarget(Target):
    """ExecuTorch, on a phone's CPU by XNNPACK or on its GPU by Vulkan.

    fp32   float32 throughout.
    fp16   float16 activations. ExecuTorch stores the weights of convolutions as float32, so the file is no smaller.
    int8   convolutions and linear layers in int8, weights per channel, activations per tensor; the rest float32.
    mixed  int8, with those layers in float32 that a quality budget requires.

    Vulkan supports group normalization and nearest upsampling directly, but no masked attention. The runtime in
    executorch's wheel does not include Vulkan, so these artifacts are built and their operators counted, but not run.
    """

    name = "android"
    modules = ("torch", "torchao", "executorch.exir")
    runtime_package = "executorch"
    precisions = (
        Precision("fp32", "xnnpack", FOR_XNNPACK_FP32, quantized=False, parity_db=80.0),
        Precision("fp16", "xnnpack", FOR_XNNPACK, quantized=False, parity_db=45.0, unlike_device=FP16_HERE),
        Precision("int8", "xnnpack", FOR_XNNPACK, quantized=True, parity_db=35.0),
        Precision("mixed", "xnnpack", FOR_XNNPACK, quantized=True, parity_db=35.0),
        Precision("vulkan-fp32", VULKAN, FOR_VULKAN, quantized=False, parity_db=80.0),
        Precision("vulkan-fp16", VULKAN, FOR_VULKAN, quantized=False, parity_db=45.0),
    )

    def runner(self, artifact: Path, spec: ExportSpec, threads: int) -> Runner | None:
        """ExecuTorch's own runtime, whose wheel has the same kernels as a phone, built for this processor."""
        if self.precision(spec.precision).backend == VULKAN:
            return None
        from .runner import ExecuTorchRunner

        return ExecuTorchRunner(artifact, threads)

    def cannot_run(self, precision: str) -> str:
        if self.precision(precision).backend == VULKAN:
            return "executorch's wheel has no Vulkan backend: run it on an Android device"
        return super().cannot_run(precision)

    def emulated(self, artifact: Path, spec: ExportSpec, arch: str, cpus: tuple[str, ...]) -> dict[str, Runner] | None:
        """XNNPACK's ARM kernels under qemu's user-mode emulation."""
        if arch != "arm64" or self.precision(spec.precision).backend == VULKAN:
            return None
        from .arm64 import emulated_runners

        return emulated_runners(artifact, spec, cpus)

    def snippets(self, manifest: Manifest) -> dict[str, str]:
        from .usage import snippets

        return snippets(manifest)
