"""Writes model.onnx."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ...bundle import Needs, Requirement
from ...errors import ExportError
from ...files import write_bytes
from ..base import Artifact, ExportSpec, Quantized
from .graph import convert, tidy, to_proto
from .half import to_half
from .harness.engine import NEWEST, OLDEST

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_PROTOBUF_LIMIT = 2**31 - 1
NEEDS = Needs(
    backend="tensorrt",
    runtime=Requirement(name="TensorRT", least=".".join(map(str, OLDEST)), below=str(NEWEST + 1)),
    system=Requirement(name="JetPack", least="6.1"),  # the first with that TensorRT
    architectures=("aarch64",),
    compute_units=None,
)


def lower(program: ExportedProgram | Quantized, spec: ExportSpec, out: Path) -> Artifact:
    """Write model.onnx into the folder `out`. Raises ExportError for a model that does not fit into one ONNX file."""
    if isinstance(program, Quantized):
        model = program.program
    else:
        model = convert(program)
        if spec.precision == "fp16":
            model = to_half(model)
    content = _serialized(model)
    write_bytes(out / "model.onnx", content)
    packages = ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime")
    return Artifact(out / "model.onnx", {name: version(name) for name in packages}, NEEDS)


def _serialized(model: object) -> bytes:
    import onnx

    proto = to_proto(tidy(model))  # type: ignore[arg-type]
    if proto.ByteSize() > _PROTOBUF_LIMIT:
        raise ExportError("the model is larger than 2 GiB, the limit of an ONNX file: choose fp16 or a smaller network")
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content
