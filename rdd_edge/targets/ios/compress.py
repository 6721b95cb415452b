"""Weights stored smaller than they are computed with: int8 per channel, or a table of values (palettization)."""

from __future__ import annotations

from typing import Any

from .silence import import_coremltools, no_bars

__all__ = ["compress", "full_precision_weights"]

_PRODUCTS = ("conv", "conv_transpose", "linear", "matmul")
_BITS = {"w6": 6, "w4": 4}


def compress(model: Any, precision: str) -> Any:
    """An MLModel with the weights that `precision` means: w8, w6, w4 or int8."""
    coreml = import_coremltools().optimize.coreml
    if precision in _BITS:
        op = coreml.OpPalettizerConfig(mode="kmeans", nbits=_BITS[precision])
        run = coreml.palettize_weights
    else:
        op = coreml.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
        run = coreml.linear_quantize_weights
    names = full_precision_weights(model) if precision == "int8" else ()
    config = coreml.OptimizationConfig(global_config=op, op_name_configs=dict.fromkeys(names))
    with no_bars():
        return run(model, config)


def full_precision_weights(model: Any) -> tuple[str, ...]:
    """Names of the weights whose product reads an activation that was not rounded to int8."""
    found = []
    for op in model._mil_program.functions["main"].operations:
        if op.op_type in _PRODUCTS and (op.x.op is None or op.x.op.op_type != "dequantize"):
            weight = op.y if op.op_type == "matmul" else op.weight
            if weight.op is not None and weight.op.op_type == "const":
                found.append(weight.op.name)
    return tuple(found)
