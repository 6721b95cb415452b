"""Write model.pte: the program with its work handed to XNNPACK, or to Vulkan for a phone's GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ExportError, first_line
from ...files import write_bytes
from ..base import Artifact, ExportSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["VULKAN", "lower"]

VULKAN = "vulkan-"  # begins the names of the precisions that are lowered for the GPU


def lower(program: ExportedProgram, spec: ExportSpec, out: Path) -> Artifact:
    """model.pte in the folder `out`. Raises ExportError for a model that ExecuTorch cannot take."""
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from executorch.exir.verification.verifier import EXIREdgeDialectVerifier

    from .half import to_half
    from .outside import operators_outside

    if spec.precision == "fp16":
        program = to_half(program)

    try:
        with _silent_stderr():
            # Checked once, of what no backend took, and not between all passes, a sixth of the time.
            config = EdgeCompileConfig(_check_ir_validity=False)
            edge = to_edge_transform_and_lower(
                program, partitioner=[_partitioner(spec.precision)], compile_config=config
            )
            EXIREdgeDialectVerifier()(edge.exported_program())
            content = edge.to_executorch().buffer
            outside = operators_outside(content)
    except Exception as error:  # each stage of the compiler has exceptions of its own
        reason = first_line(error)
        raise ExportError(f"ExecuTorch cannot take the model: {reason[:300]}") from error
    write_bytes(out / "model.pte", content)
    versions = {name: version(name) for name in ("executorch", "torch", "torchao")}
    return Artifact(out / "model.pte", versions, outside)


def _partitioner(precision: str) -> Any:
    """Vulkan's own switch makes float16 of a float32 program: its inputs and outputs stay float32."""
    if precision.startswith(VULKAN):
        from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

        return VulkanPartitioner({"force_fp16": precision == f"{VULKAN}fp16"})
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return XnnpackPartitioner()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep what the compiler's C++ writes to the process's own standard error from the user's eyes."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
