"""Conversion of an exported program to an ML program, in float32 where float16 would overflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ExportError, first_line
from ..base import ExportSpec
from .silence import import_coremltools, no_bars

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["convert", "may_be_half"]

# Core ML has no group normalization: it becomes mean, sub, square, mean, add of epsilon, sqrt, divide. `square`
# overflows float16 when |x - mean| > 255, and a phone would show a black image.
_STATISTICS = frozenset({"reduce_mean", "reduce_sum", "reduce_sum_square", "square", "pow", "sqrt", "rsqrt", "sub"})


def convert(program: ExportedProgram, spec: ExportSpec) -> Any:
    """A coremltools MLModel: z float32 [, label int32] → x float32, iOS 17. Raises ExportError."""
    ct = import_coremltools()
    precision = ct.precision.FLOAT32 if spec.precision == "fp32" else ct.transform.FP16ComputePrecision(may_be_half)
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


def may_be_half(op: Any) -> bool:
    """Whether an operation of the MIL graph is safe in float16, as those inside a normalization are not."""
    if op.op_type in _STATISTICS:
        return False
    if op.op_type == "add":  # the variance plus epsilon
        return not (_made_by(op, "reduce_mean", "mul") and _adds_epsilon(op))
    if op.op_type in ("real_div", "mul"):  # by the standard deviation, or by its inverse
        return not _made_by(op, "sqrt", "rsqrt")
    return True


def _made_by(op: Any, *kinds: str) -> bool:
    """Whether an operand of a binary operation is the result of an operation of these types."""
    return any(value.op is not None and value.op.op_type in kinds for value in (op.x, op.y))


def _adds_epsilon(op: Any) -> bool:
    constants = [value.val for value in (op.x, op.y) if value.val is not None]
    return any(np.size(value) == 1 and abs(float(np.ravel(value)[0])) < 1e-2 for value in constants)
