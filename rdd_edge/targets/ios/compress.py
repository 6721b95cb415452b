"""Compression of stored weights: int8 per channel, or a table of values (palettization)."""

from __future__ import annotations

from typing import Any

from .silence import import_coremltools, no_bars

_PRODUCTS = ("conv", "conv_transpose", "linear")
_BITS = {"w6": 6, "w4": 4}
# Smaller weights stay float16 where only storage matters: those of the first and last layers, the most sensitive ones.
_SMALLEST = 2048


def compress(model: Any, precision: str) -> Any:
    """An MLModel with the weights of `precision`: w8, w6, w4 or int8."""
    coreml = import_coremltools().optimize.coreml
    names = _weights(model, rounded_inputs_only=precision == "int8")
    if precision in _BITS:
        op = coreml.OpPalettizerConfig(mode="kmeans", nbits=_BITS[precision], weight_threshold=_SMALLEST)
        run = coreml.palettize_weights
    else:
        # A product computes in int8 only if both its weight, of any size, and its input are int8.
        least = 0 if precision == "int8" else _SMALLEST
        op = coreml.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=least)
        run = coreml.linear_quantize_weights
    config = coreml.OptimizationConfig(op_name_configs=dict.fromkeys(names, op))
    with no_bars():
        return run(model, config)


def _weights(model: Any, rounded_inputs_only: bool) -> list[str]:
    """Names of the weights of all convolutions and linear layers, or only of those whose input was rounded to int8."""
    products = [op for op in model._mil_program.functions["main"].operations if op.op_type in _PRODUCTS]
    if rounded_inputs_only:
        products = [op for op in products if op.x.op is not None and op.x.op.op_type == "dequantize"]
    return [op.weight.op.name for op in products if op.weight.op is not None and op.weight.op.op_type == "const"]
