"""Writes model.mlpackage."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...bundle import Needs, Requirement
from ...files import storage_errors
from ..base import Artifact, ExportSpec, Quantized
from .compress import compress
from .convert import convert
from .half import in_half_range
from .silence import COMPUTE_UNITS, import_coremltools, no_bars

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def lower(program: ExportedProgram | Quantized, spec: ExportSpec, out: Path) -> Artifact:
    """Write model.mlpackage into the folder `out`. Raises ExportError."""
    exported = program.program if isinstance(program, Quantized) else program
    model = convert(exported if spec.precision == "fp32" else in_half_range(exported, spec), spec)
    if spec.precision not in ("fp32", "fp16"):
        model = compress(model, spec.precision)
    path = out / "model.mlpackage"
    _save(model, path)
    return Artifact(path, {name: version(name) for name in ("torch", "coremltools")}, _needs(model))


def _needs(model: Any) -> Needs:
    """From the version of the specification that coremltools wrote, which may be newer than the one asked for."""
    specification = model.get_spec().specificationVersion
    return Needs(
        backend="coreml",
        runtime=Requirement(name="Core ML specification", least=str(specification)),
        system=Requirement(name="iOS", least=import_coremltools().target(specification).name.removeprefix("iOS")),
        architectures=("arm64",),
        compute_units=COMPUTE_UNITS,
    )


def _save(model: Any, path: Path) -> None:
    with storage_errors(path), no_bars():
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(str(path))
        # Written by coremltools for ExecuTorch's debugger; Core ML does not read it.
        (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
        for file in path.rglob("*"):
            if file.is_file():
                os.chmod(file, 0o644)
