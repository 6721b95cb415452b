"""Writes model.pte: the program delegated to XNNPACK, or to Vulkan for a phone's GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...bundle import Needs, Requirement
from ...errors import ExportError, first_line
from ...files import write_bytes
from ..base import Artifact, ExportSpec, Quantized

if TYPE_CHECKING:
    from torch.export import ExportedProgram

LIBRARIES = {"xnnpack": "org.pytorch:executorch-android", "vulkan": "org.pytorch:executorch-android-vulkan"}
LEAST_API, ARCHITECTURES = "23", ("arm64-v8a", "x86_64")  # of these libraries


def lower(program: ExportedProgram | Quantized, spec: ExportSpec, out: Path) -> Artifact:
    """Write model.pte into the folder `out`. Raises ExportError for a model that ExecuTorch cannot convert."""
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from executorch.exir.verification.verifier import EXIREdgeDialectVerifier

    from .half import to_half
    from .outside import operators_outside

    exported: ExportedProgram = program.program if isinstance(program, Quantized) else program
    if spec.precision == "fp16":
        exported = to_half(exported)
    try:
        with _silent_stderr():
            # Verified once below: verification between all passes takes a sixth of the time.
            config = EdgeCompileConfig(_check_ir_validity=False)
            edge = to_edge_transform_and_lower(
                exported, partitioner=[_partitioner(spec.precision)], compile_config=config
            )
            EXIREdgeDialectVerifier()(edge.exported_program())
            content = edge.to_executorch().buffer
            outside = operators_outside(content)
    except Exception as error:  # the stages of the compiler raise exceptions of many kinds
        raise ExportError(f"ExecuTorch cannot convert the model: {first_line(error)[:300]}") from error
    write_bytes(out / "model.pte", content)
    versions = {name: version(name) for name in ("executorch", "torch", "torchao")}
    return Artifact(out / "model.pte", versions, _needs(spec.precision, versions["executorch"]), outside)


def _needs(precision: str, executorch: str) -> Needs:
    """The Maven artifact with the backend, which runs programs of its own release and older ones."""
    backend = "vulkan" if precision.startswith("vulkan-") else "xnnpack"
    return Needs(
        backend=backend,
        runtime=Requirement(name=LIBRARIES[backend], least=executorch),
        system=Requirement(name="Android API", least=LEAST_API),
        architectures=ARCHITECTURES,
        compute_units=None,
    )


def _partitioner(precision: str) -> Any:
    """XNNPACK's or Vulkan's. Vulkan itself converts a program to float16 and keeps its inputs and outputs float32."""
    if precision.startswith("vulkan-"):
        from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

        return VulkanPartitioner({"force_fp16": precision == "vulkan-fp16"})
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return XnnpackPartitioner()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discard what the compiler's C++ code writes to standard error."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
