"""Conversion of an exported program to an ML program, float16 throughout except for fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ExportError, first_line
from ..base import ExportSpec
from .silence import import_coremltools, no_bars

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def convert(program: ExportedProgram, spec: ExportSpec) -> Any:
    """A coremltools MLModel: z float32 [, label int32] → x float32, iOS 17. Raises ExportError."""
    ct = import_coremltools()
    precision = ct.precision.FLOAT32 if spec.precision == "fp32" else ct.precision.FLOAT16
    inputs = [ct.TensorType(name="z", shape=spec.input_shape, dtype=np.float32)]
    if spec.classes is not None:
        inputs.append(ct.TensorType(name="label", shape=spec.input_shape[:1], dtype=np.int32))
    try:
        with no_bars():
            return ct.convert(
                program.run_decompositions({}),
                convert_to="mlprogram",
                inputs=inputs,
                outputs=[ct.TensorType(name="x", dtype=np.float32)],
                minimum_deployment_target=ct.target.iOS17,
                compute_precision=precision,
                skip_model_load=True,
            )
    except (NotImplementedError, RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise ExportError(f"the ios target cannot convert this model: {first_line(error)}") from None
